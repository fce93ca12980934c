"""If nodes whose condition is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Graph, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Refused, Rule
from graphopt_passes.common.copying import can_copy


@dataclass(frozen=True)
class KnownBranch:
    """The branch that an If always takes."""

    choice: Node
    branch: Graph


class InlineKnownBranch(Rule[KnownBranch]):
    """If(c) with constant c = the nodes of `then_branch` where c is true, of `else_branch` where it is false.

    A branch has no inputs: what it reads of outer graphs stays visible. Not where a result would stay an Identity that
    its type does not have. Opset 1 on. Exact.
    """

    roots = ("If",)

    def match(self, node: Node, facts: Facts) -> KnownBranch | NoMatch:
        condition = facts.scalar(node.input(0))
        if condition is None:
            return NoMatch("its condition is computed at run time", node)
        branches = node.bodies.get("then_branch" if condition else "else_branch", ())
        if len(branches) != 1 or branches[0].inputs or len(branches[0].outputs) < len(node.outputs):
            return NoMatch("its branch is not well-formed", node)
        if not all(can_copy(old, new, node.owner.opset) for old, new in _copies(node, branches[0])):
            return Refused("two names of one result must stay, and no Identity copies its type", node)
        return KnownBranch(node, branches[0])

    def rewrite(self, found: KnownBranch, edit: Rewriter) -> None:
        edit.inline(found.choice, found.branch)


def _copies(choice: Node, branch: Graph) -> Iterator[tuple[Tensor, Tensor]]:
    """The results that stay Identities of what the branch returns: both names must stay, see `Facts.can_forward`."""
    renamed: set[Tensor] = set()
    for old, new in zip(choice.outputs, branch.outputs, strict=False):
        if old is None or not old.is_output:
            continue
        if new.graph is not branch or new.producer is None or new.constant is not None or new in renamed:
            yield old, new
        renamed.add(new)
