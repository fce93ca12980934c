"""Parallel convolutions of one tensor that meet in an Add: one convolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt_passes.common.folding import (
    MOST_COPIED_BYTES,
    Folded,
    exact_values,
    finite_vector,
    fold,
    may_round,
    peak,
    sum_of_shifts,
)
from graphopt_passes.vertical.affine import AFFINE_OPS, Channels, affine_at
from graphopt_passes.vertical.fold_before import keeps_shape
from graphopt_passes.vertical.geometry import Window, window
from graphopt_passes.vertical.kernels import Branch, Hull, common_hull, diagonal, products, summed_kernel
from graphopt_passes.vertical.linear import ConvLinear, linear_at

# A sum of more terms is looked at in parts, so that a match stays small.
MOST_TERMS = 32


@dataclass(frozen=True)
class ParallelConvs:
    """A sum, `branches` of which are convolutions of one tensor; `others` are its other terms."""

    total: Node
    conv: ConvLinear
    branches: tuple[Branch, ...]
    hull: Hull
    others: tuple[Tensor, ...]

    @property
    def enlarges(self) -> bool:
        """Whether the one convolution multiplies more than all of its parts."""
        first = self.branches[0]
        merged = products(first.out_channels, first.in_channels, self.hull.group, self.hull.window.kernel)
        return merged > sum(b.products for b in self.branches)

    @property
    def copies_much(self) -> bool:
        """Whether weights that other nodes read too would stay beside a large merged one."""
        if all(w.sole_consumer is not None for w in _weights(self.branches)):
            return False
        first = self.branches[0]
        size = products(first.out_channels, first.in_channels, self.hull.group, self.hull.window.kernel)
        return size * self.conv.weights.nbytes // self.conv.weights.size > MOST_COPIED_BYTES


class _MergeParallel(Rule[ParallelConvs]):
    """Σ Conv(x, Wⱼ, bⱼ) = Conv(x, Σ Wⱼ, Σ bⱼ), kernels padded with zeros to a common hull."""

    roots = ("Add",)
    exactness = Exactness.REASSOCIATES
    needs_finite = True

    def find(self, node: Node, facts: Facts) -> ParallelConvs | NoMatch:
        """The largest group of branches of one tensor in the sum that ends at `node`."""
        if facts.sole_consumer(node.output(0), "Add") is not None:
            return NoMatch("it is part of a larger sum", node)
        if facts.opset(node) < 7:
            return NoMatch("before opset 7 a sum broadcasts in its own way", node)
        terms = sum_terms(node, facts)
        if any(map(may_round, terms)):
            return NoMatch("it adds a constant that is large enough to round the other terms, which may be meant", node)
        convs = [(t, c) for t in terms if (c := _conv(t, facts)) is not None]
        for _, conv in convs:
            found = _group(node, conv, terms, facts)
            if found is not None:
                return found
        return NoMatch("no two of its terms are convolutions of one tensor with windows that fit", node)

    def rewrite(self, found: ParallelConvs, edit: Rewriter) -> None:
        first, hull, weights = found.branches[0], found.hull, found.conv.weights
        branches = found.branches
        shape = (first.out_channels, first.in_channels // hull.group, *hull.window.kernel)
        top = float(sum(peak(w.constant) for w in _weights(branches) if w.constant is not None))
        folded = Folded(weights.dtype, shape, lambda: summed_kernel(branches, hull))
        all_convs = len(_weights(branches)) == len(branches)
        weight = edit.constant(
            fold(folded, channel_axis=0, bounds=(1.0, top) if all_convs else None), found.conv.weight.name
        )
        shifts = [shift for branch in branches if (shift := branch.bias()).any()]
        total = sum_of_shifts(weights.dtype, *shifts) if shifts else np.zeros(first.out_channels)
        bias = None
        if total.any():
            values = Folded(weights.dtype, total.shape, lambda: total)
            finite_vector(values.array().astype(np.float64), "a folded bias")
            bias = edit.constant(values, f"{weight.name}.bias")
        made = edit.like(
            found.conv.node,
            [found.conv.data, weight, bias],
            kernel_shape=hull.window.kernel,
            pads=hull.window.pads,
            dilations=hull.window.dilations,
            group=hull.group,
            auto_pad=None,
        )
        for other in found.others:
            made = edit.node("Add", [made.result, other])
        edit.replace(found.total, made)


class MergeParallelConvs(_MergeParallel):
    """Σ Conv(x, Wⱼ, bⱼ) = Conv(x, Σ Wⱼ, Σ bⱼ), where that multiplies no more than the branches did.

    Wⱼ is [C, I/groupⱼ, *kernelⱼ]. Kernels are padded with zeros, and pads enlarged, to the hull of all; groups become
    the fewest, which divide the others. Strides and dilations are equal, and so are the outputs' sizes. x itself is a
    1×1 kernel of ones on the diagonal, BatchNormalization and other affine operators have their scale there, an
    AveragePool that counts its pads is 1/|kernel| at every tap. Other terms of the sum stay.

    Opsets: 7 on. Exactness: reassociates. Source: Ding et al. 2021, RepVGG, arXiv 2101.03697, section 3.3; ACNet,
    arXiv 1908.03930; Diverse Branch Block, arXiv 2103.13425, table 1.
    """

    def match(self, node: Node, facts: Facts) -> ParallelConvs | NoMatch:
        found = self.find(node, facts)
        if isinstance(found, NoMatch):
            return found
        if found.enlarges:
            return NoMatch("the common kernel is larger than the branches'", node)
        if found.copies_much:
            return Refused("the branches' weights are shared with other nodes and would be stored twice", node)
        return found


class EnlargeParallelConvs(_MergeParallel):
    """Σ Conv(x, Wⱼ, bⱼ) = Conv(x, Σ Wⱼ, Σ bⱼ), where the common kernel multiplies more than the branches did.

    As `merge-parallel-convs`, for 1×3 beside 3×1 and the like: fewer kernels and less traffic against more products,
    which the cost model weighs.

    Opsets: 7 on. Exactness: reassociates. Source: ACNet, arXiv 1908.03930; Jia et al. 2019, TASO.
    """

    trades = True

    def match(self, node: Node, facts: Facts) -> ParallelConvs | NoMatch:
        found = self.find(node, facts)
        if isinstance(found, NoMatch):
            return found
        if not found.enlarges:
            return NoMatch("the common kernel is no larger than the branches'", node)
        if found.copies_much:
            return Refused("the branches' weights are shared with other nodes and would be stored twice", node)
        return found


def sum_terms(node: Node, facts: Facts) -> list[Tensor]:
    """The terms of the sum, through Adds that nothing else reads, at most `MOST_TERMS` of them."""
    terms: list[Tensor] = []
    stack = [t for t in reversed(node.inputs) if t is not None]
    while stack:
        tensor = stack.pop()
        inner = facts.sole_producer(tensor, "Add") if len(terms) + len(stack) < MOST_TERMS else None
        if inner is None:
            terms.append(tensor)
        else:
            stack.extend(t for t in reversed(inner.inputs) if t is not None)
    return terms


def _conv(tensor: Tensor, facts: Facts) -> ConvLinear | None:
    node = facts.sole_producer(tensor, "Conv")
    linear = linear_at(node, facts) if node is not None else None
    return linear if isinstance(linear, ConvLinear) and _window(linear) is not None else None


def _window(conv: ConvLinear) -> Window | None:
    return window(conv.node, conv.weights.shape[2:])


def _weights(branches: tuple[Branch, ...]) -> list[Tensor]:
    """The weights of those branches that are Convs."""
    return [w for b in branches if b.node is not None and b.node.op == "Conv" and (w := b.node.inputs[1]) is not None]


def _group(node: Node, conv: ConvLinear, terms: list[Tensor], facts: Facts) -> ParallelConvs | None:
    """All terms that are branches beside `conv`, whose windows fit with those before them."""
    branches, others = [_conv_branch(conv)], []
    hull: Hull | None = None
    for term in terms:
        if term is conv.node.result:
            continue
        branch = _branch(term, conv, facts)
        joined = common_hull([*branches, branch]) if branch is not None else None
        if branch is None or joined is None:
            others.append(term)
            continue
        branches.append(branch)
        hull = joined
    return ParallelConvs(node, conv, tuple(branches), hull, tuple(others)) if hull is not None else None


def _branch(term: Tensor, beside: ConvLinear, facts: Facts) -> Branch | None:
    """`term` as a convolution of the tensor that `beside` reads."""
    if term is beside.data:
        return _scaled(None, beside, lambda: (np.ones(beside.channels), np.zeros(beside.channels)))
    conv = _conv(term, facts)
    if conv is not None:
        return _conv_branch(conv) if conv.data is beside.data else None
    node = facts.sole_producer(term, *AFFINE_OPS, "AveragePool")
    if node is None or not any(t is beside.data for t in node.inputs):
        return None
    if node.op == "AveragePool":
        return _pool(node, beside)
    affine = affine_at(node, Channels(beside.in_channels, beside.from_right, beside.rank), facts)
    if isinstance(affine, NoMatch) or affine.data is not beside.data or not keeps_shape(affine, facts):
        return None
    return _scaled(node, beside, affine.vectors)


def _conv_branch(conv: ConvLinear) -> Branch:
    found = _window(conv)
    assert found is not None
    weights = conv.weights
    return Branch(
        conv.node, conv.data, conv.channels, conv.in_channels, conv.group, found,
        lambda: exact_values(weights), conv.bias_values,
    )  # fmt: skip


def _scaled(node: Node | None, beside: ConvLinear, vectors: Callable[[], tuple[Array, Array]]) -> Branch | None:
    """A number a channel: a 1x1 kernel with these on its diagonal; the channels must be as many as those of a Conv."""
    channels, rank = beside.in_channels, len(beside.weights.shape) - 2
    if channels != beside.channels:
        return None
    one = (1,) * rank
    return Branch(
        node, beside.data, channels, channels, channels, Window(one, one, one, (0,) * rank, (0,) * rank),
        lambda: diagonal(finite_vector(vectors()[0], "the scale of a branch"), one),
        lambda: finite_vector(vectors()[1], "the shift of a branch"),
    )  # fmt: skip


def _pool(node: Node, beside: ConvLinear) -> Branch | None:
    """An average over windows of a fixed number of elements."""
    found, channels = window(node), beside.in_channels
    if found is None or channels != beside.channels or node.int_attr("ceil_mode", 0):
        return None
    if any(found.pads) and not node.int_attr("count_include_pad", 0):
        return None
    share = np.full(channels, 1.0 / math.prod(found.kernel))
    return Branch(
        node, beside.data, channels, channels, channels, found,
        lambda: diagonal(share, found.kernel), lambda: np.zeros(channels),
    )  # fmt: skip
