"""One view of Conv, ConvTranspose, Gemm and MatMul with constant weights: y = W·x + b, b one number a channel.

What differs between them is where the output and input channels lie in the weight, and how a bias is spelled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Constant, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt_passes.common.folding import FLOATS, exact_values

LINEAR_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add")


@dataclass(frozen=True)
class Linear(ABC):
    """A linear operator: `node` reads `data`; `last` makes the result (the Add of a MatMul's bias, else `node`).

    `channels` is the number C of output channels; they lie on the output's axis `from_right`, counted from the last
    axis (0). `rank` is the output's rank, None when unknown. The weight's channels lie on its axis `weight_axis`
    (modulo groups). `opset` is that of the standard operators where the node stands.
    """

    node: Node
    last: Node
    data: Tensor
    weight: Tensor
    bias: Tensor | None
    channels: int
    in_channels: int
    from_right: int
    rank: int | None
    weight_axis: int
    opset: int

    @property
    def weights(self) -> Constant:
        """The weight's constant."""
        assert self.weight.constant is not None
        return self.weight.constant

    @property
    def can_add_bias(self) -> bool:
        """Whether a bias costs no further node."""
        return True

    @property
    def data_from_right(self) -> int:
        """Where the input channels lie in the data, counted from its last axis."""
        return self.from_right

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """The shape that a new bias takes."""
        return (self.channels,)

    def bias_values(self) -> Array:
        """b as float64 [C], zeros where there is none."""
        if self.bias is None or self.bias.constant is None:
            return np.zeros(self.channels)
        return np.broadcast_to(exact_values(self.bias.constant).reshape(-1), (self.channels,))

    @abstractmethod
    def scale_outputs(self, weight: Array, scale: Array) -> Array:
        """The weight that multiplies output channel c by scale[c], [C]."""

    @abstractmethod
    def scale_inputs(self, weight: Array, scale: Array) -> Array:
        """The weight that multiplies input channel c by scale[c], [in_channels], first."""

    @abstractmethod
    def response(self, weight: Array, shift: Array) -> Array:
        """What the constant shift[c] on input channel c, everywhere, adds to each output channel: [C]."""

    @abstractmethod
    def rebuild(self, edit: Rewriter, data: Tensor, weight: Tensor, bias: Tensor | None) -> Node:
        """The operator over `data` with another weight and bias (of `bias_shape`); returns the node of the result."""


class ConvLinear(Linear):
    """Conv: W is [C, I/group, *kernel], b is [C]."""

    @property
    def group(self) -> int:
        """The number of groups."""
        return self.node.int_attr("group", 1)

    def scale_outputs(self, weight: Array, scale: Array) -> Array:
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))

    def scale_inputs(self, weight: Array, scale: Array) -> Array:
        grouped = weight.reshape(self.group, -1, *weight.shape[1:])
        factors = scale.reshape(self.group, 1, -1, *[1] * (weight.ndim - 2))
        return np.asarray((grouped * factors).reshape(weight.shape))

    def response(self, weight: Array, shift: Array) -> Array:
        moved = self.scale_inputs(weight, shift)
        return np.asarray(moved.sum(tuple(range(1, moved.ndim))))

    def rebuild(self, edit: Rewriter, data: Tensor, weight: Tensor, bias: Tensor | None) -> Node:
        return edit.like(self.node, [data, weight, bias])


class ConvTransposeLinear(ConvLinear):
    """ConvTranspose: W is [I, C/group, *kernel], group g reading its I/group rows; b is [C]."""

    def scale_outputs(self, weight: Array, scale: Array) -> Array:
        grouped = weight.reshape(self.group, -1, *weight.shape[1:])
        factors = scale.reshape(self.group, 1, -1, *[1] * (weight.ndim - 2))
        return np.asarray((grouped * factors).reshape(weight.shape))

    def scale_inputs(self, weight: Array, scale: Array) -> Array:
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))

    def response(self, weight: Array, shift: Array) -> Array:
        """Only for 1x1 kernels: elsewhere each output position sees another part of the kernel."""
        moved = self.scale_inputs(weight, shift)
        return np.asarray(moved.reshape(self.group, -1, weight.shape[1]).sum(1).reshape(-1))


class GemmLinear(Linear):
    """Gemm: alpha·x·W + beta·b, W is [I, C], or [C, I] when transB is 1; x is [M, I], or [I, M] when transA is 1."""

    @property
    def data_from_right(self) -> int:
        return self.node.int_attr("transA", 0)

    def scale_outputs(self, weight: Array, scale: Array) -> Array:
        return weight * (scale[:, None] if self.node.int_attr("transB", 0) else scale)

    def scale_inputs(self, weight: Array, scale: Array) -> Array:
        return weight * (scale if self.node.int_attr("transB", 0) else scale[:, None])

    def response(self, weight: Array, shift: Array) -> Array:
        plain = weight.T if self.node.int_attr("transB", 0) else weight
        return np.asarray(self.node.float_attr("alpha", 1.0) * (shift @ plain))

    def bias_values(self) -> Array:
        return np.asarray(self.node.float_attr("beta", 1.0) * super().bias_values())

    def rebuild(self, edit: Rewriter, data: Tensor, weight: Tensor, bias: Tensor | None) -> Node:
        if bias is None or bias is self.bias:
            return edit.like(self.node, [data, weight, bias])
        attrs = {"beta": 1.0, "broadcast": 1} if self.opset < 7 else {"beta": 1.0}
        return edit.like(self.node, [data, weight, bias], **attrs)


class MatMulLinear(Linear):
    """MatMul, and the Add of a constant bias behind it: x·W, W is [..., I, C]; or W·x, W is [..., C, I].

    Which of both is told by `from_right`: 0 and 1.
    """

    @property
    def can_add_bias(self) -> bool:
        return self.last is not self.node

    @property
    def bias_shape(self) -> tuple[int, ...]:
        return (self.channels, *[1] * self.from_right)

    def _axes(self, vector: Array, axis_from_right: int) -> Array:
        return vector if axis_from_right == 0 else vector[:, None]

    def scale_outputs(self, weight: Array, scale: Array) -> Array:
        return weight * self._axes(scale, self.from_right)

    def scale_inputs(self, weight: Array, scale: Array) -> Array:
        return weight * self._axes(scale, 1 - self.from_right)

    def response(self, weight: Array, shift: Array) -> Array:
        """Only for weights of rank 2."""
        return np.asarray(shift @ weight if self.from_right == 0 else weight @ shift)

    def rebuild(self, edit: Rewriter, data: Tensor, weight: Tensor, bias: Tensor | None) -> Node:
        product = edit.like(self.node, [data, weight] if self.from_right == 0 else [weight, data])
        if bias is None:
            return product
        if self.last is self.node:
            return edit.node("Add", [product.result, bias])
        return edit.like(self.last, [product.result, bias])


def linear_at(node: Node, facts: Facts) -> Linear | None:
    """The view of `node`; an Add is one when it puts a constant bias on a MatMul that nothing else reads.

    None when the weight is no constant of floats, a bias is no constant of one number a channel, or sizes disagree.
    """
    if node.op == "Add":
        return _biased_matmul(node, facts)
    if node.op == "MatMul":
        return _matmul(node, facts)
    data, weight, bias = node.input(0), node.input(1), node.input(2)
    if data is None or weight is None or not _is_weight(weight):
        return None
    assert weight.constant is not None
    shape, opset = weight.constant.shape, facts.opset(node)
    if node.op in ("Conv", "ConvTranspose") and len(shape) >= 3:
        group = node.int_attr("group", 1)
        transposed = node.op == "ConvTranspose"
        channels = shape[1] * group if transposed else shape[0]
        in_channels = shape[0] if transposed else shape[1] * group
        if group < 1 or channels % group or in_channels % group or not is_vector(bias, channels, 0):
            return None
        view = ConvTransposeLinear if transposed else ConvLinear
        place = (len(shape) - 2, len(shape), int(transposed))
        return view(node, node, data, weight, bias, channels, in_channels, *place, opset)
    if node.op == "Gemm" and len(shape) == 2:
        channels, in_channels = shape if node.int_attr("transB", 0) else shape[::-1]
        if not is_vector(bias, channels, 0):
            return None
        return GemmLinear(
            node, node, data, weight, bias, channels, in_channels, 0, 2, 1 - node.int_attr("transB", 0), opset
        )
    return None


def linear_behind(tensor: Tensor | None, facts: Facts) -> Linear | None:
    """The linear operator that makes `tensor` for one reader alone, in the same graph."""
    node = facts.sole_producer(tensor, *LINEAR_OPS)
    return None if node is None else linear_at(node, facts)


def _matmul(node: Node, facts: Facts) -> MatMulLinear | None:
    left, right = node.input(0), node.input(1)
    if left is None or right is None or facts.is_constant(left) == facts.is_constant(right):
        return None
    from_right = 0 if facts.is_constant(right) else 1
    data, weight = (left, right) if from_right == 0 else (right, left)
    if not _is_weight(weight):
        return None
    assert weight.constant is not None
    shape = weight.constant.shape
    data_rank = facts.rank(data)
    opset = facts.opset(node)
    if len(shape) < 2 or (from_right == 1 and (data_rank is None or data_rank < 2)) or opset < 7:
        return None  # before opset 7 the Add of a bias broadcasts in its own way
    rank = None if data_rank is None else max(data_rank, len(shape)) - (data_rank == 1)
    channels, in_channels = (shape[-1], shape[-2]) if from_right == 0 else (shape[-2], shape[-1])
    axis = len(shape) - 1 - from_right
    return MatMulLinear(node, node, data, weight, None, channels, in_channels, from_right, rank, axis, opset)


def _biased_matmul(node: Node, facts: Facts) -> MatMulLinear | None:
    for product, bias in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        producer = facts.sole_producer(product, "MatMul")
        if producer is None or bias is None or bias.constant is None:
            continue
        view = _matmul(producer, facts)
        if view is None:
            return None
        if len(bias.constant.shape) > (view.rank if view.rank is not None else view.from_right + 1):
            return None  # the Add may enlarge the product
        if not is_vector(bias, view.channels, view.from_right):
            return None
        place = (view.from_right, view.rank, view.weight_axis, view.opset)
        return MatMulLinear(producer, node, view.data, view.weight, bias, view.channels, view.in_channels, *place)
    return None


def _is_weight(weight: Tensor) -> bool:
    return weight.constant is not None and weight.constant.dtype in FLOATS and weight.constant.size > 0


def is_vector(tensor: Tensor | None, channels: int, from_right: int) -> bool:
    """Whether the tensor is absent, or a constant of one number a channel (or one for all) and 1 along other axes."""
    if tensor is None:
        return True
    if tensor.constant is None:
        return False
    shape = tensor.constant.shape
    return all(d in (1, channels) if len(shape) - 1 - i == from_right else d == 1 for i, d in enumerate(shape))
