"""Biases behind products, which the operator after them can add.

ONNX Runtime makes one Gemm of MatMul and Add, whose CUDA kernel copies the bias to every row before it multiplies: a
launch more than a product whose bias is added by the next kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt_passes.blocks.terms import inner

DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class Biased:
    """`data` + `bias`: a product with a constant matrix, and a constant with one number a column."""

    data: Tensor
    bias: Tensor


def biased_product(tensor: Tensor | None, facts: Facts) -> Biased | None:
    """The product and the bias whose sum `tensor` is; None when it is none, or the product has other readers."""
    add = facts.producer(tensor, "Add")
    if add is None or tensor is None or tensor.is_output or facts.opset(add) < 7:
        return None
    for data, bias in (add.inputs, add.inputs[::-1]):
        product = inner(data, facts, "MatMul")
        if product is None or data is None or bias is None or bias.constant is None:
            continue
        weight = facts.constant(product.input(1))
        if weight is not None and len(weight.shape) == 2 and bias.constant.shape == weight.shape[1:]:
            return Biased(data, bias)
    return None


def is_own(node: Node, facts: Facts) -> bool:
    """Whether `node` stands in the model or a body of it: a function imports operators of its own."""
    return node.owner.opsets is facts.model.opsets
