"""From a Concat's input upwards, through operators that could be done below the Concat."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt_passes.siblings.followers import AFFINE, NORM, POINTWISE


def above(tensor: Tensor | None, facts: Facts) -> Tensor | None:
    """The tensor that the operator which makes `tensor` works on, element by element; None for any other operator."""
    node = _maker(tensor)
    if node is None:
        return None
    if node.op in POINTWISE or node.op == NORM:
        return node.input(0)
    if node.op not in AFFINE or len(node.inputs) != 2:
        return None
    gated = _gated(node)
    if gated is not None:
        return gated
    a, b = node.inputs
    if facts.is_constant(b):
        return a
    return b if facts.is_constant(a) else None


def _maker(tensor: Tensor | None) -> Node | None:
    """The node that makes `tensor`, when its own graph alone reads it once."""
    if tensor is None or tensor.producer is None or tensor.sole_consumer is None:
        return None
    return tensor.producer if tensor.sole_consumer.graph is tensor.graph else None


def _gated(node: Node) -> Tensor | None:
    """x of Mul(x, Sigmoid(x))."""
    if node.op != "Mul":
        return None
    for x, gate in (node.inputs, reversed(node.inputs)):
        maker = gate.producer if gate is not None else None
        if maker is not None and maker.op == "Sigmoid" and maker.input(0) is x:
            return x
    return None
