"""Products of transposed tensors as ONNX Runtime's FusedMatMul."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.fused.products import FuseTransposedProduct
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_untouched

RULE = FuseTransposedProduct()
INPUTS = "float[2,3,4,5] a, float[2,3,6,5] b"
PLAIN = "t = Transpose<perm=[0,1,3,2]>(b) y = MatMul(a, t)"


def graph(text: str, inputs: str = INPUTS, rank: int = 4, dtype: str = "float") -> ModelProto:
    dims = ",".join("ABCD"[:rank])
    weights = {"w": np.ones((3, 5, 5), np.float32)} if "w)" in text else {}
    return model(f"g ({inputs}) => ({dtype}[{dims}] y) {{ {text} }}", weights)


@pytest.mark.parametrize(
    ("text", "inputs", "attributes"),
    [
        (PLAIN, INPUTS, {"transB": 1}),
        ("t = Transpose<perm=[0,1,3,2]>(a) y = MatMul(t, b)", "float[2,3,5,4] a, float[2,3,5,6] b", {"transA": 1}),
        ("s = Transpose<perm=[0,1,3,2]>(a) t = Transpose<perm=[0,1,3,2]>(b) y = MatMul(s, t)",
         "float[2,3,5,4] a, float[2,3,6,5] b", {"transA": 1, "transB": 1}),
        (PLAIN, "float[N,3,S,5] a, float[N,3,L,5] b", {"transB": 1}),
        (PLAIN, "float[2,1,4,5] a, float[1,3,6,5] b", {"transB": 1}),
    ],
)  # fmt: skip
def test_the_product_takes_the_transpose_in(text: str, inputs: str, attributes: dict[str, int]) -> None:
    before = graph(text, inputs)
    result, log = apply(RULE, before, Target.ONNXRUNTIME)
    assert [(n.domain, n.op_type) for n in result.graph.node] == [("com.microsoft", "FusedMatMul")]
    assert {a.name: a.i for a in result.graph.node[0].attribute} == attributes
    assert len(log.applications) == 1
    assert not apply(RULE, result, Target.ONNXRUNTIME)[1].applications
    check_numbers(before, result, exact=False)


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        ("float64", graph(PLAIN, INPUTS.replace("float", "double"), dtype="double"), "float32"),
        ("another permutation", graph(PLAIN.replace("0,1,3,2", "1,0,3,2"), "float[3,2,4,5] a, float[2,3,6,5] b"),
         "neither operand"),
        ("no transpose", graph("y = MatMul(a, b)", "float[2,3,4,5] a, float[2,3,5,6] b"), "neither operand"),
        ("the transpose is read elsewhere", graph("t = Transpose<perm=[0,1,3,2]>(b) m = MatMul(a, t) "
         "n = ReduceMax(t) y = Add(m, n)"), "neither operand"),
        ("matrices, which Gemm does", graph("t = Transpose<perm=[1,0]>(b) y = MatMul(a, t)",
         "float[4,5] a, float[6,5] b", rank=2), "rank 3"),
        ("a constant", graph("t = Transpose<perm=[0,2,1]>(a) y = MatMul(t, w)", "float[3,5,4] a", rank=3),
         "a constant"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, before: ModelProto, because: str) -> None:
    check_untouched(RULE, before, because, target=Target.ONNXRUNTIME)


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.PORTABLE])
def test_only_for_onnx_runtime(target: Target) -> None:
    check_untouched(RULE, graph(PLAIN), "only ONNX Runtime", target=target)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.integers(3, 5), st.booleans(), st.booleans(), st.tuples(*[st.integers(1, 4)] * 3), st.booleans())
def test_random_products(rank: int, a: bool, b: bool, sizes: tuple[int, int, int], broadcast: bool) -> None:
    rows, inner, columns = sizes
    batch, other = [2, 3, 2][: rank - 2], [1 if broadcast else d for d in [2, 3, 2][: rank - 2]]
    perm = ",".join(map(str, [*range(rank - 2), rank - 1, rank - 2]))
    left, right = [rows, inner], [inner, columns]
    lines = [f"s = Transpose<perm=[{perm}]>(p)"] if a else []
    lines += [f"t = Transpose<perm=[{perm}]>(q)"] if b else []
    shapes = [[*batch, *(left[::-1] if a else left)], [*other, *(right[::-1] if b else right)]]
    inputs = ", ".join(f"float[{','.join(map(str, s))}] {n}" for s, n in zip(shapes, "pq", strict=True))
    outputs = ",".join("ABCDE"[:rank])
    text = f"{' '.join(lines)} y = MatMul({'s' if a else 'p'}, {'t' if b else 'q'})"
    before = model(f"g ({inputs}) => (float[{outputs}] y) {{ {text} }}")
    result, log = apply(RULE, before, Target.ONNXRUNTIME)
    assert len(log.applications) == int(a or b)
    check_numbers(before, result, exact=False)
