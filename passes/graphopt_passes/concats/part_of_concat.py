"""Slices and Gathers of a Concat that stay inside one of its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import AxisSlice, axis_of, axis_slices, normalized_axes
from graphopt_passes.common.slicing import as_slice
from graphopt_passes.concats.coalesce import put_tensor
from graphopt_passes.concats.segments import concat_axis, length


def place_of(concat: Node, axis: int, low: int, high: int) -> tuple[Tensor, int] | None:
    """The input of a Concat that holds the positions low to high (inclusive), and the position at which it begins."""
    start = 0
    for tensor in concat.inputs:
        size = length(tensor, axis)
        if tensor is None or size is None:
            return None
        if low < start + size:
            return (tensor, start) if low >= start and high < start + size else None
        start += size
    return None


def total_length(concat: Node, axis: int) -> int | None:
    """The size of a Concat's result along its axis."""
    sizes = [length(t, axis) for t in concat.inputs]
    known = [s for s in sizes if s is not None]
    return sum(known) if len(known) == len(sizes) else None


@dataclass(frozen=True)
class SlicedInput:
    """A Slice of a Concat is `slices` of `source`; no slices where it is all of it."""

    node: Node
    source: Tensor
    slices: tuple[AxisSlice, ...]


class SliceConcatInput(Rule[SlicedInput]):
    """Slice(Concat(a, b), |a| + s : |a| + e) = Slice(b, s : e), and = b where that is all of b.

    What the Slice takes on the Concat's axis (steps above 0) lies in one input; its other axes stay. The inputs' sizes
    up to there are known numbers. The Concat stays for its other readers.

    Opsets: all. Exact.
    """

    roots = ("Slice",)

    def match(self, node: Node, facts: Facts) -> SlicedInput | NoMatch:
        concat = facts.producer(node.input(0), "Concat")
        axis = concat_axis(concat, facts) if concat is not None else None
        slices = axis_slices(node, facts)
        rank = facts.rank(node.input(0))
        if concat is None or axis is None or slices is None or rank is None:
            return NoMatch("its input is not a Concat, or its ranges are not known", node)
        places = normalized_axes(tuple(s.axis for s in slices), rank)
        size = total_length(concat, axis)
        if places is None or axis not in places or size is None:
            return NoMatch("it cuts other axes, or sizes are not known", node)
        mine = slices[places.index(axis)]
        taken = range(*as_slice(mine.start, mine.end, mine.step, size).indices(size))
        if mine.step < 1 or not taken:
            return NoMatch("it takes nothing, or goes backwards", node)
        place = place_of(concat, axis, taken[0], taken[-1])
        if place is None or not facts.visible(place[0], node.owner):
            return NoMatch("it takes elements of more than one input", node)
        tensor, start = place
        new = AxisSlice(axis, taken[0] - start, taken[-1] - start + 1, mine.step)
        others = [AxisSlice(p, s.start, s.end, s.step) for p, s in zip(places, slices, strict=True) if p != axis]
        whole = len(taken) == length(tensor, axis)
        return SlicedInput(node, tensor, tuple(others if whole else [*others, new]))

    def rewrite(self, found: SlicedInput, edit: Rewriter) -> None:
        if not found.slices:
            put_tensor(found.node, found.source, edit)
            return
        edit.replace(found.node, _slice(found, edit))


def _slice(found: SlicedInput, edit: Rewriter) -> Node:
    """The Slice in the form of the old one."""
    columns = {
        "starts": tuple(s.start for s in found.slices),
        "ends": tuple(s.end for s in found.slices),
        "axes": tuple(s.axis for s in found.slices),
    }
    node = found.node
    if node.input(1) is None:
        return edit.node("Slice", [found.source], columns, name=node.name)
    columns["steps"] = tuple(s.step for s in found.slices)
    inputs = [edit.constant(np.asarray(v, np.int64), f"{node.label}.{k}") for k, v in columns.items()]
    return edit.node("Slice", [found.source, *inputs], name=node.name)


@dataclass(frozen=True)
class GatheredInput:
    """A Gather of a Concat is the same Gather of `source` with `indices`."""

    node: Node
    source: Tensor
    indices: np.ndarray[tuple[int, ...], np.dtype[np.int64]]


class GatherConcatInput(Rule[GatheredInput]):
    """Gather(Concat(a, b), i) = Gather(b, i - |a|), where all constant indices i lie in b.

    The inputs' sizes are known numbers. The Concat stays for its other readers. Opsets: all. Exact.
    """

    roots = ("Gather",)

    def match(self, node: Node, facts: Facts) -> GatheredInput | NoMatch:
        concat = facts.producer(node.input(0), "Concat")
        axis = axis_of(node, facts.rank(node.input(0)), 0)
        indices = facts.value(node.input(1))
        if concat is None or axis is None or indices is None or concat_axis(concat, facts) != axis:
            return NoMatch("its input is not a Concat on its axis, or its indices are not constant", node)
        size = total_length(concat, axis)
        if size is None or indices.size == 0 or indices.min() < -size or indices.max() >= size:
            return NoMatch("sizes are not known, or it takes nothing", node)
        places = np.where(indices < 0, indices + size, indices).astype(np.int64)
        place = place_of(concat, axis, int(places.min()), int(places.max()))
        if place is None or not facts.visible(place[0], node.owner):
            return NoMatch("it takes elements of more than one input", node)
        return GatheredInput(node, place[0], places - place[1])

    def rewrite(self, found: GatheredInput, edit: Rewriter) -> None:
        indices = edit.constant(found.indices, f"{found.node.label}.indices")
        edit.replace(found.node, edit.like(found.node, [found.source, indices]))
