"""Sibling grouped and depthwise convolutions: their channels are interleaved by group.

Output channel o of a conv with g groups reads input group o // (O / g). So the merged conv's outputs are, for each
group in turn, that group's outputs of every sibling; seen as [N, g, O/g, positions] the siblings are slices of axis 2.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Refused
from graphopt_passes.common.cutting import divide
from graphopt_passes.siblings.branches import Piece, follow
from graphopt_passes.siblings.channels import Assemble
from graphopt_passes.siblings.conv_form import conv_bias, conv_form
from graphopt_passes.siblings.convs import ConvRule, known_weights, output_dtype
from graphopt_passes.siblings.rule import Siblings
from graphopt_passes.siblings.weights import join_biases, join_weights


@dataclass(frozen=True)
class Interleave:
    """Puts arrays [O_i, ...] together as [g, sum(O_i / g), ...], flattened: group by group, sibling by sibling."""

    groups: int

    def __call__(self, arrays: Sequence[Array]) -> Array:
        """The joined array [sum(O_i), ...]."""
        grouped = [np.reshape(a, (self.groups, -1, *a.shape[1:])) for a in arrays]
        joined = np.concatenate(grouped, axis=1)
        return joined.reshape((-1, *joined.shape[2:]))


class MergeGroupedSiblingConvs(ConvRule):
    """Conv(x, W1, group=g), Conv(x, W2, group=g), ... = slices of Conv(x, interleave(W1, W2, ...), group=g).

    W_i is [O_i, C/g, *kernel] with any O_i, depthwise (g = C) included; a missing bias is zeros; operators that follow
    all of them alike sink through, their constants interleaved too. Behind them: Reshape to [N, g, O/g, positions],
    Split of axis 2 into O_i/g, Reshape to [N, O_i, *spatial]. The spatial sizes must be known for that.

    Equal kernel, strides, dilations, effective pads and groups. Opsets: 5 on (Reshape by input). Exactness:
    reassociates.
    """

    unfit = "its weight or bias is computed, overridable, or large and shared, or it has no groups"
    apart = "no sibling has its kernel, strides, dilations, pads and groups"

    def form(self, node: Node, facts: Facts) -> Hashable | None:
        form = conv_form(node, facts)
        return form if form is not None and form.group > 1 and facts.opset(node) >= 5 else None

    def match(self, node: Node, facts: Facts) -> Siblings | NoMatch:
        found = super().match(node, facts)
        if isinstance(found, NoMatch):
            return found
        if _positions(node) is None:
            return Refused("grouped siblings can only be told apart again where the spatial sizes are known", node)
        return found

    def choose(self, pieces: tuple[Piece, ...], facts: Facts) -> tuple[Piece, ...] | str:
        return tuple(Piece((b,)) for p in pieces for b in p.branches)  # interleaved: no run of neighbours is one part

    def join(self, found: Siblings, edit: Rewriter) -> Node:
        facts, first = found.facts, found.heads[0]
        assemble = self._assemble(found)
        weights = known_weights(found.heads, facts)
        widths = [w.width for w in weights]
        weight = join_weights(weights, edit, assemble, (sum(widths), *weights[0].shape[1:]))
        biases = [conv_bias(c, facts) for c in found.heads]
        bias = join_biases(biases, widths, output_dtype(first), edit, assemble)
        return edit.like(first, [first.inputs[0], weight, bias])

    def rewrite(self, found: Siblings, edit: Rewriter) -> None:
        positions = _positions(found.heads[0])
        assert positions is not None
        groups = found.heads[0].int_attr("group", 1)
        joined = self.join(found, edit)
        last = follow(found.branches, joined, found.axis, found.facts, edit, self._assemble(found))
        shares = [b.width // groups for b in found.branches]
        shape = (0, groups, sum(shares), math.prod(positions))
        grouped = edit.node("Reshape", [last.result, _shape(shape, edit)])
        parts = divide(grouped.result, shares, 2, edit)
        for branch, part in zip(found.branches, parts.outputs, strict=True):
            edit.replace(branch.last, edit.node("Reshape", [part, _shape((0, branch.width, *positions), edit)]))

    @staticmethod
    def _assemble(found: Siblings) -> Assemble:
        return Interleave(found.heads[0].int_attr("group", 1))


def _positions(conv: Node) -> tuple[int, ...] | None:
    """The spatial sizes of a conv's result, when they are known and none is 0."""
    shape = conv.result.shape
    sizes = [d for d in shape[2:] if isinstance(d, int) and d > 0] if shape is not None else []
    return tuple(sizes) if shape is not None and len(sizes) == len(shape) - 2 else None


def _shape(dims: tuple[int, ...], edit: Rewriter) -> Tensor:
    return edit.constant(np.array(dims, np.int64))
