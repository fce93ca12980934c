"""Transposes around matrix products."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.common.arguments import permutation
from graphopt_passes.layout.sinking import pays, place_behind, transposed_input
from graphopt_passes.layout.transposes import Perm


@dataclass(frozen=True)
class Product:
    """`node` multiplies Transposes by `perm`: as well Transpose(MatMul(`left`, `right`), `perm`)."""

    node: Node
    left: Tensor
    right: Tensor
    perm: Perm


class SinkTransposeBelowMatMul(Rule[Product]):
    """MatMul(xᵀ, yᵀ) = MatMul(y, x)ᵀ and MatMul(Transpose(x, p), W) = Transpose(MatMul(x, W), p).

    First form: ᵀ swaps the last two axes, x and y are [..., K, M] and [..., N, K] of one rank. Second form: W is [K, N]
    and p keeps the last axis; only where another Transpose follows. Opset 1 on. Reassociates: a product may be summed
    up in another order.
    """

    roots = ("MatMul",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> Product | NoMatch:
        left, right = node.input(0), node.input(1)
        first, second = transposed_input(left, facts), transposed_input(right, facts)
        if left is None or right is None or first is None:
            return NoMatch("its first input is not a Transpose", node)
        perm = first[1]
        if second is not None and second[1] == perm and _swaps_last_two(perm) and pays(node, {left, right}, facts):
            return Product(node, second[0], first[0], perm)
        follows = facts.sole_consumer(node.output(0), "Transpose") is not None
        if follows and facts.rank(right) == 2 and len(perm) > 2 and perm[-1] == len(perm) - 1:
            return Product(node, first[0], right, perm)
        return NoMatch("the Transpose does not commute with it, or none follows", node)

    def rewrite(self, found: Product, edit: Rewriter) -> None:
        made = edit.like(found.node, [found.left, found.right])
        place_behind(found.node, made, found.perm, edit)


def _swaps_last_two(perm: Perm) -> bool:
    rank = len(perm)
    return rank >= 2 and perm == (*range(rank - 2), rank - 1, rank - 2)


@dataclass(frozen=True)
class TransposedProduct:
    """`outer` transposes a matrix product of two matrices that only it reads."""

    outer: Node
    product: Node


class TransposeOfGemm(Rule[TransposedProduct]):
    """Transpose(Gemm(A, B)) = Gemm(B, A), each of transA and transB taking the other's opposite; A, B matrices.

    Gemm without C, or a MatMul of matrices (a Gemm with neither transposed), which the Transpose alone reads. Opset 11
    on (C may be left out). Reassociates: a product may be summed up in another order.
    """

    roots = ("Transpose",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> TransposedProduct | NoMatch:
        product = facts.sole_producer(node.input(0), "Gemm", "MatMul")
        if product is None:
            return NoMatch("its input is not a Gemm or MatMul that feeds it alone", node)
        if facts.opset(node) < 11 or product.input(2) is not None:
            return NoMatch("the Gemm adds something, or cannot do without", node)
        a, b = product.input(0), product.input(1)
        if facts.rank(a) != 2 or facts.rank(b) != 2 or permutation(node, facts) != (1, 0):
            return NoMatch("it is no product of matrices", node)
        if a is None or a.dtype not in (1, 10, 11, 16):
            return NoMatch("Gemm has no such dtype", node)
        return TransposedProduct(node, product)

    def rewrite(self, found: TransposedProduct, edit: Rewriter) -> None:
        product = found.product
        attrs = {
            **product.attrs,
            "transA": 1 - product.int_attr("transB", 0),
            "transB": 1 - product.int_attr("transA", 0),
        }
        made = edit.node("Gemm", [product.input(1), product.input(0)], attrs, name=product.name)
        edit.replace(found.outer, made)
