"""Operators' arguments that moved from attributes to inputs between opsets, read the same way for all of them.

Squeeze, Unsqueeze and ReduceSum took `axes` as an attribute before opset 13, the other reductions before 18, Slice took
`starts` and `ends` before 10, Pad its `pads` before 11 (ONNX, docs/Changelog.md). One form excludes the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.distrust import LARGEST
from graphopt.facts import Facts
from graphopt.graph import Node, Tensor

INT64_MAX = (1 << 63) - 1
# An end from here on means "to the end": no dimension is longer.
ANY_END = (1 << 31) - 1


@dataclass(frozen=True)
class Ints:
    """An argument of integers that is known at compile time; `values` is None when the node leaves it out."""

    values: tuple[int, ...] | None


def ints_argument(node: Node, facts: Facts, attribute: str, index: int) -> Ints | None:
    """The argument given by `attribute` or by input `index`; None when it is computed at run time."""
    tensor = node.input(index)
    if tensor is None:
        return Ints(node.ints_attr(attribute))
    values = facts.ints(tensor)
    return None if values is None else Ints(values)


def normalized_axes(axes: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    """The axes counted from the front; None when one is out of range or comes twice."""
    result = tuple(a + rank if a < 0 else a for a in axes)
    if len(set(result)) != len(result) or any(not 0 <= a < rank for a in result):
        return None
    return result


def axis_of(node: Node, rank: int | None, default: int) -> int | None:
    """The attribute `axis` counted from the front; None when the rank is unknown or the axis out of range."""
    if rank is None:
        return None
    axis = node.int_attr("axis", default)
    axis += rank if axis < 0 else 0
    return axis if 0 <= axis < rank else None


def permutation(node: Node, facts: Facts) -> tuple[int, ...] | None:
    """The permutation of a Transpose: output dimension i is input dimension perm[i]. Without `perm` they reverse."""
    perm = node.ints_attr("perm")
    if perm is not None:
        return perm if sorted(perm) == list(range(len(perm))) else None
    rank = facts.rank(node.input(0))
    if rank is None:
        rank = facts.rank(node.output(0))
    return None if rank is None else tuple(reversed(range(rank)))


@dataclass(frozen=True)
class AxisSlice:
    """One axis of a Slice; `axis` may be negative, `start` and `end` are as given (not clamped)."""

    axis: int
    start: int
    end: int
    step: int


def axis_slices(node: Node, facts: Facts) -> tuple[AxisSlice, ...] | None:
    """What a Slice does on each axis that it names; None when an argument is computed at run time.

    Nor is it known what a Slice backwards does up to the largest integer: ONNX Runtime reads that as the far end, which
    the specification calls a negative number.
    """
    if node.input(1) is None and "starts" not in node.attrs:
        return None
    starts = ints_argument(node, facts, "starts", 1)
    ends = ints_argument(node, facts, "ends", 2)
    axes = ints_argument(node, facts, "axes", 3)
    steps = ints_argument(node, facts, "steps", 4)
    if starts is None or ends is None or axes is None or steps is None:
        return None
    if starts.values is None or ends.values is None or len(starts.values) != len(ends.values):
        return None
    count = len(starts.values)
    axis_list = axes.values if axes.values is not None else tuple(range(count))
    step_list = steps.values if steps.values is not None else (1,) * count
    if any(step < 0 and end in LARGEST for step, end in zip(step_list, ends.values, strict=False)):
        return None
    if len(axis_list) != count or len(step_list) != count or 0 in step_list or len(set(axis_list)) != count:
        return None
    return tuple(AxisSlice(*item) for item in zip(axis_list, starts.values, ends.values, step_list, strict=True))


@dataclass(frozen=True)
class Padding:
    """What a Pad adds: elements before and after each of `rank` dimensions (negative: removed), and the mode."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    mode: str


def padding(node: Node, facts: Facts) -> Padding | None:
    """The padding of a Pad of any opset (1: `paddings`, 2: `pads`, 11: input, 18: with axes); None when unknown."""
    pads = ints_argument(node, facts, "paddings" if "paddings" in node.attrs else "pads", 1)
    if pads is None or pads.values is None or len(pads.values) % 2:
        return None
    half = len(pads.values) // 2
    before, after = pads.values[:half], pads.values[half:]
    mode = node.str_attr("mode", "constant")
    if node.input(3) is None:
        return Padding(before, after, mode)
    axes, rank = facts.ints(node.input(3)), facts.rank(node.input(0))
    if axes is None or rank is None or len(axes) != half:
        return None
    places = normalized_axes(axes, rank)
    if places is None:
        return None
    begin, end = dict(zip(places, before, strict=True)), dict(zip(places, after, strict=True))
    return Padding(tuple(begin.get(i, 0) for i in range(rank)), tuple(end.get(i, 0) for i in range(rank)), mode)


def inputs_given(node: Node) -> list[Tensor]:
    """The inputs that are not left out."""
    return [t for t in node.inputs if t is not None]
