"""Convs on different tensors whose results are added: one conv on the tensors side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import LazyConstant, Node, Shape, Tensor
from graphopt.provenance import rules_of
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt.targets import Target
from graphopt_passes.common.folding import Folded, exact_values, finite_vector, sum_of_shifts
from graphopt_passes.siblings.conv_form import ConvForm, conv_bias, conv_form, conv_weight
from graphopt_passes.siblings.convs import output_dtype
from graphopt_passes.siblings.weights import Weight

ADDING = ("Add", "Sum")
DIVIDE = "divide-conv-of-concat"
# Longer sums are looked at in parts.
MOST_TERMS = 256
# Fewer convs than these are not worth a Concat to TensorRT (see the rule).
TENSORRT_TERMS = 4


@dataclass(frozen=True)
class SummedConvs:
    """The last node of a sum, the convs among its terms that become one, and the other terms."""

    last: Node
    convs: tuple[Node, ...]
    others: tuple[Tensor, ...]
    facts: Facts


class JoinSummedConvs(Rule[SummedConvs]):
    """Conv(x1, W1, b1) + Conv(x2, W2, b2) + ... + r = Conv(Concat(x1, x2, ...), [W1 W2 ...], b1 + b2 + ...) + r.

    x_i are different tensors with equal shapes but for their channels C_i; W_i is [O, C_i, *kernel] with one O; the
    convs have equal kernel, strides, dilations and effective pads, group 1 and plain constant weights; nothing else
    reads their results. The sum is a tree of Adds and Sums that broadcast nothing. ResNeXt's aggregated branches.

    Opsets: Add 7 on. Exactness: reassociates. When threes were joined, TensorRT-RTX 1.7 made 104
    kernels of HRNet instead of 105 and took 17 % more activation memory, so for TensorRT it takes more convs.
    """

    roots = ADDING
    exactness = Exactness.REASSOCIATES
    needs_finite = True
    trades = True

    def match(self, node: Node, facts: Facts) -> SummedConvs | NoMatch:
        if facts.opset(node) < 7:
            return NoMatch("before opset 7 broadcasting is an attribute", node)
        if facts.sole_consumer(node.output(0), *ADDING) is not None:
            return NoMatch("it is a part of a longer sum", node)
        terms = _terms(node, facts)
        classes: dict[object, list[Node]] = {}
        for term in terms:
            conv = facts.sole_producer(term, "Conv")
            key = _key(conv, facts) if conv is not None else None
            if conv is not None and key is not None and conv.graph is node.graph:
                classes.setdefault(key, []).append(conv)
        largest = max(classes.values(), key=len, default=[])
        if len(largest) < 2:
            return NoMatch("no two of its terms are convs of one form", node)
        if len(largest) < TENSORRT_TERMS and facts.target is Target.TENSORRT:
            return Refused(
                "TensorRT adds one conv's result while it computes the other, so joining a few saves nothing", node
            )
        if len({c.input(0) for c in largest}) < len(largest):
            return NoMatch("two of its convs read one tensor", node)
        if any(DIVIDE in rules_of(conv) for conv in largest):
            return Refused(f"{DIVIDE} made them", node)
        gone = {c.result for c in largest}
        return SummedConvs(node, tuple(largest), tuple(t for t in terms if t not in gone), facts)

    def rewrite(self, found: SummedConvs, edit: Rewriter) -> None:
        convs, first = found.convs, found.convs[0]
        weights = [w for c in convs if (w := conv_weight(c, found.facts)) is not None]
        data = edit.node("Concat", [c.input(0) for c in convs], {"axis": 1}).result
        inputs = [data, edit.constant(_weight(weights), weights[0].tensor.name), _bias(convs, found.facts, edit)]
        made = edit.like(first, inputs)
        for other in found.others:
            made = edit.node("Add", [made.result, other])
        edit.replace(found.last, made)


def _terms(last: Node, facts: Facts) -> list[Tensor]:
    """What the tree of additions that ends in `last` adds up, each of the sum's own shape."""
    terms: list[Tensor] = []
    stack = [last]
    while stack:
        node = stack.pop()
        for tensor in reversed(node.inputs):
            inner = facts.sole_producer(tensor, *ADDING) if len(terms) + len(stack) < MOST_TERMS else None
            if inner is not None and _adds_alike(inner, facts) and facts.same_shape(inner.result, last.result):
                stack.append(inner)
            elif tensor is not None:
                terms.append(tensor)
    return terms if _adds_alike(last, facts) else []


def _adds_alike(node: Node, facts: Facts) -> bool:
    """Whether all terms have the shape of the sum."""
    return all(facts.same_shape(t, node.result) and facts.same_type(t, node.result) for t in node.inputs)


def _key(conv: Node, facts: Facts) -> object | None:
    """What convs that become one have in common."""
    form, weight, data = conv_form(conv, facts), conv_weight(conv, facts), conv.input(0)
    if form is None or weight is None or data is None or data.shape is None or form.group != 1:
        return None
    others: Shape = (data.shape[0], *data.shape[2:])
    if weight.dequantizer is not None or None in others:
        return None
    bias = conv_bias(conv, facts)
    if bias is not None and bias.dequantizer is not None:
        return None
    return (*_geometry(form), weight.values.dtype, weight.width, others)


def _geometry(form: ConvForm) -> tuple[object, ...]:
    return (form.kernel, form.strides, form.dilations, form.pads)


def _weight(weights: Sequence[Weight]) -> LazyConstant:
    """The weights side by side on the axis of inputs."""
    first = weights[0]
    shape = (first.shape[0], sum(w.shape[1] for w in weights), *first.shape[2:])
    return LazyConstant(first.values.dtype, shape, lambda: np.concatenate([w.values.array() for w in weights], axis=1))


def _bias(convs: Sequence[Node], facts: Facts, edit: Rewriter) -> Tensor | None:
    """The sum of all biases, in float64 and rounded once. Raises RewriteRefusedError."""
    biases = [b for c in convs if (b := conv_bias(c, facts)) is not None]
    if not biases:
        return None
    dtype = output_dtype(convs[0])

    total = sum_of_shifts(dtype, *(exact_values(b.values) for b in biases))
    folded = Folded(dtype, total.shape, lambda: total)
    finite_vector(folded.array().astype(np.float64), "the sum of the biases")
    return edit.constant(folded, biases[0].tensor.name)
