"""Reshapes whose target copies no dimension of their input."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.layout.reshapes import RESHAPES


@dataclass(frozen=True)
class LiteralReshape:
    """`outer` reshapes what another reshape made of `source`."""

    outer: Node
    source: Tensor


class SkipReshapeBeforeLiteral(Rule[LiteralReshape]):
    """Reshape(Reshape(x, s), t; allowzero=1) = Reshape(x, t; allowzero=1), t constant or not.

    With `allowzero` a 0 means 0, so that t says the same whatever shape its input has; a −1 is inferred from the number
    of elements, which is the same. The inner node may be any reshape, read by the outer alone. Opset 14 on. Exact.
    """

    roots = ("Reshape",)

    def match(self, node: Node, facts: Facts) -> LiteralReshape | NoMatch:
        inner = facts.sole_producer(node.input(0), *RESHAPES)
        source = inner.input(0) if inner is not None else None
        if source is None:
            return NoMatch("its input is no reshape that feeds it alone", node)
        if facts.opset(node) < 14 or node.int_attr("allowzero", 0) != 1:
            return NoMatch("a 0 of its target copies a dimension of its input", node)
        return LiteralReshape(node, source)

    def rewrite(self, found: LiteralReshape, edit: Rewriter) -> None:
        outer = found.outer
        edit.replace(outer, edit.like(outer, [found.source, outer.input(1)]))
