"""If nodes whose condition is known."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Graph, Node
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule


@dataclass(frozen=True)
class KnownBranch:
    """The branch that an If always takes."""

    choice: Node
    branch: Graph


class InlineKnownBranch(Rule[KnownBranch]):
    """If(c) with constant c = the nodes of `then_branch` where c is true, of `else_branch` where it is false.

    A branch has no inputs: what it reads of outer graphs stays visible. Opset 1 on. Exact.
    """

    roots = ("If",)

    def match(self, node: Node, facts: Facts) -> KnownBranch | NoMatch:
        condition = facts.scalar(node.input(0))
        if condition is None:
            return NoMatch("its condition is computed at run time", node)
        branches = node.bodies.get("then_branch" if condition else "else_branch", ())
        if len(branches) != 1 or branches[0].inputs or len(branches[0].outputs) < len(node.outputs):
            return NoMatch("its branch is not well-formed", node)
        return KnownBranch(node, branches[0])

    def rewrite(self, found: KnownBranch, edit: Rewriter) -> None:
        edit.inline(found.choice, found.branch)
