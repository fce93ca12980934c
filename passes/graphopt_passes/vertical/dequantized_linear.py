"""One view of Conv, ConvTranspose, Gemm and MatMul whose weights are constants behind a DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Constant, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt_passes.common.folding import FLOATS, exact_values
from graphopt_passes.vertical.affine import Channels
from graphopt_passes.vertical.linear import is_vector

DEQUANTIZED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add")


@dataclass(frozen=True)
class Dequantized:
    """(weights − zero point) · scale of a DequantizeLinear, all constant, one scale or one along `axis`."""

    node: Node
    weights: Constant
    scale: Constant
    zero: Constant | None
    axis: int

    def values(self) -> Array:
        """The float64 values."""
        along = [-1 if i == self.axis else 1 for i in range(len(self.weights.shape))]
        zero = 0.0 if self.zero is None else exact_values(self.zero).reshape(along)
        return np.asarray((exact_values(self.weights) - zero) * exact_values(self.scale).reshape(along))


@dataclass(frozen=True)
class DequantizedLinear:
    """`node` multiplies what it reads by `weight`; `last` makes the result (the Add of a MatMul's bias, else `node`).

    `bias` is a Constant, a Dequantized, or None where there is none.
    """

    node: Node
    last: Node
    weight: Dequantized
    bias: Constant | Dequantized | None
    channels: Channels

    @property
    def has_bias(self) -> bool:
        """Whether it has a bias already."""
        return self.bias is not None

    @property
    def can_add_bias(self) -> bool:
        """Whether a bias costs no further node."""
        return self.node.op != "MatMul" or self.last is not self.node

    def bias_values(self) -> Array:
        """The bias as float64 [C], zeros where there is none."""
        beta = self.node.float_attr("beta", 1.0) if self.node.op == "Gemm" else 1.0
        if self.bias is None:
            return np.zeros(self.channels.count)
        values = self.bias.values() if isinstance(self.bias, Dequantized) else exact_values(self.bias)
        return np.asarray(beta * np.broadcast_to(values.reshape(-1), (self.channels.count,)))

    def rebuild(self, edit: Rewriter, weight: Tensor | None, bias: Tensor | None) -> Node:
        """The operator with another weight and bias, [C]; returns the node of the result."""
        data = self.node.inputs[0]
        if self.node.op == "MatMul":
            product = edit.like(self.node, [data, weight])
            return product if bias is None else edit.node("Add", [product.result, bias], name=self.last.name)
        attrs = {"beta": 1.0} if self.node.op == "Gemm" and bias is not None else {}
        return edit.like(self.node, [data, weight, bias], **attrs)


def dequantized_behind(tensor: Tensor | None, facts: Facts) -> DequantizedLinear | None:
    """The operator of dequantized weights that makes `tensor` for one reader alone, in the same graph."""
    node = facts.sole_producer(tensor, *DEQUANTIZED_OPS)
    if node is None:
        return None
    if node.op == "Add":
        return _biased_matmul(node, facts)
    return _linear(node, node, facts)


def dequantized_at(tensor: Tensor | None, axis: int, facts: Facts) -> Dequantized | None:
    """The DequantizeLinear of constants that makes `tensor` for one reader, with one scale or one along `axis`."""
    node = facts.sole_producer(tensor, "DequantizeLinear")
    if node is None or node.int_attr("block_size", 0):
        return None
    weights, scale = facts.constant(node.input(0)), facts.constant(node.input(1))
    zero = facts.constant(node.input(2))
    if weights is None or scale is None or scale.dtype not in FLOATS or len(weights.shape) <= axis:
        return None
    if node.input(2) is not None and (zero is None or zero.shape != scale.shape):
        return None
    along = node.int_attr("axis", 1) in (axis, axis - len(weights.shape))
    if scale.size != 1 and not (along and scale.shape == weights.shape[axis : axis + 1]):
        return None
    return Dequantized(node, weights, scale, zero, axis)


def _linear(node: Node, last: Node, facts: Facts) -> DequantizedLinear | None:
    """The view of `node`, without a bias where it is a MatMul."""
    axis = _channel_axis(node)
    weight = dequantized_at(node.input(1), axis, facts) if axis is not None else None
    if axis is None or weight is None:
        return None
    shape = weight.weights.shape
    if node.op in ("Conv", "ConvTranspose"):
        if len(shape) < 3:
            return None
        channels = Channels(shape[axis], len(shape) - 2, len(shape))
    else:
        if len(shape) != 2:
            return None
        rank = 2 if node.op == "Gemm" else facts.rank(node.result)
        channels = Channels(shape[axis], 0, rank)
    if node.op == "MatMul" or node.input(2) is None:
        return DequantizedLinear(node, last, weight, None, channels)
    bias = facts.constant(node.input(2)) or dequantized_at(node.input(2), 0, facts)
    if bias is None or (isinstance(bias, Constant) and not is_vector(node.input(2), channels.count, 0)):
        return None
    if isinstance(bias, Dequantized) and bias.weights.shape != (channels.count,):
        return None
    return DequantizedLinear(node, last, weight, bias, channels)


def _channel_axis(node: Node) -> int | None:
    """The weight's axis of output channels; None where scales along one axis cannot tell them apart."""
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1 if node.int_attr("group", 1) == 1 else None
    if node.op == "Gemm":
        return None if node.int_attr("transA", 0) else 1 - node.int_attr("transB", 0)
    return 1


def _biased_matmul(node: Node, facts: Facts) -> DequantizedLinear | None:
    for product, bias in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        matmul = facts.sole_producer(product, "MatMul")
        if matmul is None or bias is None or bias.constant is None or facts.opset(node) < 7:
            continue
        view = _linear(matmul, node, facts)
        if view is None or len(bias.constant.shape) > (view.channels.rank or 1):
            return None
        if not is_vector(bias, view.channels.count, 0):
            return None
        return DequantizedLinear(matmul, node, view.weight, bias.constant, view.channels)
    return None
