"""One affine operator that several linear ones read: it moves into the weights and biases of all of them."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.common.whole_blocks import ends_block
from graphopt_passes.vertical.affine import AFFINE_OPS, Affine, affine_at
from graphopt_passes.vertical.fold_before import enters, input_channels, take_in
from graphopt_passes.vertical.linear import Linear, linear_at

# A fan of more readers than this is not looked at.
_MOST_READERS = 16


@dataclass(frozen=True)
class AffineThenReaders:
    """Each of `readers` with its own view of the affine operator that all of them read."""

    readers: tuple[tuple[Affine, Linear], ...]


class FoldAffineIntoReaders(Rule[AffineThenReaders]):
    """Wⱼ·(s·x + t) + bⱼ = (Wⱼ·s)·x + (Wⱼ·t + bⱼ) for every reader j of s·x + t, s and t one number an input channel.

    All that reads s·x + t is Conv, ConvTranspose, Gemm or MatMul with constant weights, and each can take it in as
    `fold-affine-before-conv` and `fold-affine-before-matmul` say; else it would have to be computed still.

    Opsets: all. Exactness: reassociates. Source: ONNX operators Conv, Gemm, MatMul, BatchNormalization; pre-activation
    networks such as DenseNet, arXiv 1608.06993.
    """

    roots = AFFINE_OPS
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> AffineThenReaders | NoMatch:
        result = node.output(0)
        if result is None or result.is_output or not 2 <= len(result.consumers) <= _MOST_READERS:
            return NoMatch("not several nodes read it, or it is an output", node)
        readers: list[tuple[Affine, Linear]] = []
        for consumer in result.consumers:
            linear = _reader(consumer, facts)
            if linear is None or linear.data is not result or consumer.graph is not node.graph:
                return NoMatch("a reader is no linear operator of constant weight", consumer)
            affine = affine_at(node, input_channels(linear, facts), facts)
            if isinstance(affine, NoMatch):
                return affine
            problem = enters(affine, linear, facts)
            if problem is not None:
                return problem
            readers.append((affine, linear))
        if whole := ends_block(node, facts):
            return whole
        return AffineThenReaders(tuple(readers))

    def rewrite(self, found: AffineThenReaders, edit: Rewriter) -> None:
        for affine, linear in found.readers:
            take_in(affine, linear, edit)


def _reader(consumer: Node, facts: Facts) -> Linear | None:
    """The view of a reader, with the Add of its bias where a MatMul has one."""
    if consumer.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    if consumer.op == "MatMul":
        total = facts.sole_consumer(consumer.output(0), "Add")
        biased = linear_at(total, facts) if total is not None else None
        if biased is not None:
            return biased
    return linear_at(consumer, facts)
