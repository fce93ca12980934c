"""Affine operators around convs with quantized weights or activations."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.vertical import FuseVertical
from graphopt_passes.vertical.dequantized import FoldAffineIntoDequantizedConv, FoldAffineIntoDequantizedMatmul
from tests.passes.vertical.weights import normal, statistics, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULE, PRODUCTS = FoldAffineIntoDequantizedConv(), FoldAffineIntoDequantizedMatmul()
WEIGHTS = {
    "q": np.random.default_rng(0).integers(-127, 128, (6, 4, 3, 3)).astype(np.int8),
    "qb": np.random.default_rng(1).integers(-999, 1000, 6).astype(np.int32),
    "c": (np.abs(normal(6)) / 100 + 0.001).astype(np.float32),
    "one": np.float32(0.01),
    "z": np.zeros(6, np.int8),
    "z1": np.int8(3),
    "qt": np.random.default_rng(2).integers(-127, 128, (4, 6, 3, 3)).astype(np.int8),
    "qg": np.random.default_rng(3).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
    "qm": np.random.default_rng(4).integers(-127, 128, (5, 6)).astype(np.int8),
    "qn": np.random.default_rng(5).integers(-127, 128, (6, 5)).astype(np.int8),
    "row": np.abs(normal(6)) + np.float32(0.5),
    "rows": normal(3, 6),
    "c5": (np.abs(normal(5)) / 100 + 0.001).astype(np.float32),
    "s": np.abs(normal(6, 1, 1)) + np.float32(0.5),
    "minus": np.float32(-1),
    "fb": normal(6),
    "xs": np.float32(0.05),
    "xz": np.int8(0),
    **statistics(6),
}
WEIGHTS["g"] = np.abs(WEIGHTS["g"])


def graph(text: str, opset: int = 17) -> ModelProto:
    text = f"graph (float[1,4,8,8] x) => (float[A,B,C,D] y) {{ {text} }}"
    return model(text, used(WEIGHTS, text), opset=opset)


@pytest.mark.parametrize(
    "text",
    [
        "w = DequantizeLinear<axis=0>(q, c, z) a = Conv(x, w) y = BatchNormalization(a, g, b, m, v)",
        "w = DequantizeLinear<axis=-4>(q, c) a = Conv(x, w, fb) y = BatchNormalization(a, g, b, m, v)",
        "w = DequantizeLinear(q, one, z1) a = Conv(x, w) y = Mul(a, s)",
        "w = DequantizeLinear(q, one) a = Conv(x, w, fb) y = Div(a, s)",
        "w = DequantizeLinear(q, one) a = Conv(x, w, fb) y = Add(s, a)",
        "w = DequantizeLinear<axis=0>(q, c) d = DequantizeLinear<axis=0>(qb, c) a = Conv(x, w, d) y = Mul(a, s)",
    ],
)
def test_scales_move_into_the_dequantization(text: str) -> None:
    result = check_rewrite(RULE, graph(text), ["Conv", "DequantizeLinear"])
    kept = {t.name: t for t in result.graph.initializer}
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(kept["q"]), WEIGHTS["q"])


@pytest.mark.parametrize("weight", ["<axis=1>(qt, c, z)", "(qt, one, z1)", "<axis=-3>(qt, c)"])
def test_a_transposed_convolution_has_its_channels_on_axis_1(weight: str) -> None:
    text = f"w = DequantizeLinear{weight} a = ConvTranspose(x, w, fb) y = BatchNormalization(a, g, b, m, v)"
    check_rewrite(RULE, graph(text), ["ConvTranspose", "DequantizeLinear"])


def product(text: str, shape: str = "3,5", opset: int = 17) -> ModelProto:
    dims = ",".join("ABC"[: len(shape.split(","))])
    text = f"graph (float[{shape}] x) => (float[{dims}] y) {{ {text} }}"
    return model(text, used(WEIGHTS, text), opset=opset)


@pytest.mark.parametrize(
    ("text", "shape", "operators"),
    [
        ("w = DequantizeLinear<axis=1>(qm, c) a = MatMul(x, w) y = Mul(a, row)", "2,3,5", ["MatMul"]),
        ("w = DequantizeLinear(qm, one, z1) a = MatMul(x, w) y = Div(a, row)", "3,5", ["MatMul"]),
        ("w = DequantizeLinear(qm, one) a = MatMul(x, w) h = Add(fb, a) y = Mul(a2, row)", "2,3,5", ["Add", "MatMul"]),
        ("w = DequantizeLinear(qm, one) a = MatMul(x, w) a2 = Add(fb, a) y = Sub(a2, row)", "2,3,5", ["Add", "MatMul"]),
        ("w = DequantizeLinear(qm, c, z) a = Gemm<alpha=0.5, beta=2.0>(x, w, fb) y = Mul(a, row)", "3,5", ["Gemm"]),
        ("w = DequantizeLinear<axis=0>(qn, c) a = Gemm<transB=1>(x, w) y = Add(row, a)", "3,5", ["Gemm"]),
        ("w = DequantizeLinear<axis=0>(qn, c) d = DequantizeLinear(qb, one) a = Gemm<transB=1, beta=0.5>(x, w, d) "
         "y = BatchNormalization(a, g, b, m, v)", "3,5", ["Gemm"]),
    ],
)  # fmt: skip
def test_scales_of_products(text: str, shape: str, operators: list[str]) -> None:
    check_rewrite(PRODUCTS, product(text.replace(" h = Add", " a2 = Add"), shape), [*operators, "DequantizeLinear"])


@pytest.mark.parametrize(
    ("why", "text", "shape", "because"),
    [
        ("a MatMul takes no shift", "w = DequantizeLinear(qm, one) a = MatMul(x, w) y = Add(a, row)", "2,3,5",
         "bias already"),
        ("scales along the inputs", "w = DequantizeLinear<axis=0>(qm, c5) a = MatMul(x, w) y = Mul(a, row)", "3,5",
         "no Gemm of dequantized"),
        ("a sign", "w = DequantizeLinear(qm, one) a = MatMul(x, w) y = Mul(a, minus)", "3,5", "not be positive"),
        ("transA", "w = DequantizeLinear(qm, one) t = Transpose(x) a = Gemm<transA=1>(t, w) y = Mul(a, row)", "3,5",
         "no Gemm of dequantized"),
        ("a bias for each row", "w = DequantizeLinear(qm, one) a = Gemm(x, w, rows) y = Mul(a, row)", "3,5",
         "no Gemm of dequantized"),
        ("a number a row", "w = DequantizeLinear(qm, one) a = MatMul(x, w) y = Mul(a, rows)", "3,5",
         "one number a channel"),
        ("read elsewhere", "w = DequantizeLinear(qm, one) a = MatMul(x, w) p = Mul(a, row) y = Add(a, p)", "3,5",
         "no Gemm of dequantized"),
        ("the weight is read elsewhere", "w = DequantizeLinear(qm, one) a = MatMul(x, w) p = Mul(a, row) r = "
         "ReduceMax(w) u = Reshape(r, flat) y = Add(u, p)", "3,5", "no Gemm of dequantized"),
        ("quantized between", "w = DequantizeLinear(qm, one) a = MatMul(x, w) p = QuantizeLinear(a, xs, xz) "
         "u = DequantizeLinear(p, xs, xz) y = Mul(u, row)", "3,5", "no Gemm of dequantized"),
    ],
)  # fmt: skip
def test_leaves_products_alone(why: str, text: str, shape: str, because: str) -> None:
    before = product(text, shape)
    if "flat" in text:
        before.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1]), "flat"))
    check_untouched(PRODUCTS, before, because)


def test_before_opset_13_products_keep_one_scale() -> None:
    text = "w = DequantizeLinear(qm, one) a = MatMul(x, w) y = Mul(a, row)"
    check_untouched(PRODUCTS, product(text, opset=12), "needs opset 13")
    several = "w = DequantizeLinear(qm, c) a = MatMul(x, w) y = Mul(a, row)"  # which the checker lets pass
    check_untouched(PRODUCTS, product(several, opset=12), "needs opset 13")


def test_before_opset_13_a_single_scale_is_folded() -> None:
    column = {"w1": np.arange(5, dtype=np.int8).reshape(5, 1), "one": WEIGHTS["one"], "half": np.float32(0.5)}
    text = "g (float[3,5] x) => (float[A,B] y) { w = DequantizeLinear(w1, one) a = MatMul(x, w) y = Mul(a, half) }"
    check_rewrite(PRODUCTS, model(text, column, opset=12), ["DequantizeLinear", "MatMul"])


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("a sign", "w = DequantizeLinear<axis=0>(q, c) a = Conv(x, w) y = Mul(a, minus)", "not be positive"),
        ("another axis", "w = DequantizeLinear<axis=0>(q, c) t = Transpose<perm=[0,1,3,2]>(w) a = Conv(x, t) "
         "y = Mul(a, s)", "no Conv of dequantized"),
        ("computed weights", "r = QuantizeLinear(x, one) i = Cast<to=1>(r) a = Conv(i, k) y = Mul(a, s)",
         "no Conv of dequantized"),
        ("a quantization between", "w = DequantizeLinear<axis=0>(q, c) a = Conv(x, w) p = QuantizeLinear(a, xs, xz) "
         "u = DequantizeLinear(p, xs, xz) y = Mul(u, s)", "no Conv of dequantized"),
        ("a grouped ConvTranspose", "w = DequantizeLinear(qg, one) a = ConvTranspose<group=2>(x, w) y = Mul(a, s)",
         "no Conv of dequantized"),
        ("shared", "w = DequantizeLinear<axis=0>(q, c) a = Conv(x, w) e = Conv(x, w) p = Mul(a, s) y = Add(p, e)",
         "no Conv of dequantized"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, text: str, because: str) -> None:
    text = f"graph (float[1,4,8,8] x) => (float[A,B,C,D] y) {{ {text} }}"
    check_untouched(RULE, model(text, used({**WEIGHTS, "k": normal(6, 4, 3, 3)}, text)), because)


def test_before_opset_13_scales_cannot_be_one_a_channel() -> None:
    text = "w = DequantizeLinear(q, one) a = Conv(x, w) y = Mul(a, s)"
    check_untouched(RULE, graph(text, opset=12), "needs opset 13")


def test_nothing_moves_through_quantized_activations() -> None:
    text = """u = QuantizeLinear(x, xs, xz) d = DequantizeLinear(u, xs, xz)
              a = Conv(d, k) p = QuantizeLinear(a, xs, xz) e = DequantizeLinear(p, xs, xz) y = Mul(e, s)"""
    text = f"graph (float[1,4,8,8] x) => (float[A,B,C,D] y) {{ {text} }}"
    check_untouched(FuseVertical.rules, model(text, used({**WEIGHTS, "k": normal(6, 4, 3, 3)}, text)))


@given(data=st.data())
@settings(max_examples=30, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    weight = data.draw(st.sampled_from(["<axis=0>(q, c)", "<axis=0>(q, c, z)", "(q, one)", "(q, one, z1)"]))
    bias = data.draw(st.sampled_from(["", ", fb", ", d"]))
    step = data.draw(
        st.sampled_from(["Mul(a, s)", "Sub(s, a)", "Div(a, s)", "Add(a, s)", "BatchNormalization(a, g, b, m, v)"])
    )
    before = graph(f"w = DequantizeLinear{weight} d = DequantizeLinear(qb, one) a = Conv(x, w{bias}) y = {step}")
    result, log = apply(RULE, before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before
    assert bool(log.applications) == ("Sub" not in step)


@given(data=st.data())
@settings(max_examples=30, derandomize=True, deadline=None)
def test_where_a_product_takes_it_in_the_numbers_are_equal(data: st.DataObject) -> None:
    weight = data.draw(st.sampled_from(["<axis=1>(qm, c)", "<axis=1>(qm, c, z)", "(qm, one)", "<axis=0>(qm, c5)"]))
    linear = data.draw(
        st.sampled_from(["a = Gemm(x, w)", "a = Gemm<beta=3.0>(x, w, fb)", "a = MatMul(x, w)",
                         "k = MatMul(x, w) a = Add(k, fb)"])
    )  # fmt: skip
    step = data.draw(
        st.sampled_from(["Mul(a, row)", "Sub(row, a)", "Add(a, row)", "BatchNormalization(a, g, b, m, v)"])
    )
    before = product(f"w = DequantizeLinear{weight} {linear} y = {step}")
    result, log = apply(PRODUCTS, before)
    if log.applications:
        assert len(result.graph.node) <= len(before.graph.node)
        check_numbers(before, result, exact=False)
    else:
        assert result == before


def test_a_scale_that_float16_holds_coarsely_is_left() -> None:
    """0.001 · 0.0001 is a subnormal of float16, a fifth larger."""
    text = "g (float16[1,4,8,8] x) => (float16[A,B,C,D] y) { w = DequantizeLinear(q, c) a = Conv(x, w) y = Mul(a, s) }"
    weights = {"q": WEIGHTS["q"], "c": np.float16(0.001), "s": np.float16(1e-4)}
    check_untouched(RULE, model(text, weights, opset=21), "too small to keep its precision")


def test_the_bias_has_the_type_of_the_conv() -> None:
    text = """g (float16[1,4,8,8] x) => (float16[A,B,C,D] y) {
        w = DequantizeLinear<output_dtype=10>(q, one) a = Conv(x, w) y = Sub(a, t) }"""
    weights = {"q": WEIGHTS["q"], "one": np.float32(0.01), "t": normal(6, 1, 1).astype(np.float16)}
    after, log = apply(RULE, model(text, weights, opset=23))
    assert len(log.applications) == 1
    onnx.checker.check_model(after, full_check=True)
    assert [i.data_type for i in after.graph.initializer if list(i.dims) == [6]] == [onnx.TensorProto.FLOAT16]
