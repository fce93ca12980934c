"""Branches that start from siblings: how far equal operators follow, where they meet again, how they are told apart.

The order of channels is chosen so that branches that meet side by side in one Concat are one piece there: a piece needs
no Split of its own, and where one piece is all there is, no Split at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt_passes.common.cutting import divide
from graphopt_passes.common.types import takes
from graphopt_passes.siblings.channels import Assemble, Axis
from graphopt_passes.siblings.followers import Follower, follower, join_followers


@dataclass(frozen=True)
class Branch:
    """A sibling, the number of channels that it makes, and the operators behind it that all its siblings have too."""

    head: Node
    width: int
    chain: tuple[Follower, ...] = ()

    @property
    def end(self) -> Tensor:
        """The tensor that the rest of the graph reads."""
        return self.chain[-1].result if self.chain else self.head.result

    @property
    def last(self) -> Node:
        """The node that makes `end`."""
        return self.chain[-1].nodes[-1] if self.chain else self.head


@dataclass(frozen=True)
class Piece:
    """Branches that are read as one tensor: by a Concat that takes them side by side, or a single branch."""

    branches: tuple[Branch, ...]
    concat: Node | None = None

    @property
    def width(self) -> int:
        """The number of channels."""
        return sum(b.width for b in self.branches)

    @property
    def is_whole_concat(self) -> bool:
        """Whether the Concat takes nothing else, so that the piece is its result."""
        return self.concat is not None and len(self.concat.inputs) == len(self.branches)


def sink(branches: Sequence[Branch], axis: Axis, facts: Facts) -> tuple[Branch, ...]:
    """The branches with all operators behind them that are equal for all of them."""
    result = list(branches)
    while True:
        found = [follower(b.end, b.width, axis, facts) for b in result]
        steps = [f for f in found if f is not None]
        if len(steps) != len(result) or len({f.key for f in steps}) != 1 or not _can_be_split(steps[0], facts):
            return tuple(result)
        result = [Branch(b.head, b.width, (*b.chain, f)) for b, f in zip(result, steps, strict=True)]


def _can_be_split(step: Follower, facts: Facts) -> bool:
    """Whether Split takes what the operator makes; what is not known is taken for float."""
    node = step.nodes[-1]
    made = node.int_attr("to", 0) if node.op == "Cast" else step.result.dtype
    return made is None or takes("Split", facts.opset(node), made)


def arrange(branches: Sequence[Branch], axis: Axis, facts: Facts) -> tuple[Piece, ...]:
    """The branches as pieces, runs in Concats first."""
    meeting: dict[Node, dict[Tensor, Branch]] = {}
    alone = []
    for branch in branches:
        concat = facts.sole_consumer(branch.end, "Concat")
        if concat is not None and concat.int_attr("axis", 1) in (axis.index, axis.index - axis.rank):
            meeting.setdefault(concat, {})[branch.end] = branch
        else:
            alone.append(Piece((branch,)))
    runs = [piece for concat, ends in meeting.items() for piece in _runs(concat, ends)]
    return (*runs, *alone)


def _runs(concat: Node, ends: dict[Tensor, Branch]) -> list[Piece]:
    """The branches that `concat` takes, by runs of neighbours."""
    runs: list[list[Branch]] = [[]]
    for tensor in concat.inputs:
        branch = ends.get(tensor) if tensor is not None else None
        if branch is not None:
            runs[-1].append(branch)
        elif runs[-1]:
            runs.append([])
    return [Piece(tuple(run), concat if len(run) > 1 else None) for run in runs if run]


def follow(
    branches: Sequence[Branch], head: Node, axis: Axis, facts: Facts, edit: Rewriter, assemble: Assemble
) -> Node:
    """The branches' equal operators once behind `head`, which makes all channels; returns the last node."""
    widths = [b.width for b in branches]
    last = head
    for level in range(len(branches[0].chain)):
        last = join_followers([b.chain[level] for b in branches], last.result, widths, axis, facts, edit, assemble)
    return last


def hand_out(pieces: Sequence[Piece], last: Node, axis: Axis, edit: Rewriter) -> None:
    """Gives each piece its channels of `last`'s result: by a Split, unless there is one piece only."""
    if len(pieces) == 1:
        replace_pieces(pieces, last, edit)
    else:
        replace_pieces(pieces, divide(last.result, [p.width for p in pieces], axis.index, edit), edit)


def replace_pieces(pieces: Sequence[Piece], maker: Node, edit: Rewriter) -> None:
    """Puts the outputs of `maker`, one a piece, in place of the pieces: branches, Concats, or inputs of Concats."""
    edit.replace_each([_stands_for(p) for p in pieces], maker)
    made = dict(zip(pieces, maker.outputs, strict=True))
    concats = dict.fromkeys(p.concat for p in pieces if p.concat is not None and not p.is_whole_concat)
    for concat in concats:
        starts = {p.branches[0].end: tensor for p, tensor in made.items() if p.concat is concat}
        gone = {b.end for p in pieces if p.concat is concat for b in p.branches}
        inputs = [starts.get(t, t) for t in concat.inputs if t is not None and (t in starts or t not in gone)]
        edit.replace(concat, edit.like(concat, inputs))


def _stands_for(piece: Piece) -> Node | None:
    """The node whose result the piece is; None for a part of a Concat."""
    if piece.is_whole_concat:
        return piece.concat
    return None if piece.concat is not None else piece.branches[0].last
