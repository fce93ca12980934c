"""Channels that are taken apart, scaled one by one and put together again: one scale and one shift of all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, RewriteRefusedError, Rule
from graphopt_passes.common.arguments import axis_slices
from graphopt_passes.common.folding import FLOATS, Folded, finite_vector, fold, moved_shift, sum_of_shifts
from graphopt_passes.vertical.affine import AFFINE_OPS, Affine, Channels, affine_at

# Affine operators in a row on one part.
_MOST_STEPS = 4
_CHANNELS = 1


@dataclass(frozen=True)
class Part:
    """Channels `indices` of `source`, through `steps`, the first one first."""

    source: Tensor
    indices: tuple[int, ...]
    steps: tuple[Affine, ...]

    def vectors(self) -> tuple[Array, Array]:
        """s and t of the whole part, s·x + t. Raises RewriteRefusedError."""
        scale, shift = np.ones(len(self.indices)), np.zeros(len(self.indices))
        added = shift  # the largest shift so far, as it was when it was added
        assert self.source.dtype is not None
        for step in self.steps:
            s, t = step.vectors()
            if (np.abs(s) != 1).any():
                moved_shift(self.source.dtype, added)
            summed = shift.any() and t.any()
            shift = sum_of_shifts(self.source.dtype, shift * s, t, unscaled=added) if summed else shift * s + t
            scale, added = scale * s, np.maximum(added, np.abs(t))
        return scale, shift


@dataclass(frozen=True)
class Parts:
    """A Concat that puts all channels of one tensor together again, in their order."""

    concat: Node
    parts: tuple[Part, ...]
    rank: int


class JoinScaledChannels(Rule[Parts]):
    """Concat(s₀·x[:, 0] + t₀, s₁·x[:, 1] + t₁, ...) = s·x + t, s and t [C, 1, ...], x [N, C, ...].

    The channels are taken by Gather or Slice, one or several at a time, in order and all of them; each part goes
    through Mul, Div, Add, Sub, Neg or BatchNormalization with constants. So do input transforms of image classifiers.

    Opsets: 7 on. Exactness: reassociates. Source: ONNX operators Gather, Slice, Concat.
    """

    roots = ("Concat",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> Parts | NoMatch:
        rank = facts.rank(node.output(0))
        axis = node.int_attr("axis", _CHANNELS)
        if rank is None or rank < 2 or axis not in (_CHANNELS, _CHANNELS - rank) or facts.opset(node) < 7:
            return NoMatch("it does not put channels together", node)
        parts: list[Part] = []
        for tensor in node.inputs:
            part = _part(tensor, rank, facts)
            if part is None or part.source is not (parts[0].source if parts else part.source):
                return NoMatch("an input is no scaled part of the channels of one tensor", node)
            parts.append(part)
        source = parts[0].source
        order = [i for part in parts for i in part.indices]
        if source.shape is None or source.shape[_CHANNELS] != len(order) or order != list(range(len(order))):
            return NoMatch("its inputs are not all channels in order", node)
        if source.dtype not in FLOATS or not any(part.steps for part in parts):
            return NoMatch("nothing scales the parts", node)
        return Parts(node, tuple(parts), rank)

    def rewrite(self, found: Parts, edit: Rewriter) -> None:
        vectors = [part.vectors() for part in found.parts]
        scale, shift = (np.concatenate([v[i] for v in vectors]) for i in (0, 1))
        finite_vector(scale, "a scale of the channels")
        source, last = found.parts[0].source, None
        for op, values, neutral in (("Mul", scale, 1.0), ("Add", shift, 0.0)):
            if (values != neutral).any():
                data = source if last is None else last.result
                last = edit.node(op, [data, self._constant(found, op, values, edit)])
        if last is None:
            raise RewriteRefusedError("the parts are neither scaled nor shifted")
        edit.replace(found.concat, last)

    def _constant(self, found: Parts, op: str, values: Array, edit: Rewriter) -> Tensor:
        dtype = found.parts[0].source.dtype
        assert dtype is not None
        shaped = values.reshape(-1, *[1] * (found.rank - 2))
        constant = fold(Folded(dtype, shaped.shape, lambda: shaped), channel_axis=0)
        return edit.constant(constant, f"{found.concat.label}.{op.lower()}")


def _part(tensor: Tensor | None, rank: int, facts: Facts) -> Part | None:
    """The part of another tensor's channels that `tensor` is, with what is done to it."""
    nodes: list[Node] = []
    while len(nodes) <= _MOST_STEPS and tensor is not None:
        node = facts.sole_producer(tensor, *AFFINE_OPS, "Gather", "Slice")
        if node is None:
            return None
        if node.op in ("Gather", "Slice"):
            indices, source = _taken(node, facts), node.input(0)
            if indices is None or source is None or facts.rank(source) != rank:
                return None
            steps = _steps(nodes[::-1], Channels(len(indices), rank - 1 - _CHANNELS, rank), node.result, facts)
            return None if steps is None else Part(source, indices, steps)
        nodes.append(node)
        tensor = next((t for t in node.inputs[:2] if t is not None and t.constant is None), None)
    return None


def _steps(nodes: list[Node], channels: Channels, first: Tensor, facts: Facts) -> tuple[Affine, ...] | None:
    steps: list[Affine] = []
    data = first
    for node in nodes:
        affine = affine_at(node, channels, facts)
        if isinstance(affine, NoMatch) or affine.data is not data:
            return None
        steps.append(affine)
        data = node.result
    return tuple(steps)


def _taken(node: Node, facts: Facts) -> tuple[int, ...] | None:
    """The channels that a Gather or Slice takes, in order; None where they cannot be told or an axis is lost."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    size = shape[_CHANNELS] if shape is not None and len(shape) > _CHANNELS else None
    if not isinstance(size, int) or shape is None:
        return None
    if node.op == "Gather":
        indices = facts.ints(node.input(1))
        if indices is None or facts.rank(node.input(1)) != 1:
            return None
        if node.int_attr("axis", 0) not in (_CHANNELS, _CHANNELS - len(shape)):
            return None
        return tuple(i + size if i < 0 else i for i in indices)
    slices = axis_slices(node, facts)
    if slices is None or len(slices) != 1 or slices[0].step != 1:
        return None
    if slices[0].axis not in (_CHANNELS, _CHANNELS - len(shape)):
        return None
    return tuple(range(size)[slices[0].start : slices[0].end])
