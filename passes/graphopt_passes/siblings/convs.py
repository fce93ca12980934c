"""Sibling convolutions: one tensor, several equal kernels, one conv with all outputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Exactness, NoMatch, Rewriter, Rule
from graphopt_passes.siblings.branches import Branch, Piece, arrange, follow, hand_out, sink
from graphopt_passes.siblings.channels import Axis, concatenate
from graphopt_passes.siblings.conv_form import conv_bias, conv_form, conv_weight
from graphopt_passes.siblings.fans import Fans
from graphopt_passes.siblings.followers import follower
from graphopt_passes.siblings.weights import join_biases, join_weights


@dataclass(frozen=True)
class Siblings:
    """Convs to be merged, as pieces in the order of the merged conv's channels."""

    pieces: tuple[Piece, ...]
    axis: Axis
    facts: Facts

    @property
    def branches(self) -> tuple[Branch, ...]:
        """All branches in the order of their channels."""
        return tuple(b for p in self.pieces for b in p.branches)


class SiblingConvs(Rule[Siblings]):
    """What the merges of convs with one form have in common: they differ in the siblings that they choose."""

    roots = ("Conv",)
    exactness = Exactness.REASSOCIATES
    trades = True

    @abstractmethod
    def key(self, conv: Node, facts: Facts) -> Hashable:
        """What siblings have in common; None when `conv` can have none."""

    @abstractmethod
    def choose(self, pieces: tuple[Piece, ...]) -> tuple[Piece, ...] | str:
        """The pieces to merge, or why not."""

    def match(self, conv: Node, facts: Facts) -> Siblings | NoMatch:
        if conv.input(0) is None or self.key(conv, facts) is None:
            return NoMatch("its weight or bias is computed, shared or overridable, or it has a group", conv)
        group = facts.shared(Fans).group(self.name, conv, conv.inputs[0], lambda n: self.key(n, facts))  # type: ignore[arg-type]
        if not group:
            return NoMatch("the first of its siblings stands for all", conv)
        if len(group) < 2:
            return NoMatch("no sibling has its kernel, strides, dilations and pads", conv)
        weights = [conv_weight(c, facts) for c in group]
        axis = Axis(1, len(weights[0].shape) if weights[0] is not None else 0)
        branches = [Branch(c, w.width) for c, w in zip(group, weights, strict=True) if w is not None]
        pieces = self.choose(arrange(sink(branches, axis, facts), axis, facts))
        return NoMatch(pieces, conv) if isinstance(pieces, str) else Siblings(pieces, axis, facts)

    def rewrite(self, found: Siblings, edit: Rewriter) -> None:
        branches, facts = found.branches, found.facts
        conv = join_convs([b.head for b in branches], facts, edit)
        last = follow(branches, conv, found.axis, facts, edit, concatenate)
        hand_out(found.pieces, last, found.axis, edit)


def join_convs(convs: Sequence[Node], facts: Facts, edit: Rewriter) -> Node:
    """One conv with the outputs of `convs`, which have one form with group 1, one after the other."""
    weights = [w for c in convs if (w := conv_weight(c, facts)) is not None]
    widths = [w.width for w in weights]
    weight = join_weights(weights, edit, concatenate, (sum(widths), *weights[0].shape[1:]))
    biases = [conv_bias(c, facts) for c in convs]
    dtype = next((b.values.dtype for b in biases if b is not None), weights[0].values.dtype)
    return edit.like(convs[0], [convs[0].inputs[0], weight, join_biases(biases, widths, dtype, edit, concatenate)])


class MergeAdjacentConvs(SiblingConvs):
    """Concat(f(Conv(x, W1, b1)), f(Conv(x, W2, b2)), ...) = f(Conv(x, [W1; W2; ...], [b1; b2; ...])).

    Siblings on one tensor whose results, behind equal operators f (activations, affine per channel), one Concat takes
    side by side on the axis of channels. W_i is [O_i, C, *kernel] with any O_i; a missing bias is zeros. The convs have
    equal kernel, strides, dilations and effective pads, and group 1.

    Opsets: all. Exactness: reassociates (a runtime may sum in another order for another number of outputs).
    """

    def key(self, conv: Node, facts: Facts) -> Hashable:
        form = conv_form(conv, facts)
        if form is None or form.group != 1:
            return None
        axis = Axis(1, len(form.kernel) + 2)
        weight = conv_weight(conv, facts)
        branch = Branch(conv, weight.width if weight is not None else 0)
        while (step := follower(branch.end, branch.width, axis, facts)) is not None:
            branch = Branch(conv, branch.width, (*branch.chain, step))
        concat = facts.sole_consumer(branch.end, "Concat")
        return None if concat is None else (form, concat, tuple(f.key for f in branch.chain))

    def choose(self, pieces: tuple[Piece, ...]) -> tuple[Piece, ...] | str:
        longest = max(pieces, key=lambda p: len(p.branches))
        if longest.concat is None or len(longest.branches) < 2:
            return "no Concat takes two of its siblings side by side"
        return (longest,)


class MergeSiblingConvs(SiblingConvs):
    """f(Conv(x, W1, b1)), f(Conv(x, W2, b2)), ... = Split(f(Conv(x, [W1; W2; ...], [b1; b2; ...]))).

    Siblings on one tensor, any number of them. W_i is [O_i, C, *kernel] with any O_i; a missing bias is zeros; f are
    the operators that follow all of them alike. The channels are ordered so that what one Concat takes side by side is
    one part; the Split's sizes are the O_i, or their sums.

    The convs have equal kernel, strides, dilations and effective pads, and group 1. Opsets: all (Split by attribute
    before 13). Exactness: reassociates.
    """

    def key(self, conv: Node, facts: Facts) -> Hashable:
        form = conv_form(conv, facts)
        return form if form is not None and form.group == 1 else None

    def choose(self, pieces: tuple[Piece, ...]) -> tuple[Piece, ...] | str:
        return pieces


class MergeEqualSiblingConvs(SiblingConvs):
    """The same as `MergeSiblingConvs` for siblings with equal numbers of outputs only: their Split has equal parts.

    What it leaves apart may make the difference: some runtimes split into equal parts at less cost. Tried where merging
    all siblings did not pay. Opsets, conditions and exactness are those of `MergeSiblingConvs`.
    """

    def key(self, conv: Node, facts: Facts) -> Hashable:
        form, weight = conv_form(conv, facts), conv_weight(conv, facts)
        return None if form is None or form.group != 1 or weight is None else (form, weight.width)

    def choose(self, pieces: tuple[Piece, ...]) -> tuple[Piece, ...] | str:
        return pieces
