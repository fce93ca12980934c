"""Slices of slices and gathers of gathers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Shape, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import ANY_END, INT64_MAX, AxisSlice, axis_of, axis_slices


@dataclass(frozen=True)
class SlicedTwice:
    """`outer` slices what another Slice made of `source`: together `slices`."""

    outer: Node
    source: Tensor
    slices: tuple[AxisSlice, ...]


class ComposeSlices(Rule[SlicedTwice]):
    """Slice(Slice(x, s, e, t), u, f, v) = Slice(x, s + u·t, min(e, s + f·t), t·v) on an axis of both.

    Positions and steps are constant and count from the front (negative ones are turned where the dimension is known);
    ends from 2³¹ − 1 on mean the end. Axes of one Slice alone keep their range. The inner Slice is read by the outer
    alone. Opset 1 on (steps from 10 on). Exact.
    """

    roots = ("Slice",)

    def match(self, node: Node, facts: Facts) -> SlicedTwice | NoMatch:
        inner = facts.sole_producer(node.input(0), "Slice")
        source = inner.input(0) if inner is not None else None
        if inner is None or source is None:
            return NoMatch("its input is not a Slice that feeds it alone", node)
        first, second = from_front(inner, source.shape, facts), from_front(node, inner.result.shape, facts)
        if first is None or second is None:
            return NoMatch("its ranges are not known from the front", node)
        merged = dict(first)
        for axis, item in second.items():
            merged[axis] = _composed(merged[axis], item) if axis in merged else item
        if facts.opset(node) < 10 and any(item.step != 1 for item in merged.values()):
            return NoMatch("before opset 10 a Slice has no steps", node)
        return SlicedTwice(node, source, tuple(merged[axis] for axis in sorted(merged)))

    def rewrite(self, found: SlicedTwice, edit: Rewriter) -> None:
        outer = found.outer
        columns = {
            "starts": tuple(s.start for s in found.slices),
            "ends": tuple(s.end for s in found.slices),
            "axes": tuple(s.axis for s in found.slices),
            "steps": tuple(s.step for s in found.slices),
        }
        if outer.input(1) is None:
            del columns["steps"]
            made = edit.node("Slice", [found.source], dict(columns), name=outer.name)
        else:
            inputs = [edit.constant(np.asarray(v, np.int64), f"{outer.label}.{k}") for k, v in columns.items()]
            made = edit.node("Slice", [found.source, *inputs], name=outer.name)
        edit.replace(outer, made)


def from_front(node: Node, shape: Shape | None, facts: Facts) -> dict[int, AxisSlice] | None:
    """A Slice's ranges by axis, all counted from the front with positive steps; None when one is not known so."""
    slices = axis_slices(node, facts)
    if slices is None:
        return None
    result: dict[int, AxisSlice] = {}
    for item in slices:
        if item.axis < 0 and shape is None:
            return None
        axis = item.axis + len(shape) if item.axis < 0 and shape is not None else item.axis
        dim = shape[axis] if shape is not None and 0 <= axis < len(shape) else None
        start, end = (_from_front(p, dim) for p in (item.start, item.end))
        if start is None or end is None or item.step < 1 or axis in result:
            return None
        result[axis] = AxisSlice(axis, start, INT64_MAX if end >= ANY_END else end, item.step)
    return result


def _from_front(position: int, dim: int | str | None) -> int | None:
    if position >= 0:
        return position
    return max(position + dim, 0) if isinstance(dim, int) else None


def _composed(first: AxisSlice, second: AxisSlice) -> AxisSlice:
    end = INT64_MAX if second.end == INT64_MAX else first.start + second.end * first.step
    start = first.start + second.start * first.step
    step = min(first.step * second.step, INT64_MAX)
    return AxisSlice(first.axis, min(start, INT64_MAX), min(first.end, end), step)


@dataclass(frozen=True)
class GatheredTwice:
    """`outer` gathers from what another Gather made of `source`: together `indices` along the same axis."""

    outer: Node
    source: Tensor
    indices: tuple[int, ...]
    shape: tuple[int, ...]


class ComposeGathers(Rule[GatheredTwice]):
    """Gather(Gather(x, i, a), j, a) = Gather(x, i[j], a) for constant indices, i a list, j of any shape.

    The inner Gather is read by the outer alone. Opset 1 on. Exact.
    """

    roots = ("Gather",)

    def match(self, node: Node, facts: Facts) -> GatheredTwice | NoMatch:
        inner = facts.sole_producer(node.input(0), "Gather")
        source = inner.input(0) if inner is not None else None
        if inner is None or source is None:
            return NoMatch("its input is not a Gather that feeds it alone", node)
        first, second = facts.ints(inner.input(1)), facts.value(node.input(1))
        if first is None or second is None or facts.rank(inner.input(1)) != 1:
            return NoMatch("its indices are not constant lists", node)
        axes = axis_of(inner, facts.rank(source), 0), axis_of(node, facts.rank(inner.result), 0)
        if axes[0] is None or axes[0] != axes[1]:
            return NoMatch("they gather along different axes", node)
        chosen = [int(j) for j in second.reshape(-1)]
        if any(not -len(first) <= j < len(first) for j in chosen):
            return NoMatch("an index is out of range", node)
        return GatheredTwice(node, source, tuple(first[j] for j in chosen), tuple(second.shape))

    def rewrite(self, found: GatheredTwice, edit: Rewriter) -> None:
        indices = np.asarray(found.indices, np.int64).reshape(found.shape)
        made = edit.like(found.outer, [found.source, edit.constant(indices, f"{found.outer.label}.indices")])
        edit.replace(found.outer, made)
