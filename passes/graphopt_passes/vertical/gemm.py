"""Two-dimensional MatMul and Add become one Gemm; transposes become its flags."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.common.arguments import permutation
from graphopt_passes.common.shapes import broadcasts_into

# Gemm: opset 7 broadcasts its third input, 11 makes it optional, 13 takes bfloat16
_BROADCASTS, _OPTIONAL, _BFLOAT = 7, 11, 13


@dataclass(frozen=True)
class ProductThenBias:
    """A·B + c; `product` is a MatMul, or a Gemm that has no c yet."""

    product: Node
    total: Node
    bias: Tensor


class MatmulAddToGemm(Rule[ProductThenBias]):
    """Add(MatMul(A, B), c) = Gemm(A, B, c), A [M, K], B [K, N], c a tensor that broadcasts to [M, N].

    The product may also be a Gemm without a bias of its own, the sum a Sum of two.

    Opsets: 7 on (bfloat16: 13 on). Exactness: reassociates. Source: ONNX operator Gemm.
    """

    roots = ("Add", "Sum")
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> ProductThenBias | NoMatch:
        if len(node.inputs) != 2:
            return NoMatch("it does not add two", node)
        for tensor, bias in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
            product = facts.sole_producer(tensor, "MatMul", "Gemm")
            if product is None or bias is None or product.input(2) is not None:
                continue
            if not is_plain_product(product, facts, _BROADCASTS):
                return NoMatch("the MatMul is batched, or not of floats that Gemm takes", product)
            if not _fits(bias, product.result):
                return NoMatch("the other term does not surely broadcast to the product", node)
            return ProductThenBias(product, node, bias)
        return NoMatch("it adds nothing to a product without bias that it reads alone", node)

    def rewrite(self, found: ProductThenBias, edit: Rewriter) -> None:
        product, inputs = found.product, [*found.product.inputs[:2], found.bias]
        if product.op == "Gemm":
            gemm = edit.like(product, inputs, beta=1.0)
        else:
            gemm = edit.node("Gemm", inputs, name=product.name)
        edit.replace(found.total, gemm)


def is_plain_product(node: Node, facts: Facts, since: int) -> bool:
    """Whether a MatMul multiplies two matrices of floats that Gemm of this opset, at least `since`, takes."""
    opset, dtype = facts.opset(node), node.result.dtype
    if opset < since or any(facts.rank(t) != 2 for t in node.inputs[:2]):
        return False
    if dtype == TensorProto.BFLOAT16:
        return opset >= _BFLOAT
    return dtype in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def _fits(bias: Tensor, product: Tensor) -> bool:
    """Whether `bias` broadcasts to the product's shape, which has two dimensions, without enlarging it."""
    return bias.shape is not None and len(bias.shape) <= 2 and broadcasts_into(bias.shape, product.shape)


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
