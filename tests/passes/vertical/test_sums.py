"""Products and transposed convolutions of one tensor that meet in an Add."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt_passes.vertical import FuseVertical
from graphopt_passes.vertical.sums import MergeParallelConvTransposes, MergeParallelProducts
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, apply_pass, check_numbers, check_rewrite, check_untouched

PRODUCTS, TRANSPOSED = MergeParallelProducts(), MergeParallelConvTransposes()
WEIGHTS = {
    "a": normal(5, 6),
    "b": normal(5, 6, seed=1),
    "c": normal(5, 6, seed=2),
    "bt": normal(6, 5),
    "wide": normal(5, 1),
    "batched": normal(2, 5, 6),
    "left": normal(4, 3),
    "left2": normal(4, 3, seed=1),
    "ca": normal(6),
    "cb": normal(6, seed=1),
    "rows": normal(3, 6),
    "double": normal(5, 6).astype(np.float64),
    "big": np.zeros((5, 60000), np.float32),
}
KERNELS = {
    "t3": normal(4, 6, 3, 3),
    "t1": normal(4, 6, 1, 1),
    "t5": normal(4, 6, 5, 5),
    "t13": normal(4, 6, 1, 3),
    "t31": normal(4, 6, 3, 1),
    "u3": normal(4, 6, 3, 3, seed=1),
    "g3": normal(4, 3, 3, 3),
    "n3": normal(4, 5, 3, 3),
    "ca": normal(6),
    "cb": normal(6, seed=1),
}


def test_two_products_become_one() -> None:
    text = "g (float[2,3,5] x) => (float[A,B,C] y) { p = MatMul(x, a) q = MatMul(x, b) y = Add(p, q) }"
    check_rewrite(
        PRODUCTS, model(text, used(WEIGHTS, text)), "g (float[2,3,5] x) => (float[A,B,C] y) { y = MatMul(x, w) }"
    )


def test_two_gemms_become_one() -> None:
    text = """g (float[3,5] x) => (float[A,B] y) {
                p = Gemm<alpha=0.5, beta=2.0>(x, a, ca) q = Gemm<transB=1>(x, bt, cb) y = Add(p, q) }"""
    check_rewrite(
        PRODUCTS,
        model(text, used(WEIGHTS, text)),
        "g (float[3,5] x) => (float[A,B] y) { y = Gemm<alpha=1.0, beta=1.0, transB=0>(x, w, c) }",
    )


@pytest.mark.parametrize(
    ("text", "operators", "applied"),
    [
        ("p = MatMul(x, a) q = MatMul(x, b) t = MatMul(x, c) s = Add(p, q) y = Add(t, s)", ["MatMul"], 2),
        ("p = MatMul(x, a) s = Add(p, r) q = MatMul(x, b) y = Add(s, q)", ["Add", "MatMul"], 1),
        ("p = MatMul(x, a) s = Add(p, ca) q = MatMul(x, b) t = Add(cb, q) y = Add(s, t)", ["Add", "Add", "MatMul"], 1),
        ("p = MatMul(left, x) q = MatMul(left2, x) y = Add(p, q)", ["MatMul"], 1),
        ("p = MatMul(x, batched) q = MatMul(x, batched) y = Add(p, q)", ["MatMul"], 1),
        ("p = MatMul(x, a) q = MatMul(x, a) y = Add(p, q)", ["MatMul"], 1),
    ],
)
def test_products(text: str, operators: list[str], applied: int) -> None:
    full = f"g (float[2,3,5] x, float[2,3,6] r) => (float[A,B,C] y) {{ {text} }}"
    check_rewrite(PRODUCTS, model(full, used(WEIGHTS, full)), operators, applied=applied)


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("different tensors", "p = MatMul(x, a) q = MatMul(z, b) y = Add(p, q)", "no two"),
        ("different sizes", "p = MatMul(x, a) q = MatMul(x, wide) y = Add(p, q)", "no two"),
        ("a weight of several matrices", "p = MatMul(x, a) q = MatMul(x, batched) y = Add(p, q)", "no two"),
        ("either side", "p = MatMul(s, sq) q = MatMul(sq, s) y = Add(p, q)", "no two"),
        ("a computed weight", "h = Relu(b) p = MatMul(x, a) q = MatMul(x, h) y = Add(p, q)", "no two"),
        ("a product read elsewhere", "p = MatMul(x, a) q = MatMul(x, b) t = Add(p, q) y = Mul(t, p)", "no two"),
        ("a difference", "p = MatMul(x, a) q = MatMul(x, b) y = Sub(p, q)", None),
        ("twice the same", "p = MatMul(x, a) y = Add(p, p)", "no two"),
        ("large and shared", "p = MatMul(x, big) q = MatMul(x, big) t = Add(p, q) u = MatMul(z, big) y = Add(t, u)",
         "stored twice"),
    ],
)  # fmt: skip
def test_leaves_products_alone(why: str, text: str, because: str | None) -> None:
    full = f"g (float[2,3,5] x, float[2,3,5] z, float[2,5,5] s) => (float[A,B,C] y) {{ {text} }}"
    check_untouched(PRODUCTS, model(full, used({**WEIGHTS, "sq": normal(5, 5)}, full)), because)


def test_a_gemm_with_a_bias_for_each_row_stays() -> None:
    text = "g (float[3,5] x) => (float[A,B] y) { p = Gemm(x, a, rows) q = Gemm(x, b, ca) y = Add(p, q) }"
    check_untouched(PRODUCTS, model(text, used(WEIGHTS, text)), "no two")


def test_biases_that_round_between_them_are_not_summed() -> None:
    """(xA + c) + (xB − c) with c = 1.5 · 2²³ rounds both products to integers."""
    large = np.full(6, 1.5 * 2**23, np.float32)
    text = "g (float[3,5] x) => (float[A,B] y) { p = Gemm(x, a, up) q = Gemm(x, b, down) y = Add(p, q) }"
    check_untouched(PRODUCTS, model(text, used({**WEIGHTS, "up": large, "down": -large}, text)), "so large that")


def test_gemms_of_transposed_data_stay() -> None:
    text = "g (float[5,5] x) => (float[A,B] y) { p = Gemm<transA=1>(x, a) q = Gemm(x, b) y = Add(p, q) }"
    check_untouched(PRODUCTS, model(text, used(WEIGHTS, text)), "no two")


def test_an_output_between_stays() -> None:
    text = "g (float[2,3,5] x) => (float[A,B,C] y, float[D,E,F] p) { p = MatMul(x, a) q = MatMul(x, b) y = Add(p, q) }"
    check_untouched(PRODUCTS, model(text, used(WEIGHTS, text)), "no two")


def test_bfloat16_is_summed_before_it_is_rounded() -> None:
    text = "g (bfloat16[2,3,5] x) => (bfloat16[A,B,C] y) { p = MatMul(x, a) q = MatMul(x, b) y = Add(p, q) }"
    weights = {k: v.astype(ml_dtypes.bfloat16) for k, v in used(WEIGHTS, text).items()}
    result, _ = apply(PRODUCTS, model(text, weights, opset=22))
    (made,) = (t for t in result.graph.initializer if t.name in result.graph.node[0].input)
    expected = weights["a"].astype(np.float64) + weights["b"].astype(np.float64)
    np.testing.assert_array_equal(
        np.frombuffer(made.raw_data, ml_dtypes.bfloat16).reshape(5, 6), expected.astype(ml_dtypes.bfloat16)
    )


def test_float16_that_overflows_is_left() -> None:
    text = "g (float16[2,3,5] x) => (float16[A,B,C] y) { p = MatMul(x, a) q = MatMul(x, b) y = Add(p, q) }"
    weights = {k: np.full((5, 6), 40000, np.float16) for k in ("a", "b")}
    check_untouched(PRODUCTS, model(text, weights), "does not fit")


def test_scaled_branches_of_a_matrix_product_become_one_gemm() -> None:
    text = """g (float[3,5] x) => (float[A,B] y) {
                p = MatMul(x, a) ps = Mul(p, ca) q = MatMul(x, b) qb = Add(q, cb) y = Add(ps, qb) }"""
    result, _ = apply_pass(FuseVertical(), model(text, used(WEIGHTS, text)))
    assert [n.op_type for n in result.graph.node] == ["Gemm"]


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("equal kernels", "p = ConvTranspose(x, t3, ca) q = ConvTranspose(x, u3, cb) y = Add(p, q)"),
        ("a smaller kernel", "p = ConvTranspose<pads=[1,1,1,1]>(x, t3) q = ConvTranspose(x, t1, ca) y = Add(q, p)"),
        ("upsampling", "p = ConvTranspose<pads=[1,1,1,1], strides=[2,2], output_padding=[1,1]>(x, t3, ca) "
         "q = ConvTranspose<strides=[2,2], output_padding=[1,1]>(x, t1) y = Add(p, q)"),
        ("without output padding", "p = ConvTranspose<pads=[2,2,2,2], strides=[2,2], output_padding=[1,1]>(x, t5) "
         "q = ConvTranspose<strides=[2,2], pads=[1,1,0,0]>(x, t3) y = Add(p, q)"),
        ("to one side", "p = ConvTranspose<pads=[0,1,2,1]>(x, t3) q = ConvTranspose<pads=[1,1,1,1]>(x, u3) "
         "y = Add(p, q)"),
        ("dilated", "p = ConvTranspose<pads=[2,2,2,2], dilations=[2,2]>(x, t3) q = ConvTranspose(x, t1) y = Add(q, p)"),
        ("groups", "p = ConvTranspose<group=2>(x, g3) q = ConvTranspose<group=2>(x, g3) y = Add(q, p)"),
    ],
)  # fmt: skip
def test_transposed_convolutions(why: str, text: str) -> None:
    full = f"g (float[2,4,7,6] x) => (float[A,B,C,D] y) {{ {text} }}"
    check_rewrite(TRANSPOSED, model(full, used(KERNELS, full)), ["ConvTranspose"])


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("different strides", "p = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, t3) "
         "q = ConvTranspose(big, t1) y = Add(p, q)", "no two"),
        ("more products than before", "p = ConvTranspose<pads=[0,1,0,1]>(x, t13) q = ConvTranspose<pads=[1,0,1,0]>(x, "
         "t31) y = Add(p, q)", "common kernel"),
        ("different channels", "p = ConvTranspose(x, t3) q = ConvTranspose(x, o3) y = Add(p, q)", "no two"),
        ("different groups", "p = ConvTranspose<group=2>(x, g3) q = ConvTranspose(x, t3) y = Add(p, q)", "no two"),
        ("sizes that broadcast", "p = ConvTranspose(thin, t3) q = ConvTranspose<pads=[1,1,1,1]>(thin, u3) "
         "y = Add(p, q)", "no two"),
        ("automatic pads", 'p = ConvTranspose<auto_pad="SAME_UPPER">(x, t3) q = ConvTranspose<auto_pad="SAME_UPPER">'
         "(x, u3) y = Add(p, q)", "no two"),
        ("an output shape", "p = ConvTranspose<output_shape=[9,8]>(x, t3) q = ConvTranspose(x, u3) y = Add(p, q)",
         "no two"),
        ("a start between taps", "p = ConvTranspose<dilations=[2,2], pads=[1,1,1,1]>(x, t3) q = ConvTranspose<"
         "dilations=[2,2]>(x, u3) r = Slice(q, s0, s1, ax) y = Add(p, r)", "no two"),
    ],
)  # fmt: skip
def test_leaves_transposed_convolutions_alone(why: str, text: str, because: str) -> None:
    full = f"g (float[2,4,7,6] x, float[2,4,1,1] thin, float[2,4,14,12] big) => (float[A,B,C,D] y) {{ {text} }}"
    places = {"s0": np.array([1, 1]), "s1": np.array([-1, -1]), "ax": np.array([2, 3])}
    proto = model(full, used({**KERNELS, **places, "o3": normal(4, 1, 3, 3)}, full))
    check_untouched(TRANSPOSED, proto, because)


@given(data=st.data())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    """Products: which tensor, which weight, on which side. Transposed convolutions: any geometry."""
    if data.draw(st.booleans()):
        part = st.sampled_from(
            ["Gemm(x, a)", "Gemm<alpha=2.0>(x, b, ca)", "Gemm<transB=1>(x, bt)", "MatMul(x, a)", "MatMul(x, c)"]
        )
        text = f"""g (float[3,5] x) => (float[A,B] y) {{
                     p = {data.draw(part)} q = {data.draw(part)} r = {data.draw(part)} s = Add(p, q) y = Add(s, r) }}"""
        before = model(text, used(WEIGHTS, text))
    else:
        before = model(*_transposed(data))
    result, log = apply([PRODUCTS, TRANSPOSED], before)
    if log.applications:
        assert len(result.graph.node) < len(before.graph.node)
        check_numbers(before, result, exact=False)
    else:
        assert result == before


def _transposed(data: st.DataObject) -> tuple[str, dict[str, Any]]:
    """Two branches of any geometry whose outputs are of one size, and their weights."""
    stride = data.draw(st.integers(1, 3))
    drawn = [[data.draw(st.integers(*r)) for r in ((1, 4), (1, 2), (0, stride - 1), (0, 2))] for _ in range(2)]
    reach = [d * (k - 1) + 1 + extra for k, d, extra, _ in drawn]
    parts, weights = [], {}
    for i, (kernel, dilation, extra, before) in enumerate(drawn):
        crop = reach[i] - min(reach)
        pads = [min(before, crop), crop - min(before, crop)]
        weights[f"w{i}"] = normal(2, 3, kernel, seed=i)
        parts.append(
            f"p{i} = ConvTranspose<strides=[{stride}], dilations=[{dilation}], pads={pads}, "
            f"output_padding=[{extra}]>(x, w{i})"
        )
    return f"g (float[2,2,5] x) => (float[A,B,C] y) {{ {' '.join(parts)} y = Add(p0, p1) }}", weights
