"""A scale before a shift that cannot cross zero padding."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt_passes.vertical import FuseVertical
from graphopt_passes.vertical.fold_across_shift import FoldScaleAcrossShift
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, apply_pass, check_numbers, check_rewrite, check_untouched

RULE = FoldScaleAcrossShift()
WEIGHTS = {
    "w": normal(6, 4, 3, 3),
    "d": normal(4, 1, 3, 3),
    "wt": normal(4, 6, 3, 3),
    "b": normal(6),
    "s": normal(4, 1, 1),
    "t": normal(4, 1, 1, seed=1),
    "one": np.float32(0.25),
    "zero": np.array([1, 0, 1, 1], np.float32).reshape(4, 1, 1),
    "col": normal(8),
    "magic": np.float32(1.5 * 2**23),
}
PADDED = "Conv<pads=[1,1,1,1]>"


def test_the_scale_crosses_and_the_shift_stays() -> None:
    text = f"g (float[2,4,8,8] x) => (float[A,B,C,D] y) {{ k = Mul(x, s) l = Add(k, t) y = {PADDED}(l, w, b) }}"
    check_rewrite(
        RULE,
        model(text, used(WEIGHTS, text)),
        f"g (float[2,4,8,8] x) => (float[A,B,C,D] y) {{ l = Add(x, c) y = {PADDED}(l, w, b) }}",
    )


@pytest.mark.parametrize(
    ("text", "operator"),
    [
        (f"k = Div(x, s) l = Sub(k, t) y = {PADDED}(l, w)", "Conv"),
        (f"k = Mul(one, x) l = Sub(one, k) y = {PADDED}(l, w)", "Conv"),
        (f"k = Neg(x) l = Add(t, k) y = {PADDED}(l, w)", "Conv"),
        ('k = Mul(x, s) l = Add(k, one) y = Conv<auto_pad="SAME_UPPER", group=4>(l, d)', "Conv"),
        ("k = Mul(x, s) l = Add(k, t) y = ConvTranspose<strides=[2,2]>(l, wt, b)", "ConvTranspose"),
    ],
)
def test_spellings(text: str, operator: str) -> None:
    full = f"g (float[2,4,8,8] x) => (float[A,B,C,D] y) {{ {text} }}"
    check_rewrite(RULE, model(full, used(WEIGHTS, full)), ["Add", operator])


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("nothing pads: the shift folds as well", "k = Mul(x, s) l = Add(k, t) y = Conv(l, w)", "into the bias"),
        ("no scale", f"k = Relu(x) l = Add(k, t) y = {PADDED}(l, w)", "nothing scales"),
        ("no shift", f"k = Relu(x) l = Mul(k, s) y = {PADDED}(l, w)", "no shift"),
        ("the scaled data is read elsewhere", f"k = Mul(x, s) l = Add(k, t) c = {PADDED}(l, w) r = ReduceMax(k) "
         "y = Add(c, r)", "nothing scales"),
        ("the shifted data is read elsewhere", f"k = Mul(x, s) l = Add(k, t) c = {PADDED}(l, w) r = ReduceMax(l) "
         "y = Add(c, r)", "no shift"),
        ("a scale a column", f"k = Mul(x, col) l = Add(k, t) y = {PADDED}(l, w)", "nothing scales"),
        ("a shift a column", f"k = Mul(x, s) l = Add(k, col) y = {PADDED}(l, w)", "no shift"),
        ("the scale enlarges", f"k = Mul(thin, s) l = Add(k, t) y = {PADDED}(l, w)", "nothing scales"),
        ("a computed weight", f"k = Mul(x, s) l = Add(k, t) q = Relu(w) y = {PADDED}(l, q)", "not constant"),
        ("a shift that rounds", f"k = Mul(x, s) l = Add(k, magic) y = {PADDED}(l, w)", "which may be meant"),
        ("a scale of zero", f"k = Mul(x, zero) l = Add(k, t) y = {PADDED}(l, w)", "is zero"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, text: str, because: str) -> None:
    full = f"g (float[2,4,8,8] x, float[2,1,8,8] thin) => (float[A,B,C,D] y) {{ {text} }}"
    check_untouched(RULE, model(full, used(WEIGHTS, full)), because)


def test_float16_may_not_hold_the_quotient() -> None:
    text = f"g (float16[2,4,8,8] x) => (float16[A,B,C,D] y) {{ k = Mul(x, s) l = Add(k, t) y = {PADDED}(l, w) }}"
    weights = {k: v.astype(np.float16) for k, v in used(WEIGHTS, text).items()}
    check_untouched(RULE, model(text, weights), "float16")


def test_bfloat16_holds_it() -> None:
    text = f"g (bfloat16[2,4,8,8] x) => (bfloat16[A,B,C,D] y) {{ k = Mul(x, s) l = Add(k, t) y = {PADDED}(l, w) }}"
    weights = {k: v.astype(ml_dtypes.bfloat16) for k, v in used(WEIGHTS, text).items()}
    result, log = apply(RULE, model(text, weights, opset=22))
    assert [a.rule for a in log.applications] == [RULE.name]
    assert [n.op_type for n in result.graph.node] == ["Add", "Conv"]


def test_a_transform_of_images_keeps_one_add() -> None:
    text = f"g (float[2,4,8,8] x) => (float[A,B,C,D] y) {{ k = Mul(x, s) l = Add(k, t) y = {PADDED}(l, w) }}"
    result, _ = apply_pass(FuseVertical(), model(text, used(WEIGHTS, text)))
    assert [n.op_type for n in result.graph.node] == ["Add", "Conv"]


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    scale = data.draw(st.sampled_from(["Mul(x, s)", "Div(x, s)", "Neg(x)", "Mul(one, x)", "Mul(x, zero)"]))
    shift = data.draw(st.sampled_from(["Add(k, t)", "Sub(k, t)", "Sub(t, k)", "Add(one, k)"]))
    pads = data.draw(st.sampled_from([[1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]]))
    linear = data.draw(st.sampled_from(["Conv<pads={}>(l, w)", "Conv<pads={}, group=4>(l, d)",
                                        "ConvTranspose<pads={}>(l, wt, b)"]))  # fmt: skip
    text = f"g (float[2,4,5,4] x) => (float[A,B,C,D] y) {{ k = {scale} l = {shift} y = {linear.format(pads)} }}"
    before = model(text, used(WEIGHTS, text))
    result, log = apply(RULE, before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before


def test_before_opset_7_it_is_left_alone() -> None:
    """An Add of opset 6 broadcasts only where it says from which axis."""
    text = (
        "g (float[2,4,8,8] x) => (float[A,B,C,D] y) "
        f"{{ k = Mul<broadcast=1, axis=1>(x, s) l = Add<broadcast=1, axis=1>(k, t) y = {PADDED}(l, w) }}"
    )
    weights = {**WEIGHTS, "s": normal(4), "t": normal(4, seed=1)}
    check_untouched(RULE, model(text, used(weights, text), opset=6), "before opset 7")
