"""YOLO's Focus: every second row and column, four times, side by side as channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.common.arguments import ANY_END, AxisSlice, axis_slices, normalized_axes
from graphopt_passes.common.slicing import as_slice
from graphopt_passes.concats.segments import concat_axis, length
from graphopt_passes.siblings.conv_form import conv_form, conv_weight
from graphopt_passes.siblings.weights import Weight, join_weights

BLOCK = 2
SPATIAL = (2, 3)
# (row, column) of the upper left element, in SpaceToDepth's order of blocks (ONNX, operator SpaceToDepth)
Phase = tuple[int, int]
PHASES: tuple[Phase, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclass(frozen=True)
class Focus:
    """A Concat of the four phases of `source`, [N, C, 2H, 2W], in the order `phases`."""

    concat: Node
    source: Tensor
    phases: tuple[Phase, ...]


def focus(concat: Node | None, facts: Facts) -> Focus | None:
    """The Focus that ends in `concat`."""
    if concat is None or len(concat.inputs) != len(PHASES) or concat_axis(concat, facts) != 1:
        return None
    found = [_phase(t, facts) for t in concat.inputs]
    phases = tuple(p for f in found if f is not None for p in (f[1],))
    sources = {f[0] for f in found if f is not None}
    if sorted(phases) != list(PHASES) or len(sources) != 1:
        return None
    (source,) = sources
    if facts.rank(source) != 4 or not facts.visible(source, concat.owner):
        return None
    return Focus(concat, source, phases)


def _phase(tensor: Tensor | None, facts: Facts) -> tuple[Tensor, Phase] | None:
    """The tensor of which `tensor` is every second row and column, and the first of them; through one or two Slices."""
    starts: dict[int, int] = {}
    for _ in SPATIAL:
        node = facts.producer(tensor, "Slice")
        source, slices = (node.input(0), axis_slices(node, facts)) if node is not None else (None, None)
        rank = facts.rank(source)
        if source is None or slices is None or rank != 4:
            return None
        places = normalized_axes(tuple(s.axis for s in slices), rank)
        if places is None:
            return None
        for axis, item in zip(places, slices, strict=True):
            start = _every_second(item, length(source, axis))
            if axis in starts or axis not in SPATIAL or start is None:
                return None
            starts[axis] = start
        tensor = source
        if len(starts) == len(SPATIAL):
            return source, (starts[2], starts[3])
    return None


def _every_second(item: AxisSlice, dim: int | None) -> int | None:
    """0 or 1 where the Slice takes every second position from there to the end."""
    if item.step != BLOCK:
        return None
    if dim is None:
        return item.start if item.start in (0, 1) and item.end >= ANY_END else None
    taken = range(*as_slice(item.start, item.end, item.step, dim).indices(dim))
    return next((s for s in (0, 1) if taken == range(s, dim, BLOCK) and dim % BLOCK == 0), None)


@dataclass(frozen=True)
class FocusThenConv:
    """A Conv that alone reads a Focus."""

    conv: Node
    focus: Focus
    weight: Weight
    pads: tuple[int, ...]
    strides: tuple[int, ...]


class FoldFocusIntoConv(Rule[FocusThenConv]):
    """Conv(Focus(x), W; strides s, pads p) = Conv(x, W'; strides 2s, pads 2p), W'[o, c, 2i+u, 2j+v] = W[o, kC+c, i, j].

    Focus(x) is the Concat of x[:, :, u::2, v::2] for the four phases k -> (u, v), in any order, x of even height and
    width. W is [O, 4C, h, w], plain or dequantized with a scale an output channel; W' is [O, C, 2h, 2w]. The conv has
    group 1, no dilation and pads that are known.

    Opsets: Slice with steps, 10 on. Exactness: reassociates.
    """

    roots = ("Conv",)
    exactness = Exactness.REASSOCIATES
    needs_finite = True

    def match(self, node: Node, facts: Facts) -> FocusThenConv | NoMatch:
        found = focus(facts.sole_producer(node.input(0), "Concat"), facts)
        if found is None:
            return NoMatch("its input is not the four phases of a tensor", node)
        form, weight = conv_form(node, facts), conv_weight(node, facts)
        if form is None or weight is None or form.group != 1 or isinstance(form.pads, str):
            return NoMatch("its weight or pads are not known, or it has groups", node)
        if any(d != 1 for d in form.dilations) or length(found.source, 1) != weight.shape[1] / len(PHASES):
            return NoMatch("it is dilated, or its channels are not known", node)
        return FocusThenConv(node, found, weight, form.pads, form.strides)

    def rewrite(self, found: FocusThenConv, edit: Rewriter) -> None:
        outputs, inputs, height, width = found.weight.shape
        shape = (outputs, inputs // len(PHASES), BLOCK * height, BLOCK * width)

        def spread(array: Array, _: Weight) -> Array:
            result = np.zeros(shape, array.dtype)
            parts = np.split(array, len(PHASES), axis=1)
            for part, (row, column) in zip(parts, found.focus.phases, strict=True):
                result[:, :, row::BLOCK, column::BLOCK] = part
            return result

        weight = join_weights([found.weight], edit, lambda arrays: arrays[0], shape, spread)
        conv = found.conv
        made = edit.like(
            conv,
            [found.focus.source, weight, *conv.inputs[2:]],
            kernel_shape=shape[2:],
            pads=tuple(BLOCK * p for p in found.pads),
            strides=tuple(BLOCK * s for s in found.strides),
            auto_pad=None,
        )
        edit.replace(conv, made)


# the types of which ONNX Runtime has a SpaceToDepth
_RUN = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT8})


class FocusToSpaceToDepth(Rule[Focus]):
    """Concat(x[:, :, 0::2, 0::2], x[:, :, 0::2, 1::2], x[:, :, 1::2, 0::2], x[:, :, 1::2, 1::2]) = SpaceToDepth(x; 2).

    x is [N, C, 2H, 2W]; the order of the phases is SpaceToDepth's. Opsets: 10 on. Exact.
    """

    roots = ("Concat",)

    def match(self, node: Node, facts: Facts) -> Focus | NoMatch:
        found = focus(node, facts)
        if found is None or found.phases != PHASES:
            return NoMatch("it does not join the four phases of a tensor in order", node)
        if found.source.dtype not in _RUN:
            return NoMatch("runtimes have no SpaceToDepth of its type", node)
        sizes = [length(found.source, axis) for axis in SPATIAL]
        if any(s is None or s % BLOCK for s in sizes):
            return NoMatch("height and width are not known to be even", node)
        return found

    def rewrite(self, found: Focus, edit: Rewriter) -> None:
        edit.replace(found.concat, edit.node("SpaceToDepth", [found.source], {"blocksize": BLOCK}))
