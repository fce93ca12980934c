"""A 1x1 conv of a Concat without the Concat: a conv of each part, and their sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Constant, LazyConstant, Node, Tensor
from graphopt.provenance import rules_of
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt.targets import Target
from graphopt_passes.common.folding import copies_much
from graphopt_passes.concats.segments import concat_axis, length
from graphopt_passes.siblings.conv_form import conv_form, conv_weight
from graphopt_passes.siblings.weights import Weight

JOIN = "join-summed-convs"
# Each part beyond the first costs a conv and a sum: more of them never pay.
MOST_PARTS = 4


@dataclass(frozen=True)
class ConvOfConcat:
    """A 1x1 `conv` of the `parts`, with `widths` channels, which only it reads side by side."""

    conv: Node
    weight: Weight
    parts: tuple[Tensor, ...]
    widths: tuple[int, ...]


class DivideConvOfConcat(Rule[ConvOfConcat]):
    """Conv(Concat(x1, x2, ..., axis=1), [W1 W2 ...], b) = Conv(x1, W1, b) + Conv(x2, W2) + ...

    W is a constant [O, ΣC_i, 1, ...], group 1; x_i is [N, C_i, ...] with C_i known; nothing else reads the Concat. It
    pays where the Concat's copy costs more than the sum of a few output channels: not for TensorRT, which writes the
    x_i side by side. The other way round: `JoinSummedConvs`; both ask the cost model.

    Opsets: Add 7 on. Exactness: reassociates.
    """

    roots = ("Conv",)
    exactness = Exactness.REASSOCIATES
    trades = True

    def match(self, node: Node, facts: Facts) -> ConvOfConcat | NoMatch:
        concat = facts.sole_producer(node.input(0), "Concat")
        if concat is None or concat_axis(concat, facts) != 1 or facts.opset(node) < 7:
            return NoMatch("no Concat of channels feeds it alone", node)
        if facts.target is Target.TENSORRT:
            return NoMatch("TensorRT writes the parts of a Concat side by side", node)
        form, weight = conv_form(node, facts), conv_weight(node, facts)
        if form is None or weight is None or form.group != 1 or set(form.kernel) != {1} or weight.dequantizer:
            return NoMatch("it is no 1x1 conv of group 1 with a constant weight", node)
        if copies_much(weight.tensor):
            return NoMatch("its weight is shared with other nodes and would be stored twice", node)
        parts = tuple(t for t in concat.inputs if t is not None)
        widths = tuple(w for t in parts if (w := length(t, 1)) is not None)
        if not 2 <= len(parts) <= MOST_PARTS or len(widths) != len(parts) or sum(widths) != form.inputs:
            return NoMatch("the Concat has too many inputs, or inputs of unknown width", node)
        if 0 in widths:
            return NoMatch("an input is empty", node)
        if JOIN in rules_of(node):
            return Refused(f"{JOIN} made it", node)
        return ConvOfConcat(node, weight, parts, widths)

    def rewrite(self, found: ConvOfConcat, edit: Rewriter) -> None:
        conv, values, start = found.conv, found.weight.values, 0
        total: Node | None = None
        for part, width in zip(found.parts, found.widths, strict=True):
            piece = edit.constant(_columns(values, start, width), found.weight.tensor.name)
            made = edit.like(conv, [part, piece, *(conv.inputs[2:] if total is None else ())])
            total = made if total is None else edit.node("Add", [total.result, made.result])
            start += width
        assert total is not None
        edit.replace(conv, total)


def _columns(weight: Constant, start: int, width: int) -> LazyConstant:
    """The part of a conv's weight that some of its input channels meet."""
    shape = (weight.shape[0], width, *weight.shape[2:])
    return LazyConstant(weight.dtype, shape, lambda: np.ascontiguousarray(weight.array()[:, start : start + width]))
