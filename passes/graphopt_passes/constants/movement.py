"""Constant nodes that only move elements, computed without a runtime: loading one takes longer than all of them.

Sources: the operators' specifications; their indices and axes are numpy's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphopt.graph import Array, Node, Tensor, onnx_dtype

Values = dict[Tensor, Array]


def move(nodes: Sequence[Node]) -> Values | None:
    """What the nodes, in topological order, make; None as soon as one of them is for a runtime to compute."""
    if any(node.op not in _MOVES for node in nodes):
        return None
    values: Values = {}
    for node in nodes:
        inputs = [_value(t, values) for t in node.inputs]
        try:
            found = _MOVES[node.op](node, [i for i in inputs if i is not None])
        except (ValueError, IndexError, TypeError):  # what numpy does not do is an error of the model, or beyond this
            return None
        if found is None or len(node.outputs) != 1 or onnx_dtype(found.dtype) != node.result.dtype:
            return None
        values[node.result] = np.array(found, order="C")  # a copy: nothing else keeps the input alive
    return values


def _value(tensor: Tensor | None, values: Values) -> Array | None:
    if tensor is None:
        return None
    return values[tensor] if tensor.constant is None else tensor.constant.array()


def _axes(node: Node, inputs: list[Array]) -> tuple[int, ...] | None:
    """The axes of Squeeze and Unsqueeze: an attribute before opset 13, an input from then on."""
    return tuple(int(a) for a in inputs[1]) if len(inputs) > 1 else node.ints_attr("axes")


def _unsqueeze(node: Node, inputs: list[Array]) -> Array | None:
    axes = _axes(node, inputs)
    return None if axes is None else np.expand_dims(inputs[0], axes)


def _squeeze(node: Node, inputs: list[Array]) -> Array | None:
    axes = _axes(node, inputs)
    return None if axes == () else np.squeeze(inputs[0], axes)  # none: for ONNX Runtime, all of size 1


def _transpose(node: Node, inputs: list[Array]) -> Array | None:
    return np.transpose(inputs[0], node.ints_attr("perm"))


def _concat(node: Node, inputs: list[Array]) -> Array | None:
    axis = node.attrs.get("axis")  # opset 1 has a default, which no later one has
    return None if axis is None or len(inputs) != len(node.inputs) else np.concatenate(inputs, axis)


def _reshape(node: Node, inputs: list[Array]) -> Array | None:
    if len(inputs) != 2 or 0 in inputs[1]:  # opset 1 has an attribute; what 0 stands for differs
        return None
    return np.reshape(inputs[0], tuple(int(d) for d in inputs[1]))


def _expand(node: Node, inputs: list[Array]) -> Array | None:
    if len(inputs) != 2:
        return None
    return np.broadcast_to(inputs[0], np.broadcast_shapes(inputs[0].shape, tuple(int(d) for d in inputs[1])))


def _slice(node: Node, inputs: list[Array]) -> Array | None:
    """With starts, ends, axes and steps as inputs, from opset 10 on, none of them left out before another."""
    if not 3 <= len(inputs) == len(node.inputs):
        return None
    data, starts, ends = inputs[:3]
    axes = inputs[3] if len(inputs) > 3 else np.arange(len(starts))
    steps = inputs[4] if len(inputs) > 4 else np.ones(len(starts), np.int64)
    if min(steps, default=1) < 1:  # backwards, a start before the first element is clamped as numpy does not
        return None
    places = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places[int(axis)] = slice(int(start), int(end), int(step))
    return data[tuple(places)]


_MOVES: dict[str, Callable[[Node, list[Array]], Array | None]] = {
    "Concat": _concat,
    "Expand": _expand,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
