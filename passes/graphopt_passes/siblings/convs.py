"""Sibling convolutions: one tensor, several equal kernels, one conv with all outputs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt_passes.siblings.branches import Branch
from graphopt_passes.siblings.channels import Axis, concatenate
from graphopt_passes.siblings.conv_form import conv_bias, conv_form, conv_weight
from graphopt_passes.siblings.rule import AdjacentRule, EqualRule, SiblingRule, Siblings
from graphopt_passes.siblings.weights import Weight, join_biases, join_weights


class ConvRule(SiblingRule):
    """Siblings that are convs of group 1."""

    roots = ("Conv",)
    unfit = "its weight or bias is computed, overridable, or large and shared, or it has groups"
    apart = "no sibling has its kernel, strides, dilations and pads"

    def form(self, node: Node, facts: Facts) -> Hashable | None:
        form = conv_form(node, facts)
        return form if form is not None and form.group == 1 else None

    def branch(self, node: Node, facts: Facts) -> Branch:
        weight = conv_weight(node, facts)
        assert weight is not None
        return Branch(node, weight.width)

    def axis(self, node: Node) -> Axis:
        weight = node.input(1)
        assert weight is not None
        assert weight.shape is not None
        return Axis(1, len(weight.shape))

    def join(self, found: Siblings, edit: Rewriter) -> Node:
        weights = known_weights(found.heads, found.facts)
        widths = [w.width for w in weights]
        first = found.heads[0]
        weight = join_weights(weights, edit, concatenate, (sum(widths), *weights[0].shape[1:]))
        biases = [conv_bias(c, found.facts) for c in found.heads]
        bias = join_biases(biases, widths, output_dtype(first), edit, concatenate)
        return edit.like(first, [first.inputs[0], weight, bias])


def known_weights(convs: Sequence[Node], facts: Facts) -> list[Weight]:
    """The weights of convs that have a form."""
    return [w for c in convs if (w := conv_weight(c, facts)) is not None]


def output_dtype(node: Node) -> int:
    """The type of the numbers that a conv or product with a float weight computes in."""
    weight = node.input(1)
    assert weight is not None
    assert weight.dtype is not None
    return weight.dtype


class MergeAdjacentConvs(AdjacentRule, ConvRule):
    """Concat(f(Conv(x, W1, b1)), f(Conv(x, W2, b2)), ...) = f(Conv(x, [W1; W2; ...], [b1; b2; ...])).

    Siblings on one tensor whose results, behind equal operators f (activations, affine per channel), one Concat takes
    side by side on the axis of channels. W_i is [O_i, C, *kernel] with any O_i; a missing bias is zeros. The convs have
    equal kernel, strides, dilations and effective pads, and group 1. Weights may be plain, or DequantizeLinear of
    constants with one scale or one a channel.

    Opsets: all. Exactness: reassociates (a runtime may sum in another order for another number of outputs).
    """


class MergeSiblingConvs(ConvRule):
    """f(Conv(x, W1, b1)), f(Conv(x, W2, b2)), ... = Split(f(Conv(x, [W1; W2; ...], [b1; b2; ...]))).

    Siblings on one tensor, any number of them. W_i is [O_i, C, *kernel] with any O_i; a missing bias is zeros; f are
    the operators that follow all of them alike. The channels are ordered so that what one Concat takes side by side is
    one part; the Split's sizes are the O_i, or their sums.

    The convs have equal kernel, strides, dilations and effective pads, and group 1. Opsets: all (Split by attribute
    before 13). Exactness: reassociates.
    """


class MergeEqualSiblingConvs(EqualRule, ConvRule):
    """The same as `MergeSiblingConvs` for siblings with equal numbers of outputs only: their Split has equal parts.

    What it leaves apart may make the difference: some runtimes split into equal parts at less cost. Tried where merging
    all siblings did not pay. Opsets, conditions and exactness are those of `MergeSiblingConvs`.
    """
