"""What all merges of siblings have in common: finding the group and its branches, and replacing them by one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.siblings.branches import Branch, Piece, arrange, follow, hand_out, sink
from graphopt_passes.siblings.channels import Axis, concatenate
from graphopt_passes.siblings.fans import Fans
from graphopt_passes.siblings.followers import follower


@dataclass(frozen=True)
class Siblings:
    """Nodes to be merged, as pieces in the order of the merged node's channels."""

    pieces: tuple[Piece, ...]
    axis: Axis
    facts: Facts

    @property
    def branches(self) -> tuple[Branch, ...]:
        """All branches in the order of their channels."""
        return tuple(b for p in self.pieces for b in p.branches)

    @property
    def heads(self) -> tuple[Node, ...]:
        """The siblings in the order of their channels."""
        return tuple(b.head for b in self.branches)


class SiblingRule(Rule[Siblings]):
    """A merge of all siblings of one form. The group's first node in the order of readers stands for it."""

    exactness = Exactness.REASSOCIATES
    trades = True
    unfit: ClassVar[str] = "its weight or bias is computed, overridable, or large and shared"
    apart: ClassVar[str] = "no sibling on its tensor has the same form"

    @abstractmethod
    def form(self, node: Node, facts: Facts) -> Hashable | None:
        """What siblings have in common; None when `node` can have none."""

    @abstractmethod
    def branch(self, node: Node, facts: Facts) -> Branch:
        """The branch that starts at `node`, which has a form."""

    @abstractmethod
    def axis(self, node: Node) -> Axis:
        """The axis of output channels of `node`, which has a form."""

    @abstractmethod
    def join(self, found: Siblings, edit: Rewriter) -> Node:
        """One node that makes all channels."""

    def key(self, node: Node, facts: Facts) -> Hashable | None:
        """What the siblings to be merged have in common: their form, and what the choice of siblings asks for."""
        return self.form(node, facts)

    def choose(self, pieces: tuple[Piece, ...], facts: Facts) -> tuple[Piece, ...] | str:
        """The pieces to merge, or why none. One piece alone needs no Split: it is an AdjacentRule's to merge."""
        return pieces if len(pieces) > 1 else "all its siblings meet side by side in one Concat"

    def match(self, node: Node, facts: Facts) -> Siblings | NoMatch:
        shared, fans = node.input(0), facts.shared(Fans)
        if shared is not None and fans.is_alone(self.name, node, shared):
            return NoMatch(self.apart, node)
        if shared is None or self.key(node, facts) is None:
            return NoMatch(self.unfit, node)
        group = fans.group(self.name, node, shared, lambda n: self.key(n, facts))
        if not group:
            return NoMatch("the first of its siblings stands for all", node)
        if len(group) < 2:
            return NoMatch(self.apart, node)
        axis = self.axis(node)
        branches = sink([self.branch(n, facts) for n in group], axis, facts)
        pieces = self.choose(arrange(branches, axis, facts), facts)
        return NoMatch(pieces, node) if isinstance(pieces, str) else Siblings(pieces, axis, facts)

    def rewrite(self, found: Siblings, edit: Rewriter) -> None:
        joined = self.join(found, edit)
        last = follow(found.branches, joined, found.axis, found.facts, edit, concatenate)
        hand_out(found.pieces, last, found.axis, edit)


class AdjacentRule(SiblingRule):
    """A merge of the siblings that one Concat takes side by side, behind equal operators: it leaves no Split."""

    def key(self, node: Node, facts: Facts) -> Hashable | None:
        form = self.form(node, facts)
        if form is None:
            return None
        axis, branch = self.axis(node), self.branch(node, facts)
        while (step := follower(branch.end, branch.width, axis, facts)) is not None:
            branch = Branch(node, branch.width, (*branch.chain, step))
        concat = facts.sole_consumer(branch.end, "Concat")
        if concat is None:
            return None
        # not the Concat itself: another merge may have put a shorter one in its place, which keeps the tensor
        return (form, concat.result, tuple(f.key for f in branch.chain))

    def choose(self, pieces: tuple[Piece, ...], facts: Facts) -> tuple[Piece, ...] | str:
        longest = max(pieces, key=lambda p: len(p.branches))
        if len(longest.branches) < 2:
            return "no Concat takes two of its siblings side by side"
        fitting = self.fitting(longest, facts)
        return fitting if isinstance(fitting, str) else (fitting,)

    def fitting(self, piece: Piece, facts: Facts) -> Piece | str:
        """The part of a run of neighbours that can be merged, or why none can."""
        return piece


class EqualRule(SiblingRule):
    """A merge of the siblings with equal numbers of channels: their Split has equal parts."""

    def key(self, node: Node, facts: Facts) -> Hashable | None:
        form = self.form(node, facts)
        return None if form is None else (form, self.branch(node, facts).width)
