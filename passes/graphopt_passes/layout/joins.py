"""Transposes sink below Concat and Split."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import axis_of
from graphopt_passes.layout.sinking import pays, permuted_back, place_behind, transposed_input
from graphopt_passes.layout.transposes import Perm


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
