"""Batches that are flattened for a product and put back behind it."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Shape, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule

_MOVING = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(frozen=True)
class BatchedProduct:
    """`outer` gives the product of two reshaped tensors the batch that `left` and `right` have."""

    outer: Node
    left: Tensor
    right: Tensor


class DropReshapesAroundMatMul(Rule[BatchedProduct]):
    """Reshape(MatMul(Reshape(a), Reshape(b)), [*batch, M, N]) = MatMul(a, b), a [*batch, M, K], b [*batch, K, N].

    The inner Reshapes leave the last two dimensions and give both the same batch, so that matrix i of one meets matrix
    i of the other, as in the product of a and b, whose batches are equal too. Also Squeeze and Unsqueeze. Dimensions
    are known, as numbers or symbols. Opset 5 on. Reassociates: the runtime may take another kernel.
    """

    roots = ("Reshape", "Unsqueeze", "Squeeze")
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> BatchedProduct | NoMatch:
        product = facts.sole_producer(node.input(0), "MatMul")
        if product is None:
            return NoMatch("its input is no MatMul that feeds it alone", node)
        inner = [product.input(0), product.input(1)]
        outer = [_before(t, facts) for t in inner]
        if all(o is i for o, i in zip(outer, inner, strict=True)):
            return NoMatch("nothing was reshaped before the MatMul", node)
        (a, b), (left, right) = (_matrices(t) for t in inner), (_matrices(t) for t in outer)
        if a is None or b is None or left is None or right is None:
            return NoMatch("a shape is not known", node)
        if a.batch != b.batch or left.batch != right.batch:
            return NoMatch("the batches are not equal, before the reshapes or behind them", node)
        if a.matrix != left.matrix or b.matrix != right.matrix:
            return NoMatch("a reshape changes the matrices", node)
        if node.result.shape != (*left.batch, a.matrix[0], b.matrix[1]):
            return NoMatch("the result is not given the batch that the inputs had", node)
        assert outer[0] is not None
        assert outer[1] is not None
        return BatchedProduct(node, outer[0], outer[1])

    def rewrite(self, found: BatchedProduct, edit: Rewriter) -> None:
        product = found.outer.inputs[0].producer if found.outer.inputs[0] is not None else None
        assert product is not None
        edit.replace(found.outer, edit.like(product, [found.left, found.right]))


@dataclass(frozen=True)
class _Matrices:
    batch: Shape
    matrix: Shape


def _matrices(tensor: Tensor | None) -> _Matrices | None:
    """The shape, as a batch of matrices, where every dimension is a number or a symbol."""
    if tensor is None or tensor.shape is None or len(tensor.shape) < 2 or None in tensor.shape:
        return None
    return _Matrices(tensor.shape[:-2], tensor.shape[-2:])


def _before(tensor: Tensor | None, facts: Facts) -> Tensor | None:
    """What was reshaped to `tensor`, or `tensor` itself."""
    made = facts.producer(tensor, *_MOVING)
    return made.input(0) if made is not None else tensor
