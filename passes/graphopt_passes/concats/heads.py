"""Heads of attention that a Split tells apart before each is transposed: transposed once, told apart after it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Refused, Rule
from graphopt.targets import Target
from graphopt_passes.common.arguments import permutation
from graphopt_passes.common.cutting import divide
from graphopt_passes.common.dividing import divided_last_axis
from graphopt_passes.common.splits import split_axis, split_sizes

Perm = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """What follows one result of the Split: `heads` of equal width, and the Transpose of them by `perm`."""

    heads: int
    leading: tuple[int, ...]
    width: int
    transpose: Node
    perm: Perm


@dataclass(frozen=True)
class DividedHeads:
    """`source` is split along its last axis into `parts`; most of them are transposed by `perm`."""

    source: Tensor
    parts: tuple[Part, ...]
    perm: Perm


class SinkSplitBelowHeads(Rule[DividedHeads]):
    """Transpose(Reshape(x_i, [..., h_i, d]), p_i), x_1, x_2, ... = Split(x, (h_1·d, h_2·d, ...), axis=-1)
    = Transpose(y_i, p⁻¹∘p_i), y_1, ... = Split(Transpose(Reshape(x, [..., Σh, d]), p), (h_1, h_2, ...), axis=p⁻¹(h)).

    x is [..., Σh·d]: query, key and value of h_i heads, d wide, made by one product. The Reshapes divide the last axis
    alone; p is the permutation that most parts have (a key may be transposed further: runtimes take that into the
    product behind it). Nothing else reads what is between. The other dimensions may be unknown. Not for TensorRT where
    x is a product without a bias: it takes the product apart again (t5_encoder, TensorRT-RTX 1.7: 63 kernels become
    68), while one with a bias gains (bert_tiny: 30 become 26).

    Opsets: Reshape 5 on. Exact. Source: ONNX operators Split, Reshape, Transpose.
    """

    roots = ("Split",)
    trades = True

    def match(self, node: Node, facts: Facts) -> DividedHeads | NoMatch:
        source, axis = node.input(0), split_axis(node, facts)
        if source is None or source.shape is None or axis is None or axis != len(source.shape) - 1:
            return NoMatch("it does not split the last axis", node)
        sizes = split_sizes(node, axis, facts)
        if sizes is None or len(sizes) < 2:
            return NoMatch("its parts are not known, or it has one", node)
        parts = []
        for tensor in node.outputs:
            part = None if tensor is None else _part(tensor, facts)
            if part is None:
                return NoMatch("a part is not told apart by heads and transposed, and nothing else", node)
            parts.append(part)
        if len({p.width for p in parts}) > 1:
            return NoMatch("its heads have several widths", node)
        if facts.target is not Target.ONNXRUNTIME and facts.producer(source, "MatMul") is not None:
            return Refused("TensorRT makes one batched product of it, which writes the heads where they belong", node)
        ((perm, _),) = Counter(p.perm for p in parts).most_common(1)
        return DividedHeads(source, tuple(parts), perm)

    def rewrite(self, found: DividedHeads, edit: Rewriter) -> None:
        first, perm = found.parts[0], found.perm
        heads = [p.heads for p in found.parts]
        target = np.array([*first.leading, sum(heads), first.width], np.int64)
        reshaped = edit.node("Reshape", [found.source, edit.constant(target, f"{found.source.name}.heads")])
        transposed = edit.node("Transpose", [reshaped.result], {"perm": perm})
        split = divide(transposed.result, heads, perm.index(len(perm) - 2), edit)
        made = list(split.outputs)
        edit.replace_each([p.transpose if p.perm == perm else None for p in found.parts], split)
        for part, tensor in zip(found.parts, made, strict=True):
            if part.perm != perm:
                rest = tuple(perm.index(axis) for axis in part.perm)
                edit.replace(part.transpose, edit.like(part.transpose, [tensor], perm=rest))


def _part(tensor: Tensor, facts: Facts) -> Part | None:
    """How `tensor` is told apart by heads that are transposed; None when it is not, or something else reads it."""
    reshape = facts.sole_consumer(tensor, "Reshape")
    divided = divided_last_axis(reshape, 2, facts) if reshape is not None else None
    if reshape is None or divided is None or reshape.input(0) is not tensor:
        return None
    transpose = facts.sole_consumer(reshape.result, "Transpose")
    perm = permutation(transpose, facts) if transpose is not None else None
    if transpose is None or perm is None or len(perm) != len(divided.leading) + 2:
        return None
    heads, width = divided.tail
    return Part(heads, divided.leading, width, transpose, perm)
