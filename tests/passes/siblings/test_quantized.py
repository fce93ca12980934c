"""Siblings under QDQ: integer weights, scales and zero points side by side, nothing quantized again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from graphopt_passes.siblings.convs import MergeAdjacentConvs, MergeSiblingConvs
from graphopt_passes.siblings.enlarge import EnlargeAdjacentConvs
from graphopt_passes.siblings.products import MergeSiblingGemms, MergeSiblingMatmuls
from tests.passes.siblings.test_convs import two
from tests.support.rewrites import check_rewrite, check_untouched

RNG = np.random.default_rng(3)


def integers(*shape: int, low: int = -127, high: int = 127, dtype: type = np.int8) -> np.ndarray[Any, Any]:
    return RNG.integers(low, high, shape).astype(dtype)


ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "sx": np.float32(0.05),
    "zx": np.int8(3),
    "v": integers(4, 3, 3, 3),
    "vs": RNG.uniform(0.01, 0.1, 4).astype(np.float32),
    "vz": np.zeros(4, np.int8),
    "w": integers(2, 3, 3, 3),
    "ws": np.float32(0.02),
    "wz": np.int8(5),
    "p": integers(4, 3, 1, 1),
    "b": integers(4, low=-900, high=900, dtype=np.int32),
    "bs": RNG.uniform(0.001, 0.01, 4).astype(np.float32),
    "c": integers(2, low=-900, high=900, dtype=np.int32),
    "cs": np.float32(0.003),
    "so": np.float32(0.1),
    "so2": np.float32(0.2),
    "zo": np.int8(0),
    "q": integers(6, 8),
    "qs": RNG.uniform(0.01, 0.1, 8).astype(np.float32),
    "k": integers(6, 4),
    "ks": RNG.uniform(0.01, 0.1, 4).astype(np.float32),
    "u": integers(6, 4, low=0, high=255, dtype=np.uint8),
    "uz": np.uint8(128),
    "rows": RNG.uniform(0.01, 0.1, 6).astype(np.float32),
}
GIVEN = "float[N,3,8,8] x"
QUANTIZED = "xq = QuantizeLinear(x, sx, zx)  xd = DequantizeLinear(xq, sx, zx)"
WEIGHTS = "wv = DequantizeLinear<axis=0>(v, vs, vz)  ww = DequantizeLinear(w, ws, wz)"
OUT = "(float[N,4,6,6] y, float[N,2,6,6] z)"


def test_one_scale_and_one_a_channel_become_one_a_channel() -> None:
    after = check_rewrite(
        MergeSiblingConvs(),
        two(f"{QUANTIZED} {WEIGHTS} y = Conv(xd, wv)  z = Conv(xd, ww)", OUT, GIVEN, ARRAYS),
        ["Conv", "DequantizeLinear", "DequantizeLinear", "QuantizeLinear", "Split"],
    )
    values = {tuple(t.dims): numpy_helper.to_array(t) for t in after.graph.initializer}
    np.testing.assert_array_equal(values[6, 3, 3, 3], np.concatenate([ARRAYS["v"], ARRAYS["w"]]))
    scales, zeros = (numpy_helper.to_array(t) for t in after.graph.initializer if t.name in ("v.scale", "v.zero_point"))
    np.testing.assert_array_equal(scales, np.concatenate([ARRAYS["vs"], [ARRAYS["ws"]] * 2]).astype(np.float32))
    np.testing.assert_array_equal(zeros, np.array([0, 0, 0, 0, 5, 5], np.int8))


def test_quantized_biases_are_joined_too() -> None:
    body = f"""{QUANTIZED} {WEIGHTS} bv = DequantizeLinear<axis=0>(b, bs)  bw = DequantizeLinear(c, cs)
        y = Conv(xd, wv, bv)  z = Conv(xd, ww, bw)"""
    check_rewrite(
        MergeSiblingConvs(),
        two(body, OUT, GIVEN, ARRAYS),
        ["Conv", *["DequantizeLinear"] * 3, "QuantizeLinear", "Split"],
    )


def test_equal_requantization_sinks_and_meets_in_a_concat() -> None:
    body = f"""{QUANTIZED} {WEIGHTS} a = Conv(xd, wv)  d = Conv(xd, ww)  f = Relu(a)  g = Relu(d)
        h = QuantizeLinear(f, so, zo)  i = QuantizeLinear(g, so, zo)
        j = DequantizeLinear(h, so, zo)  k2 = DequantizeLinear(i, so, zo)  y = Concat<axis=1>(j, k2)"""
    check_rewrite(
        MergeAdjacentConvs(),
        two(body, "(float[N,6,6,6] y)", GIVEN, ARRAYS),
        ["Conv", *["DequantizeLinear"] * 3, *["QuantizeLinear"] * 2, "Relu"],
    )


def test_unequal_requantization_stays_behind_the_split() -> None:
    body = f"""{QUANTIZED} {WEIGHTS} a = Conv(xd, wv)  d = Conv(xd, ww)
        h = QuantizeLinear(a, so, zo)  i = QuantizeLinear(d, so2, zo)
        y = DequantizeLinear(h, so, zo)  z = DequantizeLinear(i, so2, zo)"""
    check_rewrite(
        MergeSiblingConvs(),
        two(body, OUT, GIVEN, ARRAYS),
        ["Conv", *["DequantizeLinear"] * 4, *["QuantizeLinear"] * 3, "Split"],
    )


def test_a_quantized_kernel_grows_by_its_zero_point() -> None:
    body = f"""{QUANTIZED} wp = DequantizeLinear(p, ws, wz)  ww = DequantizeLinear(w, ws, wz)
        a = Conv(xd, wp)  d = Conv<pads=[1,1,1,1]>(xd, ww)  y = Concat<axis=1>(a, d)"""
    after = check_rewrite(
        EnlargeAdjacentConvs(),
        two(body, "(float[N,6,8,8] y)", GIVEN, ARRAYS),
        ["Conv", "DequantizeLinear", "DequantizeLinear", "QuantizeLinear"],
    )
    merged = next(numpy_helper.to_array(t) for t in after.graph.initializer if list(t.dims) == [6, 3, 3, 3])
    assert (merged[:4, :, 0, 0] == 5).all()


@pytest.mark.parametrize("second", ["DequantizeLinear<axis=1>(k, ks)", "DequantizeLinear(k, ws)"])
def test_products_with_quantized_columns(second: str) -> None:
    body = f"wq = DequantizeLinear<axis=1>(q, qs)  wk = {second}  y = MatMul(x, wq)  z = MatMul(x, wk)"
    before = two(body, "(float[N,5,8] y, float[N,5,4] z)", "float[N,5,6] x", ARRAYS)
    check_rewrite(MergeSiblingMatmuls(), before, ["DequantizeLinear", "MatMul", "Split"])


def test_gemms_with_quantized_weights_and_plain_biases() -> None:
    body = """wq = DequantizeLinear<axis=-1>(q, qs)  wk = DequantizeLinear<axis=1>(k, ks)
        y = Gemm(x, wq, qs)  z = Gemm(x, wk)"""
    before = two(body, "(float[5,8] y, float[5,4] z)", "float[5,6] x", ARRAYS)
    check_rewrite(MergeSiblingGemms(), before, ["DequantizeLinear", "Gemm", "Split"])


@pytest.mark.parametrize(
    ("why", "first", "second"),
    [
        ("one plain, one quantized", "DequantizeLinear<axis=1>(q, qs)", "Identity(plain)"),
        ("signed and unsigned", "DequantizeLinear<axis=1>(q, qs)", "DequantizeLinear(u, ws, uz)"),
        ("a scale a row", "DequantizeLinear<axis=0>(q, rows)", "DequantizeLinear<axis=1>(k, ks)"),
        ("a computed scale", "DequantizeLinear<axis=1>(q, n)", "DequantizeLinear<axis=1>(k, ks)"),
    ],
)
def test_leaves_alone(why: str, first: str, second: str) -> None:
    arrays = {**ARRAYS, "plain": np.ones((6, 4), np.float32)}
    body = f"n = Abs(qs)  a = {first}  b1 = {second}  y = MatMul(x, a)  z = MatMul(x, b1)"
    check_untouched(MergeSiblingMatmuls(), two(body, "(float[N,5,A] y, float[N,5,B] z)", "float[N,5,6] x", arrays))


def test_inputs_quantized_with_unequal_scales_are_two_tensors() -> None:
    body = f"""{QUANTIZED} {WEIGHTS} xe = DequantizeLinear(xq, so, zx)  y = Conv(xd, wv)  z = Conv(xe, ww)"""
    check_untouched(MergeSiblingConvs(), two(body, OUT, GIVEN, ARRAYS))
