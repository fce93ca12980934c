"""Tensors all of whose elements are surely one number, whatever their shape."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from graphopt.facts import Facts
from graphopt.graph import Array, Tensor

# these give elements of their first input, and nothing else
_REARRANGING = (
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
_DEEPEST = 8


def uniform_value(tensor: Tensor | None, facts: Facts) -> Array | None:
    """The number, as an array of shape [], that every element of `tensor` is; None when unknown.

    Looks through at most eight operators that rearrange elements, up to a constant or a ConstantOfShape.
    """
    for _ in range(_DEEPEST):
        value = facts.value(tensor)
        if value is not None:
            return _same_all_over(value)
        filled = facts.producer(tensor, "ConstantOfShape")
        if filled is not None:
            given = filled.attrs.get("value")
            return (
                _same_all_over(numpy_helper.to_array(given))
                if isinstance(given, TensorProto)
                else np.zeros((), np.float32)
            )
        node = facts.producer(tensor, *_REARRANGING)
        if node is None:
            return None
        tensor = node.input(0)
    return None


def _same_all_over(value: Array) -> Array | None:
    if value.size == 0 or value.dtype.kind in "OSU":
        return None
    first = value.reshape(-1)[:1]
    equal = np.ascontiguousarray(value).reshape(-1, 1).view(np.uint8) == first.view(np.uint8).reshape(1, -1)
    return first.reshape(()) if bool(equal.all()) else None


def is_positive_zero(tensor: Tensor | None, facts: Facts) -> bool:
    """Whether every element is surely 0, and not −0.0."""
    value = uniform_value(tensor, facts)
    if value is None or value != 0:
        return False
    return value.dtype.kind in "biu" or not bool(np.signbit(value.astype(np.float64)))
