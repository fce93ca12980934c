"""Blocks that are written out and that runtimes fuse where they find them whole."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rule import Refused
from graphopt.targets import Target


def ends_block(node: Node, facts: Facts) -> Refused | None:
    """Why the multiplication `node` must stay: it ends a block that ONNX Runtime, the target, fuses as a whole.

    Taking it away saves one operation and hides the pattern: on an H200, ONNX Runtime then took 1.09 (batch 1) of the
    time for ViT-tiny that it takes with its own Gelu. TensorRT makes the same kernels of both.
    """
    if facts.target is not Target.ONNXRUNTIME or node.op != "Mul":
        return None
    if _halves_gelu(node, facts):
        return Refused("it is the last factor of a GELU, which runtimes fuse as a whole", node)
    if any(_is_rms_normalized(t, facts) for t in node.inputs):
        return Refused("it is the scale of an RMSNormalization, which runtimes fuse as a whole", node)
    return None


def _halves_gelu(node: Node, facts: Facts) -> bool:
    """Whether `node` is the last Mul of x·(1 + erf(..))·0.5, or of the tanh form."""
    product = facts.producer(node.input(0), "Mul") or facts.producer(node.input(1), "Mul")
    if product is None:
        return False
    sums = [facts.producer(t, "Add") for t in product.inputs]
    return any(facts.producer(t, "Erf", "Tanh") is not None for add in sums if add is not None for t in add.inputs)


def _is_rms_normalized(tensor: Tensor | None, facts: Facts) -> bool:
    """Whether `tensor` is x / sqrt(mean(x²) + ε), perhaps cast."""
    cast = facts.producer(tensor, "Cast")
    quotient = facts.producer(cast.input(0) if cast is not None else tensor, "Div")
    root = facts.producer(quotient.input(1), "Sqrt") if quotient is not None else None
    offset = facts.producer(root.input(0), "Add") if root is not None else None
    return offset is not None and any(facts.producer(t, "ReduceMean") is not None for t in offset.inputs)
