"""Products of transposed tensors as one operator, which ONNX Runtime's transpose optimizer leaves alone."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt.targets import Target
from graphopt_passes.common.arguments import permutation
from graphopt_passes.fused.biases import DOMAIN, is_own


@dataclass(frozen=True)
class TransposedProduct:
    """A product of `operands`; `turned` tells which of them are transposed in their last two axes first."""

    product: Node
    operands: tuple[Tensor, ...]
    turned: tuple[bool, ...]


class FuseTransposedProduct(Rule[TransposedProduct]):
    """MatMul(A, Transpose(B)) = com.microsoft::FusedMatMul(A, B, transB=1), and likewise for A.

    A and B are computed, of rank 3 at least, float32; the Transpose swaps the last two axes and the product alone reads
    it. ONNX Runtime does that itself, but moves such a Transpose upwards first, through the Split of query, key and
    value, where it takes the Transpose above the Split apart into one for each.

    Opsets: all; only for ONNX Runtime. Exactness: reassociates. Source: ONNX Runtime, docs/ContribOperators.md.
    """

    roots = ("MatMul",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> TransposedProduct | NoMatch:
        if facts.target is not Target.ONNXRUNTIME or not is_own(node, facts):
            return NoMatch("only ONNX Runtime has FusedMatMul, outside of functions", node)
        if node.result.dtype != TensorProto.FLOAT:
            return NoMatch("it is not of float32", node)
        sources = [_turned(t, facts) for t in node.inputs]
        operands = tuple(s or t for s, t in zip(sources, node.inputs, strict=True) if t is not None)
        if not any(sources) or len(operands) != 2:
            return NoMatch("neither operand is transposed in its last two axes for it alone", node)
        if any(t.constant is not None or (facts.rank(t) or 0) < 3 for t in operands):
            return NoMatch("an operand is a constant, or not surely of rank 3 at least", node)
        return TransposedProduct(node, operands, tuple(s is not None for s in sources))

    def rewrite(self, found: TransposedProduct, edit: Rewriter) -> None:
        edit.add_import(DOMAIN, 1)
        attrs = {name: 1 for name, is_turned in zip(("transA", "transB"), found.turned, strict=True) if is_turned}
        name = found.product.name
        edit.replace(found.product, edit.node("FusedMatMul", found.operands, attrs, domain=DOMAIN, name=name))


def _turned(tensor: Tensor | None, facts: Facts) -> Tensor | None:
    """B where `tensor` is B with its last two axes swapped, read by one node alone."""
    transpose = facts.sole_producer(tensor, "Transpose")
    perm = permutation(transpose, facts) if transpose is not None else None
    if transpose is None or perm is None or len(perm) < 2:
        return None
    rank = len(perm)
    return transpose.input(0) if perm == (*range(rank - 2), rank - 1, rank - 2) else None
