"""Sibling matrix products: query, key and value, gate and up projections, heads on one feature vector."""

from __future__ import annotations

from collections.abc import Hashable

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt_passes.siblings.branches import Branch
from graphopt_passes.siblings.channels import Axis, concatenate
from graphopt_passes.siblings.convs import output_dtype
from graphopt_passes.siblings.rule import AdjacentRule, EqualRule, SiblingRule, Siblings
from graphopt_passes.siblings.weights import Weight, join_biases, join_weights, read_weight

GEMM_ATTRIBUTES = frozenset({"alpha", "beta", "transA", "transB"})


class MatmulRule(SiblingRule):
    """Siblings MatMul(x, W_i): x is [..., M, K], W_i a constant [K, N_i]."""

    roots = ("MatMul",)
    unfit = "its right side is no constant matrix, or the rank of its left side is unknown"
    apart = "no other product on its tensor has a weight of the same type"

    def form(self, node: Node, facts: Facts) -> Hashable | None:
        weight = _matmul_weight(node, facts) if node.op == "MatMul" else None
        rank = facts.rank(node.input(0))
        if weight is None or len(weight.shape) != 2 or 0 in weight.shape or rank is None or rank < 2:
            return None
        return None if facts.is_constant(node.input(0)) else (node.owner, weight.form, weight.shape[0], rank)

    def branch(self, node: Node, facts: Facts) -> Branch:
        weight = _matmul_weight(node, facts)
        assert weight is not None
        return Branch(node, weight.width)

    def axis(self, node: Node) -> Axis:
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        assert shape is not None
        return Axis(len(shape) - 1, len(shape))

    def join(self, found: Siblings, edit: Rewriter) -> Node:
        weights = [w for n in found.heads if (w := _matmul_weight(n, found.facts)) is not None]
        shape = (weights[0].shape[0], sum(w.width for w in weights))
        first = found.heads[0]
        return edit.like(first, [first.inputs[0], join_weights(weights, edit, concatenate, shape)])


def _matmul_weight(node: Node, facts: Facts) -> Weight | None:
    return read_weight(node.input(1), 1, facts)


class GemmRule(SiblingRule):
    """Siblings alpha·A'·B'_i + beta·C_i: A is shared, B_i a constant, C_i a constant per column or absent."""

    roots = ("Gemm",)
    unfit = "its right side is no constant, or what it adds is not constant per column"
    apart = "no other Gemm on its tensor has the same attributes"

    def form(self, node: Node, facts: Facts) -> Hashable | None:
        if node.op != "Gemm" or facts.opset(node) < 7 or node.attrs.keys() - GEMM_ATTRIBUTES:
            return None
        weight = _gemm_weight(node, facts)
        if weight is None or len(weight.shape) != 2 or 0 in weight.shape or facts.is_constant(node.input(0)):
            return None
        added = node.input(2)
        if added is not None and not _is_row(added, weight.width, facts):
            return None
        turned = (node.int_attr("transA", 0) != 0, node.int_attr("transB", 0) != 0)
        factors = (node.float_attr("alpha", 1.0), node.float_attr("beta", 1.0))
        return (node.owner, weight.form, weight.shape[1 - weight.axis], turned, factors)

    def branch(self, node: Node, facts: Facts) -> Branch:
        weight = _gemm_weight(node, facts)
        assert weight is not None
        return Branch(node, weight.width)

    def axis(self, node: Node) -> Axis:
        return Axis(1, 2)

    def join(self, found: Siblings, edit: Rewriter) -> Node:
        facts = found.facts
        weights = [w for n in found.heads if (w := _gemm_weight(n, facts)) is not None]
        widths = [w.width for w in weights]
        inner = weights[0].shape[1 - weights[0].axis]
        shape = (sum(widths), inner) if weights[0].axis == 0 else (inner, sum(widths))
        first = found.heads[0]
        added = [read_weight(n.input(2), 0, facts) for n in found.heads]
        bias = join_biases(added, widths, output_dtype(first), edit, concatenate)
        return edit.like(first, [first.inputs[0], join_weights(weights, edit, concatenate, shape), bias])


def _gemm_weight(node: Node, facts: Facts) -> Weight | None:
    return read_weight(node.input(1), 0 if node.int_attr("transB", 0) else 1, facts)


def _is_row(tensor: Tensor, width: int, facts: Facts) -> bool:
    """Whether a constant is one number, or one a column: [], [1], [N], [1, 1] or [1, N]."""
    constant = facts.constant(tensor)
    if constant is None or read_weight(tensor, 0, facts) is None:
        return False
    return constant.shape in ((), (1,), (width,), (1, 1), (1, width))


class MergeAdjacentMatmuls(AdjacentRule, MatmulRule):
    """Concat(f(MatMul(x, W1)), f(MatMul(x, W2)), ..., axis=-1) = f(MatMul(x, [W1, W2, ...])).

    x is [..., M, K], W_i a constant [K, N_i]; f are equal operators (a bias Add, activations), their constants side by
    side. Opsets: all. Exactness: reassociates.
    """


class MergeSiblingMatmuls(MatmulRule):
    """f(MatMul(x, W1)), f(MatMul(x, W2)), ... = Split(f(MatMul(x, [W1, W2, ...])), axis=-1).

    x is [..., M, K], W_i a constant [K, N_i] with any N_i: query, key and value, grouped queries, gate and up. f are
    the operators that follow all of them alike: biases become one, side by side. Weights may be plain, or
    DequantizeLinear of constants with one scale or one a column. Opsets: all. Exactness: reassociates.
    """


class MergeEqualSiblingMatmuls(EqualRule, MatmulRule):
    """The same as `MergeSiblingMatmuls` for siblings of equal width, whose Split has equal parts.

    Opsets: all. Exactness: reassociates.
    """


class MergeAdjacentGemms(AdjacentRule, GemmRule):
    """Concat(f(Gemm(A, B1, C1)), f(Gemm(A, B2, C2)), ..., axis=1) = f(Gemm(A, [B1, B2, ...], [C1, C2, ...])).

    A is [M, K] (or turned), B_i a constant [K, N_i] (or all turned), C_i a constant per column, zeros where absent;
    equal alpha and beta. Opsets: 7 on. Exactness: reassociates.
    """


class MergeSiblingGemms(GemmRule):
    """f(Gemm(A, B1, C1)), f(Gemm(A, B2, C2)), ... = Split(f(Gemm(A, [B1, B2, ...], [C1, C2, ...])), axis=1).

    A is [M, K] (or turned), B_i a constant [K, N_i] (or all turned) with any N_i, C_i a constant per column, zeros
    where absent; equal alpha and beta. Opsets: 7 on. Exactness: reassociates.
    """
