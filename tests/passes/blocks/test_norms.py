"""Normalizations written as arithmetic, in the spellings of several exporters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.blocks import RecognizeBlocks
from graphopt_passes.blocks.norms import NORM_TYPES
from graphopt_passes.common.types import takes
from tests.passes.vertical.weights import normal, used
from tests.support.models import model, run
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULES = RecognizeBlocks.rules
WEIGHTS = {
    "two": np.float32(2),
    "three": np.float32(3),
    "half": np.float32(0.5),
    "minus": np.float32(-0.5),
    "one": np.float32(1),
    "e": np.float32(1e-5),
    "last": np.array([-1]),
    "g": normal(6),
    "t": normal(6, seed=1),
    "wide": normal(4, 6),
    "g4": normal(1, 1, 6),
    "flat": np.array([0, 3, -1]),
    "back": np.array([2, 6, 4, 5]),
    "swapped": np.array([2, 6, 5, 4]),
    "ones3": np.ones(3, np.float32),
    "zeros3": np.zeros(3, np.float32),
    "some3": normal(3),
    "gc": normal(6, 1, 1),
    "tc": normal(1, 6, 1, 1),
    "row": normal(1, 6),
    "deep": normal(1, 1, 6),
    "full": normal(2, 4, 6),
    "ones": np.ones((1, 1, 6), np.float32),
    "one1": np.full(1, 0.5, np.float32),
    "magic": np.float32(1.5 * 2**23),
    "unmagic": np.float32(-1.5 * 2**23),
    "thousands": np.float32(3000),
}
MEAN = "ReduceMean<axes=[-1]>"


def graph(text: str, opset: int = 17, shape: str = "2,4,6", extra: str = "") -> ModelProto:
    dims = ",".join("ABCDE"[: len(shape.split(","))])
    text = f"graph (float[{shape}] x{extra}) => (float[{dims}] y) {{ {text} }}"
    return model(text, used(WEIGHTS, text), opset=opset)


LAYER_NORMS = [
    # PyTorch's legacy exporter, the same with the difference written twice, Paddle, with inverses, by powers
    f"m = {MEAN}(x) d = Sub(x, m) p = Pow(d, two) v = {MEAN}(p) a = Add(v, e) s = Sqrt(a) "
    "n = Div(d, s) k = Mul(n, g) y = Add(k, t)",
    f"m = {MEAN}(x) d = Sub(x, m) d2 = Sub(x, m) p = Pow(d2, two) v = {MEAN}(p) a = Add(v, e) s = Sqrt(a) "
    "n = Div(d, s) k = Mul(n, g) y = Add(k, t)",
    f"m = {MEAN}(x) d = Sub(x, m) p = Mul(d, d) v = {MEAN}(p) a = Add(e, v) s = Sqrt(a) r = Reciprocal(s) "
    "n = Mul(d, r) k = Mul(g, n) y = Add(t, k)",
    f"m = {MEAN}(x) d = Sub(x, m) p = Mul(d, d) v = {MEAN}(p) a = Add(v, e) s = Sqrt(a) r = Div(one, s) n = Mul(r, d) "
    "k = Mul(n, g4) y = Add(k, t)",
    f"m = {MEAN}(x) d = Sub(x, m) p = Mul(d, d) v = {MEAN}(p) a = Add(v, e) r = Pow(a, minus) n = Mul(d, r) "
    "k = Mul(n, g) y = Add(k, t)",
    f"m = {MEAN}(x) d = Sub(x, m) p = Mul(d, d) v = {MEAN}(p) a = Add(v, e) s = Pow(a, half) y = Div(d, s)",
    # tf2onnx
    f"m = {MEAN}(x) d = Sub(x, m) p = Mul(d, d) v = {MEAN}(p) a = Add(v, e) s = Sqrt(a) r = Reciprocal(s) "
    "k = Mul(r, g) z = Mul(x, k) mk = Mul(m, k) q = Sub(t, mk) y = Add(z, q)",
    f"m = {MEAN}(x) d = Sub(x, m) p = Mul(d, d) v = {MEAN}(p) a = Add(v, e) s = Sqrt(a) k = Div(g, s) "
    "z = Mul(x, k) mk = Mul(m, k) q = Sub(t, mk) y = Add(z, q)",
    f"m = {MEAN}(x) d = Sub(x, m) p = Mul(d, d) v = {MEAN}(p) a = Add(v, e) s = Sqrt(a) k = Reciprocal(s) "
    "z = Mul(k, x) mk = Mul(k, m) q = Sub(t, mk) y = Add(q, z)",
    f"m = {MEAN}(x) d = Sub(x, m) p = Mul(d, d) v = {MEAN}(p) a = Add(v, e) s = Sqrt(a) k = Div(one, s) "
    "z = Mul(k, x) mk = Mul(k, m) q = Sub(t, mk) y = Add(q, z)",
]  # fmt: skip
RMS_NORM = (
    "p = Pow(x, two) v = ReduceMean<axes=[-1]>(p) a = Add(v, e) s = Sqrt(a) r = Div(one, s) n = Mul(x, r) y = Mul(n, g)"
)


@pytest.mark.parametrize("text", LAYER_NORMS)
def test_layer_norm(text: str) -> None:
    before = graph(text)
    result, _ = apply(RULES, before)
    (norm,) = result.graph.node
    assert norm.op_type == "LayerNormalization"
    assert len(norm.input) == (2 if "half" in text else 3)
    assert apply(RULES, result)[0] == result
    check_numbers(before, result, exact=False)


def test_axes_as_an_input() -> None:
    text = LAYER_NORMS[0].replace(f"{MEAN}(x)", "ReduceMean(x, last)").replace(f"{MEAN}(p)", "ReduceMean(p, last)")
    check_rewrite(
        RULES,
        graph(text, opset=18),
        "graph (float[2,4,6] x) => (float[A,B,C] y) { y = LayerNormalization<axis=-1, epsilon=0.00001>(x, g, t) }",
        applied=3,
    )


def test_over_two_axes() -> None:
    two_axes = LAYER_NORMS[0].replace("axes=[-1]", "axes=[1,2]").replace("Mul(n, g)", "Mul(n, wide)")
    result = check_rewrite(RULES, graph(two_axes), ["LayerNormalization"], applied=3)
    assert result.graph.node[0].attribute[0].i == -2


def test_a_computed_scale_and_bias() -> None:
    text = LAYER_NORMS[0].replace("g)", "cg)").replace("t)", "ct)")
    check_rewrite(RULES, graph(text, extra=", float[6] cg, float[6] ct"), ["LayerNormalization"], applied=3)


def test_a_scale_behind_an_operator_of_the_model() -> None:
    text = "n = LayerNormalization(x, g, t) k = Mul(two, n) y = Add(k, t)"
    check_rewrite(RULES, graph(text), ["LayerNormalization"], applied=2)


ROOT_MEAN = "v = ReduceMean(p, last) a = Add(v, e)"


@pytest.mark.parametrize(
    "text",
    [
        # PyTorch's exporters, with an inverse, by powers, the scale first, without a scale
        f"p = Pow(x, two) {ROOT_MEAN} s = Sqrt(a) r = Div(one, s) n = Mul(x, r) y = Mul(n, g)",
        f"p = Mul(x, x) {ROOT_MEAN} s = Sqrt(a) r = Reciprocal(s) n = Mul(r, x) y = Mul(g, n)",
        f"p = Mul(x, x) {ROOT_MEAN} r = Pow(a, minus) n = Mul(x, r) y = Mul(g, n)",
        f"p = Pow(x, two) {ROOT_MEAN} s = Pow(a, half) n = Div(x, s) y = Mul(n, g4)",
        f"p = Pow(x, two) {ROOT_MEAN} s = Sqrt(a) y = Div(x, s)",
    ],
)
def test_rms_norm(text: str) -> None:
    before = graph(text, opset=23)
    result, _ = apply(RULES, before)
    assert [n.op_type for n in result.graph.node] == ["RMSNormalization"]
    assert apply(RULES, result)[0] == result
    check_numbers(before, result, exact=False)


def test_an_rms_norm_that_adds_a_bias_keeps_the_add() -> None:
    text = f"p = Mul(x, x) {ROOT_MEAN} s = Sqrt(a) n = Div(x, s) k = Mul(n, g) y = Add(k, t)"
    check_rewrite(RULES, graph(text, opset=23), ["Add", "RMSNormalization"], applied=2)


def test_a_layer_norm_of_torchs_dynamo_exporter() -> None:
    """Decomposed as `aten.var_mean` and `rsqrt` are: the axes as inputs, the mean read by the difference alone."""
    text = """m = ReduceMean(x, last) d = Sub(x, m) p = Mul(d, d) v = ReduceMean(p, last) a = Add(v, e) s = Sqrt(a)
              r = Reciprocal(s) d2 = Sub(x, m) n = Mul(d2, r) k = Mul(n, g) y = Add(k, t)"""
    check_rewrite(RULES, graph(text, opset=18), ["LayerNormalization"], applied=3)


def test_instance_norm() -> None:
    text = LAYER_NORMS[0].replace("axes=[-1]", "axes=[2,3]").replace("g)", "gc)").replace("t)", "tc)")
    check_rewrite(RULES, graph(text, opset=13, shape="2,6,4,5"), ["InstanceNormalization"], applied=3)


GROUP_NORM = "r = Reshape(x, flat) n = {}(r, ones3{}) b = Reshape(n, back) k = Mul(b, gc) y = Add(k, tc)"


@pytest.mark.parametrize(("norm", "bias"), [
    ("InstanceNormalization<epsilon=0.001>", ", zeros3"),
])  # fmt: skip
def test_group_norm(norm: str, bias: str) -> None:
    before = graph(GROUP_NORM.format(norm, bias), opset=21, shape="2,6,4,5")
    result, _ = apply(RULES, before)
    assert [n.op_type for n in result.graph.node] == ["GroupNormalization"]
    check_numbers(before, result, exact=False)


def test_a_group_norm_by_hand() -> None:
    """As a model without the operator spells it: Reshape, mean and variance over each group, Reshape."""
    text = f"""r = Reshape(x, flat) m = {MEAN}(r) d = Sub(r, m) p = Mul(d, d) v = {MEAN}(p) a = Add(v, e) s = Sqrt(a)
               n = Div(d, s) b = Reshape(n, back) k = Mul(b, gc) y = Add(k, tc)"""
    text = text.replace(f"{MEAN}(r)", "ReduceMean(r, last)").replace(f"{MEAN}(p)", "ReduceMean(p, last)")
    before = graph(text, opset=21, shape="2,6,4,5")
    result, _ = apply(RULES, before)
    assert [n.op_type for n in result.graph.node] == ["GroupNormalization"]
    check_numbers(before, result, exact=False)


def test_group_norm_of_a_dynamic_image() -> None:
    text = "s = Shape(x) " + GROUP_NORM.format("InstanceNormalization", ", zeros3").replace("back)", "s)")
    before = graph(text, opset=21, shape="N,6,H,W")
    result, _ = apply(RULES, before)
    assert [n.op_type for n in result.graph.node] == ["GroupNormalization"]
    check_numbers(before, result, exact=False, N=2, H=4, W=3)


@pytest.mark.parametrize(
    ("text", "opset", "shape", "because"),
    [
        (LAYER_NORMS[0], 13, "2,4,6", "take --opset 17"),
        (LAYER_NORMS[6], 16, "2,4,6", "take --opset 17"),
        (RMS_NORM, 17, "2,4,6", "take --opset 23"),
        (GROUP_NORM.format("InstanceNormalization", ", zeros3"), 18, "2,6,4,5", "take --opset 21"),
    ],
)
def test_an_older_opset_is_told_what_it_lacks(text: str, opset: int, shape: str, because: str) -> None:
    check_untouched(RULES, graph(text, opset=opset, shape=shape), because)


CORE = LAYER_NORMS[5]


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("cubes", LAYER_NORMS[0].replace("two", "three")),
        ("another axis", LAYER_NORMS[0].replace("axes=[-1]>(p)", "axes=[1]>(p)")),
        ("the middle axis", LAYER_NORMS[0].replace("axes=[-1]", "axes=[1]")),
        ("dimensions dropped", "p = Mul(x, x) v = ReduceMean<axes=[0], keepdims=0>(p) a = Add(v, e) s = Sqrt(a) "
         "y = Div(x, s)"),
        ("the mean of another", LAYER_NORMS[0].replace("(x) d", "(q) d").replace("m =", "q = Abs(x) m =", 1)),
        ("the square of another", CORE.replace("Mul(d, d)", "Mul(d, x)")),
        ("the difference is read", CORE.replace("y = Div(d, s)", "n = Div(d, s) y = Add(n, d)")),
        ("the deviation is read", CORE.replace("y = Div(d, s)", "n = Div(d, s) y = Add(n, s)")),
        ("deviation by data", CORE.replace("Div(d, s)", "Div(s, d)")),
        ("another power", CORE.replace("Pow(a, half)", "Pow(a, two)")),
        ("a computed epsilon", CORE.replace("Add(v, e)", "Add(v, x)")),
        ("tf, another mean", LAYER_NORMS[6].replace("mk = Mul(m, k)", "m2 = ReduceMax<axes=[-1]>(x) mk = Mul(m2, k)")),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, text: str) -> None:
    check_untouched(RULES, graph(text))


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("the scale is a row", "n = LayerNormalization(x, g, t) y = Mul(n, wide)"),
        ("a residual", "n = LayerNormalization(x, g, t) y = Add(n, x)"),
        ("computed, beside another", "c = ReduceMax<axes=[0,1], keepdims=0>(x) "
         "n = LayerNormalization(x, g) y = Mul(n, c)"),
        ("read twice", "n = LayerNormalization(x, g, t) k = Mul(n, g) y = Add(k, n)"),
        ("its statistics are read", "n, m, i = LayerNormalization(x, g, t) k = Mul(n, g) y = Add(k, m)"),
        ("a product of two", "n = LayerNormalization(x, g, t) k = LayerNormalization(x, t, g) y = Mul(k, n)"),
    ],
)  # fmt: skip
def test_parameters_that_stay_outside(why: str, text: str) -> None:
    check_untouched(RULES, graph(text))


@pytest.mark.parametrize(
    "text",
    [
        "n = LayerNormalization(x, row) y = Mul(n, g)",
        "n = LayerNormalization(x, deep, t) y = Mul(n, g)",
        "n = LayerNormalization(x, g, full) y = Mul(n, g)",
        "n = LayerNormalization(x, ones) y = Mul(n, g)",
        "n = LayerNormalization(x, g, deep) y = Add(n, t)",
        "n = LayerNormalization(x, g, full) y = Add(n, t)",
        "n = RMSNormalization(x, row) y = Mul(n, g)",
    ],
)
def test_own_parameters_of_more_dimensions_than_are_normalized(text: str) -> None:
    before = graph(text, opset=23 if "RMS" in text else 17)
    check_untouched(RULES, before, "more dimensions than it normalizes")


@pytest.mark.parametrize("text", [
    "n = LayerNormalization(x, one1, one1) k = Mul(n, g) y = Add(k, t)",
    "n = LayerNormalization<axis=1>(x, row, g) k = Mul(n, wide) y = Add(k, t)",
])  # fmt: skip
def test_own_parameters_that_broadcast(text: str) -> None:
    check_rewrite(RULES, graph(text), ["LayerNormalization"], applied=2)


@pytest.mark.parametrize(
    ("text", "shape", "applied"),
    [
        ("n = LayerNormalization(x, g) a = Add(n, magic) y = Add(a, unmagic)", "2,4,6", 1),
        ("n = LayerNormalization(x, g, t) a = Add(n, magic) y = Add(a, unmagic)", "2,4,6", 0),
        ("n = InstanceNormalization(x, g, t) a = Add(n, magic) y = Add(unmagic, a)", "2,6,4,5", 0),
    ],
)
def test_shifts_that_may_be_meant_to_round(text: str, shape: str, applied: int) -> None:
    before = graph(text, shape=shape)
    result, log = apply(RULES, before)
    assert len(log.applications) == applied
    assert any("may be meant" in reason for _, reason in log.refusals)
    check_numbers(before, result, exact=False)


def test_a_large_shift_of_a_plain_norm() -> None:
    check_rewrite(RULES, graph("n = LayerNormalization(x, g) y = Add(n, thousands)"), ["LayerNormalization"])


@pytest.mark.parametrize(("opset", "takes_it"), [(17, False), (21, False), (22, True)])
def test_an_instance_norm_of_bfloat16(opset: int, takes_it: bool) -> None:
    mean = ("ReduceMean({}, axes)" if opset >= 18 else "ReduceMean<axes=[2,3]>({})").format
    text = f"m = {mean('x')} d = Sub(x, m) p = Mul(d, d) v = {mean('p')} a = Add(v, e) s = Sqrt(a) y = Div(d, s)"
    weights = {"e": np.asarray(1e-3, bfloat16)} | ({"axes": np.array([2, 3])} if opset >= 18 else {})
    before = model(f"g (bfloat16[2,3,4,5] x) => (bfloat16[A,B,C,D] y) {{ {text} }}", weights, opset=opset)
    if takes_it:
        assert [n.op_type for n in apply(RULES, before)[0].graph.node] == ["InstanceNormalization"]
    else:
        check_untouched(RULES, before, "does not take data of this type")


@pytest.mark.parametrize(
    ("operator", "opset"), [("LayerNormalization", 17), ("GroupNormalization", 21), ("RMSNormalization", 23)]
)
def test_the_other_norms_take_every_type_from_the_start(operator: str, opset: int) -> None:
    assert all(takes(operator, opset, dtype) for dtype in NORM_TYPES)


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("groups scaled", GROUP_NORM.format("InstanceNormalization", ", zeros3").replace("ones3", "some3")),
        ("another shape", GROUP_NORM.format("InstanceNormalization", ", zeros3").replace("back)", "swapped)")),
    ],
)
def test_group_norms_that_are_none(why: str, text: str) -> None:
    shape = "2,6,4,5"
    proto = graph(text, opset=21, shape=shape)
    check_untouched(RULES, proto)


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([*LAYER_NORMS, RMS_NORM]))
    axes = data.draw(st.sampled_from(["axes=[-1]", "axes=[2]", "axes=[1,2]", "axes=[0,2]", "axes=[-1], keepdims=0"]))
    if "keepdims" not in axes or data.draw(st.booleans()):
        text = text.replace("axes=[-1]", axes.partition(", k")[0])
    names = ["g", "t", "two", "one", "g4", "wide"]
    if data.draw(st.booleans()):
        old, new = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
        text = text.replace(f" {old})", f" {new})")
    before = graph(text, opset=data.draw(st.sampled_from([13, 17])))
    result, log = apply(RULES, before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before


@pytest.mark.parametrize("target", [Target.PORTABLE, Target.ONNXRUNTIME])
def test_a_group_norm_is_for_tensorrt_alone(target: Target) -> None:
    """By its definition the variance is E[x²] − E[x]², which is negative for some groups of equal numbers."""
    before = graph(GROUP_NORM.format("InstanceNormalization", ", zeros3"), opset=21, shape="2,6,4,5")
    after, log = apply(RULES, before, target)
    assert "GroupNormalization" not in [n.op_type for n in after.graph.node]
    assert any("cancels" in reason for _, reason in log.refusals)
    flat = np.full((2, 6, 4, 5), 5.48, np.float32)
    assert np.isfinite(run(after, {"x": flat})[0]).all()
