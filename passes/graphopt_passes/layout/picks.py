"""Gathers of one element of an axis, taken in two steps, and of all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import ANY_END, AxisSlice, axis_slices, ints_argument
from graphopt_passes.common.shapes import reshape_target


@dataclass(frozen=True)
class Pick:
    """`node` becomes Gather(`source`, `index`, `axis`), the index a scalar or, where `keeps_axis`, a list of one."""

    node: Node
    source: Tensor
    index: int
    axis: int
    shape: tuple[int, ...]  # of the index: () or (1,)


class _ToGather(Rule[Pick]):
    """What the rules that end in a Gather share."""

    def rewrite(self, found: Pick, edit: Rewriter) -> None:
        index = edit.constant(np.full(found.shape, found.index, np.int64), f"{found.node.label}.index")
        made = edit.node("Gather", [found.source, index], {"axis": found.axis}, name=found.node.name)
        edit.replace(found.node, made)


def _sole_axis(node: Node, rank: int | None, facts: Facts) -> int | None:
    """The one axis of a Squeeze or Unsqueeze, counted from the front in a tensor of `rank`."""
    axes = ints_argument(node, facts, "axes", 1)
    if axes is None or axes.values is None or len(axes.values) != 1:
        return None
    return _from_front(axes.values[0], rank)


def _from_front(axis: int, rank: int | None) -> int | None:
    if axis >= 0:
        return axis
    return axis + rank if rank is not None and axis + rank >= 0 else None


class SliceOfOneToGather(_ToGather):
    """Squeeze(Slice(x, [i], [i + 1], axes [a]), [a]) = Gather(x, i, axis a).

    The Slice is read by the Squeeze alone. A negative i (from opset 11 on, or where x's dimension is known) ends at
    i + 1 or, for −1, at the end. Opset 1 on. Exact.
    """

    roots = ("Squeeze",)

    def match(self, node: Node, facts: Facts) -> Pick | NoMatch:
        inner = facts.sole_producer(node.input(0), "Slice")
        source = inner.input(0) if inner is not None else None
        if inner is None or source is None:
            return NoMatch("its input is not a Slice that feeds it alone", node)
        slices = axis_slices(inner, facts)
        if slices is None or len(slices) != 1 or slices[0].step < 1:
            return NoMatch("the Slice is not along one known axis", node)
        rank = facts.rank(source)
        axis = _from_front(slices[0].axis, rank)
        if axis is None or axis != _sole_axis(node, rank, facts):
            return NoMatch("it does not squeeze the sliced axis alone", node)
        index = self._index(slices[0])
        if index is None:
            return NoMatch("the Slice may take more than one element", node)
        if index < 0 and facts.opset(node) < 11:
            dim = source.shape[axis] if source.shape is not None and axis < len(source.shape) else None
            if not isinstance(dim, int):
                return NoMatch("before opset 11 a Gather has no negative indices", node)
            index += dim
        return Pick(node, source, index, axis, ())

    def _index(self, item: AxisSlice) -> int | None:
        if item.start == -1:
            return -1 if item.end >= ANY_END else None
        return item.start if item.end == item.start + 1 else None


class GatherOfOneThenSqueeze(_ToGather):
    """Squeeze(Gather(x, [i], axis a), [a]) = Gather(x, i, axis a), i constant. Opset 1 on. Exact."""

    roots = ("Squeeze",)

    def match(self, node: Node, facts: Facts) -> Pick | NoMatch:
        return _repicked(node, (1,), (), facts)


class GatherOfOneThenUnsqueeze(_ToGather):
    """Unsqueeze(Gather(x, i, axis a), [a]) = Gather(x, [i], axis a), i a constant scalar. Opset 1 on. Exact."""

    roots = ("Unsqueeze",)

    def match(self, node: Node, facts: Facts) -> Pick | NoMatch:
        return _repicked(node, (), (1,), facts)


@dataclass(frozen=True)
class Whole:
    """`node` gives the elements of `source` in the same order, in a shape for which Reshape is told `target`."""

    node: Node
    source: Tensor
    target: tuple[int, ...]


class GatherOfAllToReshape(Rule[Whole]):
    """Gather(x, i, axis a) = Reshape(x, s) where i, of any shape, is 0, 1, ..., d − 1 and d is x's dimension a.

    s is the Gather's shape, known as a constant. Exporters take position ids through such a Gather. Indices in one
    list are left to `DropFullGather`. Opset 5 on. Exact.
    """

    roots = ("Gather",)

    def match(self, node: Node, facts: Facts) -> Whole | NoMatch:
        source, indices = node.input(0), facts.ints(node.input(1))
        if source is None or source.shape is None or indices is None or facts.rank(node.input(1)) == 1:
            return NoMatch("its indices are no known table", node)
        axis = _from_front(node.int_attr("axis", 0), len(source.shape))
        dim = source.shape[axis] if axis is not None and axis < len(source.shape) else None
        if not isinstance(dim, int) or tuple(i + dim if i < 0 else i for i in indices) != tuple(range(dim)):
            return NoMatch("it does not take every element once and in order", node)
        target = reshape_target(source.shape, node.result.shape) if facts.opset(node) >= 5 else None
        return NoMatch("its shape is not known", node) if target is None else Whole(node, source, target)

    def rewrite(self, found: Whole, edit: Rewriter) -> None:
        shape = edit.constant(np.asarray(found.target, np.int64), f"{found.node.label}.shape")
        edit.replace(found.node, edit.node("Reshape", [found.source, shape], name=found.node.name))


def _repicked(node: Node, before: tuple[int, ...], after: tuple[int, ...], facts: Facts) -> Pick | NoMatch:
    """A Gather whose constant index of shape `before` may have shape `after`, since `node` changes that axis."""
    inner = facts.sole_producer(node.input(0), "Gather")
    source = inner.input(0) if inner is not None else None
    if inner is None or source is None:
        return NoMatch("its input is not a Gather that feeds it alone", node)
    index = facts.ints(inner.input(1))
    indices = inner.input(1)
    if index is None or indices is None or indices.shape != before:
        return NoMatch("the index is not one constant of that rank", node)
    rank = facts.rank(source)
    axis = _from_front(inner.int_attr("axis", 0), rank)
    if axis is None or axis != _sole_axis(node, rank, facts):
        return NoMatch("it does not work on the gathered axis alone", node)
    return Pick(node, source, index[0], axis, after)
