"""Two-dimensional MatMul and Add become one Gemm; transposes become its flags."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Exactness, NoMatch, Rewriter, Rule
from graphopt_passes.common.arguments import permutation

# Gemm: opset 7 broadcasts its third input, 11 makes it optional, 13 takes bfloat16
_BROADCASTS, _OPTIONAL, _BFLOAT = 7, 11, 13


@dataclass(frozen=True)
class ProductThenBias:
    """A·B + c."""

    product: Node
    total: Node
    bias: Tensor


class MatmulAddToGemm(Rule[ProductThenBias]):
    """Add(MatMul(A, B), c) = Gemm(A, B, c), A [M, K], B [K, N], c a constant [N], [1, N], [1] or scalar.

    Opsets: 7 on (bfloat16: 13 on). Exactness: reassociates. Source: ONNX operator Gemm.
    """

    roots = ("Add",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> ProductThenBias | NoMatch:
        for tensor, bias in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
            product = facts.sole_producer(tensor, "MatMul")
            if product is None or bias is None or bias.constant is None:
                continue
            if not is_plain_product(product, facts, _BROADCASTS):
                return NoMatch("the MatMul is batched, or not of floats that Gemm takes", product)
            if not _fits(bias, product.result, facts):
                return NoMatch("the constant is not surely one number a column", node)
            return ProductThenBias(product, node, bias)
        return NoMatch("it adds no constant to a MatMul that it reads alone", node)

    def rewrite(self, found: ProductThenBias, edit: Rewriter) -> None:
        gemm = edit.node("Gemm", [*found.product.inputs, found.bias], name=found.product.name)
        edit.replace(found.total, gemm)


def is_plain_product(node: Node, facts: Facts, since: int) -> bool:
    """Whether a MatMul multiplies two matrices of floats that Gemm of this opset, at least `since`, takes."""
    opset, dtype = facts.opset(node), node.result.dtype
    if opset < since or any(facts.rank(t) != 2 for t in node.inputs[:2]):
        return False
    if dtype == TensorProto.BFLOAT16:
        return opset >= _BFLOAT
    return dtype in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def _fits(bias: Tensor, product: Tensor, facts: Facts) -> bool:
    """Whether `bias` broadcasts to the product's shape without enlarging it."""
    assert bias.constant is not None
    shape = bias.constant.shape
    if len(shape) > 2 or (len(shape) == 2 and shape[0] != 1):
        return False
    columns = product.shape[1] if facts.rank(product) == 2 and product.shape is not None else None
    return not shape or shape[-1] == 1 or shape[-1] == columns


@dataclass(frozen=True)
class TransposedOperand:
    """A product one of whose operands is a transpose."""

    product: Node
    transpose: Node
    index: int


class _FoldTranspose(Rule[TransposedOperand]):
    """A product of a transposed matrix."""

    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> TransposedOperand | NoMatch:
        if node.op == "MatMul" and not is_plain_product(node, facts, _OPTIONAL):
            return NoMatch("the MatMul is batched, or not of floats that a Gemm without bias takes", node)
        for index in (0, 1):
            transpose = facts.sole_producer(node.input(index), "Transpose")
            if transpose is not None and permutation(transpose, facts) == (1, 0):
                return TransposedOperand(node, transpose, index)
        return NoMatch("none of its operands is a transpose that it reads alone", node)

    def rewrite(self, found: TransposedOperand, edit: Rewriter) -> None:
        product, flag = found.product, ("transA", "transB")[found.index]
        inputs = list(product.inputs)
        inputs[found.index] = found.transpose.inputs[0]
        if product.op == "Gemm":
            edit.replace(product, edit.like(product, inputs, **{flag: 1 - product.int_attr(flag, 0)}))
        else:
            edit.replace(product, edit.node("Gemm", inputs, {flag: 1}, name=product.name))


class FoldTransposeIntoGemm(_FoldTranspose):
    """Gemm(Aᵀ, B, c) = Gemm(A, B, c) with transA turned, and the same for B; A and B are matrices.

    Opsets: all. Exactness: reassociates. Source: ONNX operators Gemm, Transpose.
    """

    roots = ("Gemm",)


class FoldTransposeIntoMatmul(_FoldTranspose):
    """MatMul(Aᵀ, B) = Gemm(A, B) with transA, and the same for B; A is [K, M], B [K, N] (not batched).

    Opsets: 11 on, where Gemm needs no bias (bfloat16: 13 on). Exactness: reassociates. Source: ONNX operator Gemm.
    """

    roots = ("MatMul",)
