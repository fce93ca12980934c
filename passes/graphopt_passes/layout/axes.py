"""Transposes sink below operators that reduce, normalize or cut an axis."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch
from graphopt_passes.common.arguments import axis_of, axis_slices, ints_argument, normalized_axes
from graphopt_passes.layout.one_input import BelowOneInput, OneInput, with_ints
from graphopt_passes.layout.reductions import REDUCTIONS
from graphopt_passes.layout.sinking import place_behind
from graphopt_passes.layout.transposes import Perm


class SinkTransposeBelowReduction(BelowOneInput):
    """Reduce(Transpose(x, p), axes a) = Transpose(Reduce(x, axes p[a]), p'), p' being p without the axes that go.

    What is transposed afterwards is smaller. Sums of floats along several axes may add up in another order. All
    reductions; axes as attribute or constant input, or all. Opset 1 on. Reassociates.
    """

    roots = REDUCTIONS
    exactness = Exactness.REASSOCIATES

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        given = ints_argument(node, facts, "axes", 1)
        if given is None or not given.values:
            return NoMatch("its axes are not named", node)
        axes = normalized_axes(given.values, rank)
        return NoMatch("an axis is out of range", node) if axes is None else axes

    def rewrite(self, found: OneInput, edit: Rewriter) -> None:
        node = found.node
        made = with_ints(node, found.source, "axes", 1, tuple(sorted(found.axes)), edit)
        perm = found.perm if node.int_attr("keepdims", 1) else _without(found.perm, found.axes)
        place_behind(node, made, perm, edit)


class SinkTransposeBelowArgMax(BelowOneInput):
    """ArgMax(Transpose(x, p), axis a) = Transpose(ArgMax(x, axis p[a]), p'), p' as for reductions; also ArgMin.

    Which of equal elements is taken depends on their order along the axis, which stays. Opset 1 on. Exact.
    """

    roots = ("ArgMax", "ArgMin")

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        axis = axis_of(node, rank, 0)
        return NoMatch("its axis is out of range", node) if axis is None else (axis,)

    def rewrite(self, found: OneInput, edit: Rewriter) -> None:
        node = found.node
        made = edit.like(node, [found.source], axis=found.axes[0])
        perm = found.perm if node.int_attr("keepdims", 1) else _without(found.perm, found.axes)
        place_behind(node, made, perm, edit)


def _without(perm: Perm, axes: tuple[int, ...]) -> Perm:
    """The permutation of the other dimensions when the source's `axes` are gone."""
    kept = [p for p in perm if p not in axes]
    rank = {p: i for i, p in enumerate(sorted(kept))}
    return tuple(rank[p] for p in kept)


class SinkTransposeBelowSoftmax(BelowOneInput):
    """Softmax(Transpose(x, p), axis a) = Transpose(Softmax(x, axis p[a]), p), also LogSoftmax and Hardmax.

    Only where another Transpose follows, since a softmax along an inner axis may be slower. Before opset 13 these
    operators flatten their input: not for those. Opset 13 on. Exact.
    """

    roots = ("Softmax", "LogSoftmax", "Hardmax")

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        if facts.opset(node) < 13:
            return NoMatch("before opset 13 it flattens its input", node)
        if facts.sole_consumer(node.output(0), "Transpose") is None:
            return NoMatch("no Transpose follows", node)
        axis = axis_of(node, rank, -1)
        return NoMatch("its axis is out of range", node) if axis is None else (axis,)

    def rewrite(self, found: OneInput, edit: Rewriter) -> None:
        made = edit.like(found.node, [found.source], axis=found.axes[0])
        place_behind(found.node, made, found.perm, edit)


class SinkTransposeBelowSlice(BelowOneInput):
    """Slice(Transpose(x, p), axes a) = Transpose(Slice(x, axes p[a]), p), the ranges as they are.

    Starts, ends and steps are constant. What is transposed afterwards is smaller. Opset 1 on. Exact.
    """

    roots = ("Slice",)

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        slices = axis_slices(node, facts)
        if slices is None:
            return NoMatch("its ranges are computed at run time", node)
        axes = normalized_axes(tuple(s.axis for s in slices), rank)
        return NoMatch("an axis is out of range", node) if axes is None else axes

    def rewrite(self, found: OneInput, edit: Rewriter) -> None:
        made = with_ints(found.node, found.source, "axes", 3, found.axes, edit)
        place_behind(found.node, made, found.perm, edit)
