"""Expands that broadcasting does anyway."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.pointwise import BROADCASTING, is_pointwise
from graphopt_passes.common.shapes import broadcasts_into

# PRelu broadcasts its slope only, not the tensor
_BOTH_WAYS = tuple(sorted(BROADCASTING - {"PRelu"}))


@dataclass(frozen=True)
class Broadcast:
    """Input `index` of `node` may be `source`, which an Expand enlarges."""

    node: Node
    index: int
    source: Tensor


class DropExpandBeforeBroadcast(Rule[Broadcast]):
    """f(Expand(x, s), y) = f(x, y) where f broadcasts and the shape of Expand(x, s) broadcasts into that of y.

    y is another input of f that is not changed at the same time. Opset 8 on. Exact.
    """

    roots = _BOTH_WAYS

    def match(self, node: Node, facts: Facts) -> Broadcast | NoMatch:
        if not is_pointwise(node.op, facts.opset(node)):
            return NoMatch("it is of an opset before broadcasting", node)
        for index, tensor in enumerate(node.inputs):
            expand = facts.producer(tensor, "Expand")
            source = expand.input(0) if expand is not None else None
            if tensor is None or source is None or source.shape is None or tensor.shape is None:
                continue
            others = [t for i, t in enumerate(node.inputs) if i != index and t is not None]
            if any(other.shape is not None and broadcasts_into(tensor.shape, other.shape) for other in others):
                return Broadcast(node, index, source)
        return NoMatch("no input is an Expand that another input makes needless", node)

    def rewrite(self, found: Broadcast, edit: Rewriter) -> None:
        inputs = list(found.node.inputs)
        inputs[found.index] = found.source
        edit.replace(found.node, edit.like(found.node, inputs))
