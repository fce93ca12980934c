"""Reductions whose reduced axes are put back or taken out afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Shape, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import axis_of, ints_argument, normalized_axes

_ARGUMENTS = ("ArgMax", "ArgMin")
REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
# of one element these are that element
_PLAIN = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")


def reduced_axes(node: Node, facts: Facts) -> tuple[int, ...] | None:
    """The axes that a reduction or ArgMax reduces, from the front and sorted; None when unknown or none at all."""
    rank = facts.rank(node.input(0))
    if rank is None:
        return None
    if node.op in _ARGUMENTS:
        axis = axis_of(node, rank, 0)
        return None if axis is None else (axis,)
    given = ints_argument(node, facts, "axes", 1)
    if given is None or (not given.values and node.int_attr("noop_with_empty_axes", 0) == 1):
        return None
    axes = normalized_axes(given.values, rank) if given.values else tuple(range(rank))
    return None if axes is None else tuple(sorted(axes))


@dataclass(frozen=True)
class Kept:
    """`reduction` may as well give what `outer` makes of it, with this `keepdims`."""

    outer: Node
    reduction: Node
    keepdims: int


class ReduceThenReshape(Rule[Kept]):
    """Unsqueeze(Reduce(x, a, keepdims = 0), a) = Reduce(x, a, keepdims = 1), and the reverse with Squeeze.

    Also ArgMax and ArgMin, and a Reshape to the same shape. The reduction is read by the outer node alone; its axes are
    known. Opset 1 on. Exact.
    """

    roots = ("Reshape", "Squeeze", "Unsqueeze")

    def match(self, node: Node, facts: Facts) -> Kept | NoMatch:
        inner = facts.sole_producer(node.input(0), *REDUCTIONS, *_ARGUMENTS)
        if inner is None:
            return NoMatch("its input is not a reduction that feeds it alone", node)
        axes = reduced_axes(inner, facts)
        source = inner.input(0)
        if axes is None or source is None or source.shape is None:
            return NoMatch("the reduced axes are unknown", node)
        keeps = inner.int_attr("keepdims", 1)
        if node.op == "Reshape":
            fits = _is(node.result.shape, _without(source.shape, axes) if keeps else _with_ones(source.shape, axes))
        else:
            given = ints_argument(node, facts, "axes", 1)
            named = normalized_axes(given.values, len(source.shape)) if given is not None and given.values else None
            fits = named is not None and tuple(sorted(named)) == axes and (node.op == "Squeeze") == (keeps == 1)
        return Kept(node, inner, 1 - keeps) if fits else NoMatch("it does not put the reduced axes back", node)

    def rewrite(self, found: Kept, edit: Rewriter) -> None:
        edit.replace(found.outer, edit.like(found.reduction, keepdims=found.keepdims))


def _with_ones(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(1 if i in axes else d for i, d in enumerate(shape))


def _without(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _is(shape: Shape | None, expected: Shape) -> bool:
    if shape is None or len(shape) != len(expected):
        return False
    return all(a == b and a is not None for a, b in zip(shape, expected, strict=True))


@dataclass(frozen=True)
class OfOnes:
    """A reduction of single elements that drops `axes`."""

    node: Node
    source: Tensor
    axes: tuple[int, ...]


class ReductionOfOnesToSqueeze(Rule[OfOnes]):
    """ReduceSum, Mean, Max, Min, Prod(x, a, keepdims = 0) = Squeeze(x, a) where all reduced dimensions are 1.

    Opset 1 on, the axes in the form of the opset. Exact.
    """

    roots = _PLAIN

    def match(self, node: Node, facts: Facts) -> OfOnes | NoMatch:
        axes, source = reduced_axes(node, facts), node.input(0)
        if axes is None or source is None or source.shape is None or node.int_attr("keepdims", 1) != 0:
            return NoMatch("it keeps its axes, or they are unknown", node)
        if not axes or any(source.shape[a] != 1 for a in axes):
            return NoMatch("it may reduce more than one element", node)
        return OfOnes(node, source, axes)

    def rewrite(self, found: OfOnes, edit: Rewriter) -> None:
        node = found.node
        if Facts(edit.model).opset(node) < 13:
            made = edit.node("Squeeze", [found.source], {"axes": found.axes}, name=node.name)
        else:
            axes = edit.constant(np.asarray(found.axes, np.int64), f"{node.label}.axes")
            made = edit.node("Squeeze", [found.source, axes], name=node.name)
        edit.replace(node, made)
