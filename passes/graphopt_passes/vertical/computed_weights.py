"""Biases behind Convs whose weights are computed at run time."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Array, LazyConstant, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.vertical.affine import Affine, Channels, affine_at


@dataclass(frozen=True)
class BareConv:
    """A Conv without a bias, and the Add of one number a channel behind it."""

    conv: Node
    affine: Affine


class AddBiasToConv(Rule[BareConv]):
    """Add(Conv(x, W), t) = Conv(x, W, t) for W that is not constant, [C, I/group, *kernel] with C known.

    t is a constant scalar or [C, 1, ...], with leading ones; it becomes [C].
    Constant weights are `fold-shift-into-conv`'s.

    Opsets: Conv 1 on, Add 7 on. Exactness: reassociates. Source: ONNX operator Conv.
    """

    roots = ("Add",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> BareConv | NoMatch:
        convs = (facts.sole_producer(t, "Conv") for t in node.inputs[:2])
        conv = next((c for c in convs if c is not None), None)
        if conv is None or facts.opset(node) < 7:
            return NoMatch("its input is no Conv that feeds it alone", node)
        if conv.input(2) is not None or facts.is_constant(conv.input(1)):
            return NoMatch("the Conv has a bias, or constant weights", node)
        weight = conv.input(1)
        count = weight.shape[0] if weight is not None and weight.shape else None
        rank = len(weight.shape) if weight is not None and weight.shape else 0
        if not isinstance(count, int) or rank < 3:
            return NoMatch("the number of channels is not known", node)
        affine = affine_at(node, Channels(count, rank - 2, rank), facts)
        if isinstance(affine, NoMatch):
            return affine
        if affine.data is not conv.result:
            return NoMatch("the constant is not on its other input", node)
        return BareConv(conv, affine)

    def rewrite(self, found: BareConv, edit: Rewriter) -> None:
        conv, affine = found.conv, found.affine
        (constant,) = affine.constants
        count = affine.channels.count

        def bias() -> Array:
            values = constant.array().reshape(-1)
            return values.repeat(count) if values.size != count else values

        made = edit.constant(LazyConstant(constant.dtype, (count,), bias), f"{conv.label}.bias")
        inputs: list[Tensor | None] = [conv.input(0), conv.input(1), made]
        edit.replace(affine.node, edit.like(conv, inputs))
