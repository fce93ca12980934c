"""What all no-ops share: a node whose output is, bit for bit, one of its inputs becomes a wire."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Refused, Rule
from graphopt_passes.common.copying import can_copy


@dataclass(frozen=True)
class Wire:
    """The output of `node` equals `source`, and its readers may read that."""

    node: Node
    source: Tensor


@dataclass(frozen=True)
class Renaming:
    """The output of `node` equals `source`, but both names must stay: an Identity does it."""

    node: Node
    source: Tensor


class NoOp(Rule[Wire | Renaming]):
    """y = x: the readers of y read x; where y is a graph output, the node that makes x takes over y's name.

    When x's own name must stay too (x is an input, a constant, another output, or of an outer graph), the node becomes
    an Identity, unless its type has none.
    """

    @abstractmethod
    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        """The input that `node` returns unchanged: same values, shape and dtype; else why it does not."""

    def match(self, node: Node, facts: Facts) -> Wire | Renaming | NoMatch:
        if any(t is not None and t.is_used for t in node.outputs[1:]):
            return NoMatch("a further output is read", node)
        if not node.outputs or node.outputs[0] is None or not node.outputs[0].is_used:
            return NoMatch("nothing reads its output", node)
        source = self.source(node, facts)
        if isinstance(source, NoMatch):
            return source
        if facts.can_forward(node.result, source):
            return Wire(node, source)
        if node.op == "Identity":
            return NoMatch("its input and its output must both keep their names", node)
        if not can_copy(node.result, source, node.owner.opset):
            return Refused("its input and its output must both keep their names, and no Identity copies the type", node)
        return Renaming(node, source)

    def rewrite(self, found: Wire | Renaming, edit: Rewriter) -> None:
        if isinstance(found, Wire):
            edit.forward(found.node.result, found.source)
        else:
            edit.replace(found.node, edit.node("Identity", [found.source], name=found.node.name))


def returned(tensor: Tensor | None, node: Node) -> Tensor | NoMatch:
    """The input itself, which a valid node of these operators has."""
    return tensor if tensor is not None else NoMatch("its input is left out", node)
