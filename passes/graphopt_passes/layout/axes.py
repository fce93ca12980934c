"""Transposes sink below operators that name axes: the axes are renamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor, numpy_dtype
from graphopt.rewrite import Exactness, NoMatch, Rewriter, Rule
from graphopt_passes.common.arguments import axis_of, axis_slices, ints_argument, normalized_axes, padding
from graphopt_passes.layout.sinking import pays, permuted_back, place_behind, transposed_input
from graphopt_passes.layout.transposes import Perm, inverse

_REDUCTIONS = (
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


@dataclass(frozen=True)
class OneInput:
    """`node` reads Transpose(`source`, `perm`) as its first input; on `source` it works along `axes`."""

    node: Node
    source: Tensor
    perm: Perm
    axes: tuple[int, ...]


class _BelowOneInput(Rule[OneInput]):
    """What the rules for operators with one transposed input share."""

    def match(self, node: Node, facts: Facts) -> OneInput | NoMatch:
        found = transposed_input(node.input(0), facts)
        if found is None or node.inputs[0] is None:
            return NoMatch("its input is not a Transpose", node)
        source, perm = found
        axes = self.axes(node, len(perm), facts)
        if isinstance(axes, NoMatch):
            return axes
        if not pays(node, {node.inputs[0]}, facts):
            return NoMatch("the Transpose before it has other readers", node)
        return OneInput(node, source, perm, tuple(perm[a] for a in axes))

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        """The axes of the transposed tensor along which `node` works, counted from the front, or why not."""
        raise NotImplementedError


class SinkTransposeBelowReduction(_BelowOneInput):
    """Reduce(Transpose(x, p), axes a) = Transpose(Reduce(x, axes p[a]), p'), p' being p without the axes that go.

    What is transposed afterwards is smaller. Sums of floats along several axes may add up in another order. All
    reductions; axes as attribute or constant input, or all. Opset 1 on. Reassociates.
    """

    roots = _REDUCTIONS
    exactness = Exactness.REASSOCIATES

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        given = ints_argument(node, facts, "axes", 1)
        if given is None or not given.values:
            return NoMatch("its axes are not named", node)
        axes = normalized_axes(given.values, rank)
        return NoMatch("an axis is out of range", node) if axes is None else axes

    def rewrite(self, found: OneInput, edit: Rewriter) -> None:
        node, perm = found.node, found.perm
        axes = tuple(sorted(found.axes))
        made = with_ints(node, found.source, "axes", 1, axes, edit)
        if node.int_attr("keepdims", 1) == 0:
            kept = [p for p in perm if p not in axes]
            perm = tuple(sorted(kept).index(p) for p in kept)
        place_behind(node, made, perm, edit)


class SinkTransposeBelowSoftmax(_BelowOneInput):
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


class SinkTransposeBelowSlice(_BelowOneInput):
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


class SinkTransposeBelowPad(_BelowOneInput):
    """Pad(Transpose(x, p), pads) = Transpose(Pad(x, pads'), p), pads'[p[i]] = pads[i]. All modes.

    Only where another Transpose follows, since the padded tensor is larger. Opset 11 on. Exact.
    """

    roots = ("Pad",)

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        pads = padding(node, facts)
        if facts.opset(node) < 11 or pads is None or len(pads.before) != rank:
            return NoMatch("its pads are not known", node)
        if facts.sole_consumer(node.output(0), "Transpose") is None:
            return NoMatch("no Transpose follows", node)
        return tuple(range(rank))

    def rewrite(self, found: OneInput, edit: Rewriter) -> None:
        node, back = found.node, inverse(found.perm)
        pads = padding(node, Facts(edit.model))
        assert pads is not None
        values = [pads.before[b] for b in back] + [pads.after[b] for b in back]
        moved = edit.constant(np.asarray(values, np.int64), f"{node.label}.pads")
        made = edit.like(node, [found.source, moved, node.input(2)])
        place_behind(node, made, found.perm, edit)


def with_ints(node: Node, source: Tensor, attribute: str, index: int, values: tuple[int, ...], edit: Rewriter) -> Node:
    """`node` with `source` as first input and other integers for an argument, in the form that the node uses."""
    if len(node.inputs) < 2 and (attribute in node.attrs or _has_attributes_only(node)):
        changed: dict[str, Any] = {attribute: values}
        return edit.like(node, [source], **changed)
    inputs = [source, *node.inputs[1:]]
    inputs += [None] * (index + 1 - len(inputs))
    # a Slice's arguments have one type, int32 or int64; the other operators take int64 alone
    first = node.input(1)
    kind = numpy_dtype(first.dtype) if first is not None and first.dtype is not None else np.dtype(np.int64)
    inputs[index] = edit.constant(np.asarray(values, kind), f"{node.label}.{attribute}")
    return edit.like(node, inputs)


def _has_attributes_only(node: Node) -> bool:
    """Whether a Slice is of an opset before 10: its ranges are attributes."""
    return "starts" in node.attrs


@dataclass(frozen=True)
class Joined:
    """A Concat whose inputs are Transposes by `perm` of `sources` (None: a constant)."""

    concat: Node
    perm: Perm
    sources: tuple[Tensor | None, ...]
    axis: int


class SinkTransposeBelowConcat(Rule[Joined]):
    """Concat(Transpose(x, p), Transpose(y, p), c; axis a) = Transpose(Concat(x, y, c'; axis p[a]), p).

    c is constant and c' is c transposed by p's inverse. Opset 4 on. Exact.
    """

    roots = ("Concat",)

    def match(self, node: Node, facts: Facts) -> Joined | NoMatch:
        found = [transposed_input(t, facts) for t in node.inputs]
        perms = {item[1] for item in found if item is not None}
        if len(perms) != 1:
            return NoMatch("its inputs are not transposed in one way", node)
        perm = next(iter(perms))
        axis = axis_of(node, len(perm), 1)
        if axis is None:
            return NoMatch("its axis is out of range", node)
        for tensor, item in zip(node.inputs, found, strict=True):
            if item is None and (tensor is None or tensor.constant is None or len(tensor.constant.shape) != len(perm)):
                return NoMatch("an input is neither transposed nor constant", node)
        moved = {t for t, item in zip(node.inputs, found, strict=True) if item is not None and t is not None}
        if not pays(node, moved, facts):
            return NoMatch("the Transposes before it have other readers", node)
        return Joined(node, perm, tuple(item[0] if item is not None else None for item in found), perm[axis])

    def rewrite(self, found: Joined, edit: Rewriter) -> None:
        node, perm = found.concat, found.perm
        inputs = [
            source if source is not None else permuted_back(node.inputs[i], perm, edit)
            for i, source in enumerate(found.sources)
        ]
        place_behind(node, edit.like(node, inputs, axis=found.axis), perm, edit)


@dataclass(frozen=True)
class Divided:
    """A Split of Transpose(`source`, `perm`) whose read results are each transposed again."""

    split: Node
    source: Tensor
    perm: Perm
    axis: int


class SinkTransposeBelowSplit(Rule[Divided]):
    """Split(Transpose(x, p), axis a) = Transposes by p of Split(x, axis p[a]).

    Only where each result that is read is read by one Transpose alone, with which the new one composes, and the
    Transpose before is read by the Split alone. Opset 2 on. Exact.
    """

    roots = ("Split",)

    def match(self, node: Node, facts: Facts) -> Divided | NoMatch:
        found = transposed_input(node.input(0), facts)
        if found is None or facts.sole_producer(node.input(0), "Transpose") is None:
            return NoMatch("its input is not a Transpose that feeds it alone", node)
        axis = axis_of(node, len(found[1]), 0)
        if axis is None:
            return NoMatch("its axis is out of range", node)
        read = [t for t in node.outputs if t is not None and t.is_used]
        if not read or any(facts.sole_consumer(t, "Transpose") is None for t in read):
            return NoMatch("a result is not transposed again", node)
        return Divided(node, found[0], found[1], found[1][axis])

    def rewrite(self, found: Divided, edit: Rewriter) -> None:
        split = found.split
        made = edit.like(split, [found.source, *split.inputs[1:]], axis=found.axis)
        for old, new in zip(split.outputs, made.outputs, strict=True):
            if old is not None and new is not None and old.is_used:
                edit.forward(old, edit.node("Transpose", [new], {"perm": found.perm}).result)
