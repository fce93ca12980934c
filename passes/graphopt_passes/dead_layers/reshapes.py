"""Reshape, Flatten, Squeeze, Unsqueeze, Expand and Tile that keep the shape."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rule import NoMatch
from graphopt_passes.common.arguments import ints_argument
from graphopt_passes.common.shapes import broadcasts_into, is_same, reshape_keeps
from graphopt_passes.dead_layers.wires import NoOp, returned


class DropReshapeToSameShape(NoOp):
    """Reshape(x, s) = x where s is surely the shape of x.

    That is: s is constant and each entry is x's dimension, 0 (which copies it unless `allowzero` is 1), or the one −1;
    or s is Shape(z) of a z of the same shape; or inference gives x's numbers and symbols back. Opset 5 on. Exact.
    """

    roots = ("Reshape",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        x = node.input(0)
        target = facts.ints(node.input(1)) if node.input(1) is not None else node.ints_attr("shape")
        if x is None:
            return NoMatch("its input is left out", node)
        copies = node.int_attr("allowzero", 0) == 0
        if target is not None and reshape_keeps(target, x.shape, zero_copies=copies):
            return x
        if is_shape_of(node.input(1), x, facts) or facts.same_shape(x, node.result):
            return x
        return NoMatch("it may change the shape", node)


class DropFlattenOfMatrix(NoOp):
    """Flatten(x), axis = 1, of a matrix x = x; also where inference gives the shape of x back. Opset 1 on. Exact."""

    roots = ("Flatten",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        x = node.input(0)
        if x is None or x.shape is None or len(x.shape) != 2:
            return NoMatch("its input is no matrix", node)
        if node.int_attr("axis", 1) in (1, -1) or facts.same_shape(x, node.result):
            return x
        return NoMatch("it changes the shape", node)


class DropSqueezeOfNothing(NoOp):
    """Squeeze(x) without axes = x where every dimension of x is a number other than 1. Opset 1 on. Exact."""

    roots = ("Squeeze",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        axes = ints_argument(node, facts, "axes", 1)
        if axes is None or axes.values is not None:
            return NoMatch("it names its axes", node)
        shape = facts.static_shape(node.input(0))
        if shape is None or 1 in shape:
            return NoMatch("a dimension of its input is 1 or unknown", node)
        return returned(node.input(0), node)


class DropUnsqueezeOfNothing(NoOp):
    """Unsqueeze(x, axes=[]) = x. Opset 1 on. Exact."""

    roots = ("Unsqueeze",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        axes = ints_argument(node, facts, "axes", 1)
        if axes is None or axes.values != ():
            return NoMatch("it adds an axis", node)
        return returned(node.input(0), node)


class DropExpandToSameShape(NoOp):
    """Expand(x, s) = x where s broadcasts into the shape of x: each entry, from the back, is 1 or x's dimension.

    Or s is Shape(z) of a z of x's shape, or inference gives x's numbers and symbols back. Opset 8 on. Exact.
    """

    roots = ("Expand",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        x = node.input(0)
        target = facts.ints(node.input(1))
        if x is None:
            return NoMatch("its input is left out", node)
        if target is not None and x.shape is not None and broadcasts_into(target, x.shape):
            return x
        if is_shape_of(node.input(1), x, facts) or facts.same_shape(x, node.result):
            return x
        return NoMatch("it may change the shape", node)


class DropTileOnce(NoOp):
    """Tile(x, [1, ..., 1]) = x. Opset 6 on (opset 1 repeats along one axis). Exact."""

    roots = ("Tile",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        repeats = facts.ints(node.input(1))
        if facts.opset(node) < 6 or repeats is None or any(r != 1 for r in repeats):
            return NoMatch("it may repeat an axis", node)
        return returned(node.input(0), node)


def is_shape_of(shape: Tensor | None, x: Tensor, facts: Facts) -> bool:
    """Whether `shape` is Shape(z), whole, of a tensor z with the shape of x."""
    made = facts.producer(shape, "Shape")
    if made is None or made.int_attr("start", 0) != 0 or "end" in made.attrs:
        return False
    return is_same(facts, made.input(0), x)
