"""Weights of siblings, plain or quantized: what must agree so that they can be joined, and the joining.

A quantized weight is DequantizeLinear(q, scale, zero point) of constants, with one scale or one an output channel. The
joined weight has one an output channel, so each channel keeps its own numbers: nothing is quantized again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Constant, LazyConstant, Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt_passes.siblings.channels import Assemble

# A weight that other nodes read too stays for them, so that joining it adds its bytes: not above this size.
SHARED_BYTES = 1 << 20


@dataclass(frozen=True)
class Weight:
    """A weight whose values, and scales where it is quantized, are known.

    `dequantizer` is the DequantizeLinear that makes it, or None. `form` must be equal for weights to be joined. `axis`
    is the axis of output channels.
    """

    tensor: Tensor
    values: Constant
    axis: int
    dequantizer: Node | None = None
    scale: Constant | None = None
    zero: Constant | None = None
    form: Hashable = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, static."""
        return self.values.shape

    @property
    def width(self) -> int:
        """The number of output channels."""
        return self.values.shape[self.axis]

    @property
    def has_one_scale(self) -> bool:
        """Whether one scale serves all channels."""
        return self.scale is not None and self.scale.size == 1


def read_weight(tensor: Tensor | None, axis: int, facts: Facts) -> Weight | None:
    """The weight that `tensor` is, with output channels on `axis`; None when it is not known or not to be joined."""
    if tensor is None:
        return None
    if tensor.constant is not None:
        if tensor.uses > 1 and tensor.constant.nbytes > SHARED_BYTES:
            return None
        return Weight(tensor, tensor.constant, axis, form=("plain", tensor.constant.dtype))
    node = facts.sole_producer(tensor, "DequantizeLinear")
    return None if node is None else _quantized(node, tensor, axis, facts)


def _quantized(node: Node, tensor: Tensor, axis: int, facts: Facts) -> Weight | None:
    values, scale, zero = (facts.constant(node.input(i)) for i in range(3))
    if values is None or scale is None or (node.input(2) is not None and zero is None):
        return None
    if axis >= len(values.shape) or node.int_attr("block_size", 0) or len(scale.shape) > 1:
        return None
    if zero is not None and zero.size != scale.size:
        return None
    if scale.size != 1:  # one a channel: the channels must be the outputs
        along = node.int_attr("axis", 1)
        if along not in (axis, axis - len(values.shape)) or scale.shape != (values.shape[axis],):
            return None
    if facts.opset(node) < 13 or (node.input(0) or tensor).uses > 1:  # before 13 there is one scale for all
        return None
    others = tuple(sorted((k, v) for k, v in node.attrs.items() if k != "axis"))
    return Weight(tensor, values, axis, node, scale, zero, ("quantized", values.dtype, scale.dtype, others))


def join_weights(
    weights: Sequence[Weight],
    edit: Rewriter,
    assemble: Assemble,
    shape: tuple[int, ...],
    adapt: Callable[[Array, Weight], Array] = lambda array, _: array,
) -> Tensor:
    """One weight of `shape` for all: `adapt` makes each array fit, `assemble` puts them together.

    `assemble` joins along the first axis; weights with another axis of output channels are turned for it and back.
    """
    first = weights[0]

    def compute() -> Array:
        arrays = [np.moveaxis(adapt(w.values.array(), w), w.axis, 0) for w in weights]
        return np.ascontiguousarray(np.moveaxis(assemble(arrays), 0, first.axis))

    joined = LazyConstant(first.values.dtype, shape, compute)
    if first.dequantizer is None:
        return edit.constant(joined, first.tensor.name)
    source = first.dequantizer.inputs[0]
    stem = source.name if source is not None else first.tensor.name
    scales = edit.constant(_vector(weights, lambda w: w.scale, assemble), f"{stem}.scale")
    inputs = [edit.constant(joined, stem), scales]
    if any(w.zero is not None for w in weights):
        inputs.append(edit.constant(_vector(weights, lambda w: w.zero, assemble), f"{stem}.zero_point"))
    return edit.like(first.dequantizer, inputs, axis=first.axis).result


def _vector(weights: Sequence[Weight], part: Callable[[Weight], Constant | None], assemble: Assemble) -> LazyConstant:
    """Scales or zero points, one an output channel; an absent zero point is 0."""
    known = next(c for w in weights if (c := part(w)) is not None)
    dtype = numpy_dtype(known.dtype)

    def compute() -> Array:
        columns = []
        for weight in weights:
            constant = part(weight)
            numbers = np.zeros(1, dtype) if constant is None else constant.array().reshape(-1)
            columns.append(np.broadcast_to(numbers, (weight.width,)))
        return np.ascontiguousarray(assemble(columns))

    return LazyConstant(known.dtype, (sum(w.width for w in weights),), compute)


def join_biases(
    biases: Sequence[Weight | None], widths: Sequence[int], dtype: int, edit: Rewriter, assemble: Assemble
) -> Tensor | None:
    """One bias for all, zeros where a sibling has none; None when none of them has one.

    Quantized biases keep one scale a channel; they are not mixed with plain or absent ones.
    """
    present = [b for b in biases if b is not None]
    if not present:
        return None
    if present[0].dequantizer is not None:
        return join_weights(present, edit, assemble, (sum(widths),))
    kind = numpy_dtype(dtype)

    def column(bias: Weight | None, width: int) -> Array:
        return np.zeros(width, kind) if bias is None else bias.values.array().reshape(-1)

    def compute() -> Array:
        columns = [np.broadcast_to(column(b, w), (w,)) for b, w in zip(biases, widths, strict=True)]
        return np.ascontiguousarray(assemble(columns))

    return edit.constant(LazyConstant(dtype, (sum(widths),), compute), present[0].tensor.name)
