"""Sibling MatMuls and Gemms: any widths, biases and activations behind them, and what is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphopt_passes.siblings.products import (
    MergeAdjacentGemms,
    MergeAdjacentMatmuls,
    MergeEqualSiblingMatmuls,
    MergeSiblingGemms,
    MergeSiblingMatmuls,
)
from tests.passes.siblings.test_convs import two, weights
from tests.support.models import model
from tests.support.rewrites import apply, check_rewrite, check_untouched

ARRAYS = weights(q=(6, 8), k=(6, 4), v=(6, 4), bq=(8,), bk=(4,), bv=(4,), wide=(1, 6, 4), row=(5, 1), one=(1, 1, 4))
GIVEN = "float[N,5,6] x"
THREE = "(float[N,5,8] y, float[N,5,4] z, float[N,5,4] t)"


def test_grouped_query_attention_with_biases() -> None:
    before = two(
        """a = MatMul(x, q)  b = MatMul(x, k)  c = MatMul(x, v)
        y = Add(a, bq)  z = Add(bk, b)  t = Add(c, one)""",
        THREE,
        GIVEN,
        ARRAYS,
    )
    check_rewrite(
        MergeSiblingMatmuls(),
        before,
        f"g ({GIVEN}) => {THREE} {{ m = MatMul(x, q)  a = Add(m, b)  y, z, t = Split<axis=2>(a, s) }}",
    )


def test_gate_and_up_with_silu_on_one_of_them() -> None:
    body = "g1 = MatMul(x, k)  u = MatMul(x, v)  s = Sigmoid(g1)  h = Mul(g1, s)  y = Mul(h, u)"
    before = two(body, "(float[N,5,4] y)", GIVEN, ARRAYS)
    check_rewrite(MergeSiblingMatmuls(), before, ["MatMul", "Mul", "Mul", "Sigmoid", "Split"])


def test_products_side_by_side_in_a_concat() -> None:
    body = "a = MatMul(x, q)  b = MatMul(x, k)  y = Concat<axis=-1>(a, b)"
    before = two(body, "(float[N,5,12] y)", GIVEN, ARRAYS)
    check_rewrite(MergeAdjacentMatmuls(), before, f"g ({GIVEN}) => (float[N,5,12] y) {{ y = MatMul(x, q) }}")


def test_equal_widths_only() -> None:
    arrays = {**ARRAYS, **weights(q=(6, 9))}
    before = two("y = MatMul(x, q)  z = MatMul(x, k)  t = MatMul(x, v)", THREE.replace("8]", "9]"), GIVEN, arrays)
    check_rewrite(MergeEqualSiblingMatmuls(), before, ["MatMul", "MatMul", "Split"])


def test_what_was_merged_may_be_as_wide_as_another() -> None:
    before = two("y = MatMul(x, q)  z = MatMul(x, k)  t = MatMul(x, v)", THREE, GIVEN, ARRAYS)
    check_rewrite(MergeEqualSiblingMatmuls(), before, ["MatMul", "Split", "Split"], applied=2)


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("one has a bias", "a = MatMul(x, k)  y = Add(a, bk)  z = MatMul(x, v)"),
        ("a bias along the rows", "a = MatMul(x, k)  y = Add(a, row)  b = MatMul(x, v)  z = Add(b, row)"),
    ],
)
def test_biases_that_do_not_fit_stay_behind_the_split(why: str, body: str) -> None:
    before = two(body, "(float[N,5,4] y, float[N,5,4] z)", GIVEN, ARRAYS)
    adds = [n.op_type for n in before.graph.node if n.op_type == "Add"]
    check_rewrite(MergeSiblingMatmuls(), before, sorted(["MatMul", "Split", *adds]))


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("the shared tensor is on the right", "y = MatMul(left, x)  z = MatMul(left, x2)"),
        ("a batch of matrices", "y = MatMul(x, wide)  z = MatMul(x, k)"),
        ("a computed weight", "n = Neg(k)  y = MatMul(x, n)  z = MatMul(x, k)"),
        ("two tensors", "n = Neg(x)  y = MatMul(n, k)  z = MatMul(x, k)"),
    ],
)
def test_leaves_matmuls_alone(why: str, body: str) -> None:
    arrays = {**ARRAYS, **weights(left=(4, 5))}
    given = f"{GIVEN}, float[N,5,6] x2"
    check_untouched(MergeSiblingMatmuls(), two(body, "(float[N,A,B] y, float[N,C,D] z)", given, arrays))


GEMM = weights(q=(6, 8), k=(6, 4), kt=(4, 6), vt=(3, 6), bq=(8,), bk=(1, 4), col=(5, 1), full=(5, 4), s=())
TWO_GEMMS = "(float[5,A] y, float[5,B] z)"


def test_gemms_with_and_without_bias() -> None:
    before = two("y = Gemm(x, q, bq)  z = Gemm(x, k)", TWO_GEMMS, "float[5,6] x", GEMM)
    check_rewrite(
        MergeSiblingGemms(),
        before,
        f"g (float[5,6] x) => {TWO_GEMMS} {{ m = Gemm(x, q, b)  y, z = Split<axis=1>(m, s) }}",
    )


@pytest.mark.parametrize(
    ("first", "second", "given"),
    [
        ("Gemm<transB=1>(x, kt)", "Gemm<transB=1>(x, vt)", "float[5,6] x"),
        ("Gemm<transA=1>(x, q, bq)", "Gemm<transA=1>(x, k, bk)", "float[6,5] x"),
        ("Gemm<alpha=0.5, beta=2.0>(x, q, bq)", "Gemm<alpha=0.5, beta=2.0>(x, k, s)", "float[5,6] x"),
    ],
)
def test_gemms_with_equal_attributes(first: str, second: str, given: str) -> None:
    before = two(f"y = {first}  z = {second}", TWO_GEMMS, given, GEMM)
    check_rewrite(MergeSiblingGemms(), before, ["Gemm", "Split"])


def test_gemms_side_by_side_in_a_concat() -> None:
    before = two(
        "a = Gemm(x, q)  b = Gemm(x, k, bk)  y = Concat<axis=1>(b, a)", "(float[5,12] y)", "float[5,6] x", GEMM
    )
    check_rewrite(MergeAdjacentGemms(), before, ["Gemm"])


@pytest.mark.parametrize(
    ("why", "first", "second"),
    [
        ("alpha", "Gemm<alpha=0.5>(x, q)", "Gemm(x, k)"),
        ("beta", "Gemm<beta=0.5>(x, q, bq)", "Gemm(x, k, bk)"),
        ("transB", "Gemm<transB=1>(x, kt)", "Gemm(x, k)"),
        ("a constant per row", "Gemm(x, k, col)", "Gemm(x, q)"),
        ("a whole matrix", "Gemm(x, k, full)", "Gemm(x, q)"),
        ("a computed bias", "Gemm(x, k, n)", "Gemm(x, q)"),
    ],
)
def test_leaves_gemms_alone(why: str, first: str, second: str) -> None:
    before = two(f"n = Neg(bk)  y = {first}  z = {second}", TWO_GEMMS, "float[5,6] x", GEMM)
    check_untouched(MergeSiblingGemms(), before)


def test_half_precision() -> None:
    arrays = weights(np.float16, q=(6, 8), k=(6, 4))
    before = two("y = MatMul(x, q)  z = MatMul(x, k)", "(float16[N,8] y, float16[N,4] z)", "float16[N,6] x", arrays)
    check_rewrite(MergeSiblingMatmuls(), before, ["MatMul", "Split"])


@pytest.mark.parametrize("to", [17, 21], ids=["float8", "uint4"])
def test_a_cast_to_what_split_does_not_take_stays_behind_it(to: int) -> None:
    text = f"a = MatMul(x, v) b = MatMul(x, w) c = Cast<to = {to}>(a) d = Cast<to = {to}>(b)"
    ends = "y = Cast<to = 1>(c) z = Cast<to = 10>(d)"
    weights = {"v": np.ones((8, 4), np.float32), "w": np.ones((8, 4), np.float32)}
    before = model(f"g (float[1,8] x) => (float[1,4] y, float16[1,4] z) {{ {text} {ends} }}", weights, opset=21)
    after, log = apply(MergeEqualSiblingMatmuls(), before)
    assert len(log.applications) == 1
    onnx.checker.check_model(after, full_check=True)
    assert [n.op_type for n in after.graph.node].count("Cast") == 4
