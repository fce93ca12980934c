"""MatMul and Add to Gemm, transposes into its flags."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt_passes.vertical.gemm import FoldTransposeIntoGemm, FoldTransposeIntoMatmul, MatmulAddToGemm
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import check_rewrite, check_untouched

RULES = (MatmulAddToGemm(), FoldTransposeIntoGemm(), FoldTransposeIntoMatmul())
WEIGHTS = {
    "w": normal(5, 6),
    "b": normal(6),
    "row": normal(1, 6),
    "one": normal(1),
    "scalar": normal(),
    "column": normal(3, 1),
    "rows": normal(3, 6),
    "three": normal(1, 1, 6),
    "full": np.array([3, 6]),
}


@pytest.mark.parametrize("bias", ["b", "row", "one", "scalar", "column", "rows", "cb"])
@pytest.mark.parametrize("total", ["Add(p, {})", "Sum({}, p)"])
def test_matmul_and_bias_become_gemm(bias: str, total: str) -> None:
    text = f"g (float[3,5] x, float[3,6] cb) => (float[A,B] y) {{ p = MatMul(x, w) y = {total.format(bias)} }}"
    check_rewrite(
        MatmulAddToGemm(),
        model(text, used(WEIGHTS, text)),
        f"g (float[3,5] x, float[3,6] cb) => (float[A,B] y) {{ y = Gemm(x, w, {'cb' if bias == 'cb' else 'b'}) }}",
    )


def test_a_gemm_takes_the_bias_that_it_lacks() -> None:
    text = "g (float[5,3] x, float[6] c) => (float[A,B] y) { p = Gemm<transA=1, alpha=0.5>(x, w) y = Add(p, c) }"
    check_rewrite(MatmulAddToGemm(), model(text, used(WEIGHTS, text)), ["Gemm"])


def test_transposes_become_flags() -> None:
    text = """g (float[5,3] x, float[6,5] w) => (float[A,B] y) {
                t = Transpose<perm=[1,0]>(x) u = Transpose(w) y = Gemm<alpha=0.5>(t, u) }"""
    after = "g (float[5,3] x, float[6,5] w) => (float[A,B] y) { y = Gemm<alpha=0.5, transA=1, transB=1>(x, w) }"
    check_rewrite(FoldTransposeIntoGemm(), model(text), after, applied=2)


def test_transposed_flags_turn_back() -> None:
    text = "g (float[3,5] x, float[5,6] w) => (float[A,B] y) { u = Transpose(w) y = Gemm<transB=1>(x, u) }"
    check_rewrite(RULES, model(text), "g (float[3,5] x, float[5,6] w) => (float[A,B] y) { y = Gemm<transB=0>(x, w) }")


def test_a_transposed_operand_makes_a_gemm() -> None:
    text = """g (float[3,5] x, float[6,5] v) => (float[A,B] y) {
                u = Transpose(v) p = MatMul(x, u) y = Add(p, b) }"""
    after = "g (float[3,5] x, float[6,5] v) => (float[A,B] y) { p = Gemm<transB=1>(x, v) y = Add(p, b) }"
    check_rewrite((FoldTransposeIntoMatmul(),), model(text, used(WEIGHTS, text)), after)


@pytest.mark.parametrize(
    ("why", "inputs", "text", "because"),
    [
        ("batched", "float[2,3,5] x", "p = MatMul(x, w) y = Add(p, b)", "batched"),
        (
            "unknown rank",
            "float[3,5] x, int64[k] s",
            "r = Reshape(x, s) p = MatMul(r, w) a = Add(p, b) y = Reshape(a, full)",
            "batched",
        ),
        ("a vector", "float[5] x", "p = MatMul(x, w) y = Add(p, b)", "batched"),
        ("integers", "int32[3,5] x, int32[5,6] v", "p = MatMul(x, v) c = Cast<to=1>(p) y = Add(c, b)", "without bias"),
        ("another dimension", "float[3,5] x", "p = MatMul(x, w) y = Add(p, three)", "surely broadcast"),
        ("it enlarges the product", "float[3,5] x, float[5,1] v", "p = MatMul(x, v) y = Add(p, b)", "surely broadcast"),
        ("rows of unknown number", "float[N,5] x, float[M,6] c", "p = MatMul(x, w) y = Add(p, c)", "surely broadcast"),
        ("a bias already", "float[3,5] x", "p = Gemm(x, w, b) y = Add(p, rows)", "without bias"),
        ("a sum of three", "float[3,5] x, float[3,6] c", "p = MatMul(x, w) y = Sum(p, b, c)", "does not add two"),
        ("a second consumer", "float[3,5] x", "p = MatMul(x, w) q = Relu(p) r = Add(p, b) y = Mul(q, r)", "alone"),
        ("no transpose", "float[3,5] x", "t = Transpose<perm=[0,1]>(x) y = Gemm(t, w)", "is a transpose"),
    ],
)
def test_leaves_alone(why: str, inputs: str, text: str, because: str) -> None:
    dims = {"batched": "A,B,C", "a vector": "A", "another dimension": "A,B,C"}.get(why, "A,B")
    proto = model(f"g ({inputs}) => (float[{dims}] y) {{ {text} }}", used(WEIGHTS, text))
    check_untouched(RULES, proto, because)


def test_before_opset_11_a_product_without_bias_stays() -> None:
    text = "g (float[3,5] x, float[6,5] w) => (float[A,B] y) { u = Transpose(w) y = MatMul(x, u) }"
    check_untouched(RULES, model(text, opset=9), "without bias")
