"""Operators whose spelling changed between opsets, each as one function that writes the right form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.fuzz.builder import Builder, RejectedError, Tensor
from tests.fuzz.draw import Draw

INT64_MAX = 2**63 - 1
_REDUCE_AXES_INPUT = {"ReduceSum": 13}


def cast(b: Builder, x: Tensor, to: int) -> Tensor:
    return b.emit("Cast", x, to=to)


def transpose(b: Builder, x: Tensor, order: Sequence[int] | None) -> Tensor:
    return b.emit("Transpose", x) if order is None else b.emit("Transpose", x, perm=list(order))


def reshape(b: Builder, x: Tensor, shape: Sequence[int], **attributes: Any) -> Tensor:
    return b.emit("Reshape", x, b.ints(*shape), **attributes)


def squeeze(b: Builder, x: Tensor, axes: Sequence[int] | None) -> Tensor:
    return _with_axes(b, "Squeeze", x, axes)


def unsqueeze(b: Builder, x: Tensor, axes: Sequence[int]) -> Tensor:
    return _with_axes(b, "Unsqueeze", x, axes)


def _with_axes(b: Builder, op: str, x: Tensor, axes: Sequence[int] | None) -> Tensor:
    if axes is None:
        return b.emit(op, x)
    if b.opset >= 13:
        return b.emit(op, x, b.ints(*axes))
    if b.opset < 11 and any(axis < 0 for axis in axes):
        rank = x.rank + (len(axes) if op == "Unsqueeze" else 0)
        axes = [axis % rank for axis in axes]
    return b.emit(op, x, axes=list(axes))


def reduce(b: Builder, op: str, x: Tensor, axes: Sequence[int] | None, keepdims: int = 1) -> Tensor:
    if axes is None:
        return b.emit(op, x, keepdims=keepdims)
    if b.opset < 11:
        axes = [axis % max(x.rank, 1) for axis in axes]
    if b.opset >= _REDUCE_AXES_INPUT.get(op, 18):
        return b.emit(op, x, b.ints(*axes), keepdims=keepdims)
    return b.emit(op, x, axes=list(axes), keepdims=keepdims)


def slices(
    b: Builder,
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None = None,
    steps: Sequence[int] | None = None,
) -> Tensor:
    if b.opset < 10:
        if steps is not None and any(step != 1 for step in steps):
            raise RejectedError("Slice has no steps before opset 10")
        chosen = {} if axes is None else {"axes": [axis % x.rank for axis in axes]}
        return b.emit("Slice", x, starts=list(starts), ends=list(ends), **chosen)
    kind = np.int32 if b.draw.chance(15) and max(map(abs, [*starts, *ends])) < 2**31 else np.int64
    parts = [starts, ends, axes, steps]
    return b.emit("Slice", x, *(None if part is None else b.ints(*part, dtype=kind) for part in parts))


def cut(b: Builder, x: Tensor, axis: int, start: int, end: int) -> Tensor:
    """x[start:end] along one axis; the last chunk is now and then spelled with an open end."""
    if end == x.shape[axis] and b.draw.chance(30):
        end = INT64_MAX
    return slices(b, x, [start], [end], [axis])


def split(b: Builder, x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    """Split in its three forms: sizes as attribute (before 13), as input, or num_outputs (18 on; absent before)."""
    count, axis = len(sizes), axis % x.rank if b.opset < 11 else axis
    if count == 1:
        chunk = [sizes[0]]
    else:
        chunk = [-(-sum(sizes) // count)] * (count - 1)
        chunk.append(sum(sizes) - sum(chunk))
    equal = len(set(sizes)) == 1
    if b.opset >= 18 and list(sizes) == chunk and chunk[-1] > 0 and b.draw.chance(60):
        made = b.emit("Split", x, outputs=count, axis=axis, num_outputs=count)
    elif b.opset < 18 and equal and b.draw.chance(50):
        made = b.emit("Split", x, outputs=count, axis=axis)
    elif b.opset < 13:
        made = b.emit("Split", x, outputs=count, axis=axis, split=list(sizes))
    else:
        made = b.emit("Split", x, b.ints(*sizes), outputs=count, axis=axis)
    return made if isinstance(made, tuple) else (made,)


def concat(b: Builder, parts: Sequence[Tensor], axis: int) -> Tensor:
    return b.emit("Concat", *parts, axis=axis % parts[0].rank if b.opset < 11 else axis)


def pad(b: Builder, x: Tensor, pads: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """pads are [begin..., end...] over all axes."""
    if b.opset < 11:
        chosen = {} if value is None else {"value": value}
        return b.emit("Pad", x, pads=list(pads), mode=mode, **chosen)
    fill = None if value is None else b.constant(np.array(value, x.numpy_dtype))
    return b.emit("Pad", x, b.ints(*pads), fill, mode=mode)


def clip(b: Builder, x: Tensor, low: float | None, high: float | None) -> Tensor:
    if b.opset < 11:
        bounds = {key: value for key, value in (("min", low), ("max", high)) if value is not None}
        return b.emit("Clip", x, **bounds)
    ends = [None if end is None else b.constant(np.array(end, x.numpy_dtype)) for end in (low, high)]
    return b.emit("Clip", x, *ends)


def softmax(b: Builder, x: Tensor, axis: int | None, op: str = "Softmax") -> Tensor:
    if axis is None:
        return b.emit(op, x)
    return b.emit(op, x, axis=axis % x.rank if b.opset < 11 else axis)


def expand(b: Builder, x: Tensor, shape: Sequence[int]) -> Tensor:
    if b.opset < 8:
        raise RejectedError("Expand is new in opset 8")
    return b.emit("Expand", x, b.ints(*shape))


def dropout(b: Builder, x: Tensor, ratio: float, masked: bool) -> tuple[Tensor, ...]:
    """Dropout at inference, with its mask when asked for."""
    made: Any
    if b.opset >= 12:
        given = b.constant(np.array(ratio, np.float32)) if b.draw.chance(70) else None
        training = b.constant(np.array(False)) if given is not None and b.draw.chance(40) else None
        made = b.emit("Dropout", x, given, training, outputs=2 if masked else 1)
    elif masked:
        mask = TensorProto.BOOL if b.opset >= 10 else x.dtype
        made = b.emit("Dropout", x, outputs=2, types=[(x.dtype, x.shape), (mask, x.shape)], ratio=ratio)
    else:
        made = b.emit("Dropout", x, ratio=ratio)
    return made if isinstance(made, tuple) else (made,)


def batch_norm(b: Builder, x: Tensor, shared: Sequence[Tensor] | None = None) -> Tensor:
    """BatchNormalization in its inference form with constant statistics."""
    epsilon = b.draw.choice([1e-5, 1e-3, 0.1])
    extra = {"spatial": 1} if b.opset < 9 and b.draw.chance(20) else {}
    if b.opset >= 14 and b.draw.chance(20):
        extra["training_mode"] = 0
    return b.emit("BatchNormalization", x, *(shared or norm_parameters(b, x.shape[1])), epsilon=epsilon, **extra)


def norm_parameters(b: Builder, channels: int) -> list[Tensor]:
    """Constant scale, bias, mean and (positive) variance, each [channels]."""
    scale, bias, mean = (b.floats(channels) for _ in range(3))
    variance = b.constant((np.abs(b.draw.random().standard_normal(channels)) + 0.1).astype(np.float32))
    return [scale, bias, mean, variance]


def gelu_tail(b: Builder, value: float, like: Tensor) -> Tensor:
    """A scalar constant in the element type of `like`, as [] or [1]."""
    shape = b.draw.choice([(), (1,)])
    return b.constant(np.full(shape, value, helper.tensor_dtype_to_np_dtype(like.dtype)))


def conv(
    d: Draw,
    b: Builder,
    x: Tensor,
    channels: int,
    kernel: Sequence[int],
    bias: bool | None = None,
    weight: Tensor | None = None,
    group: int = 1,
    **attributes: Any,
) -> Tensor:
    """Conv with constant weights [channels, C/group, *kernel]; `bias` None leaves that to chance."""
    fan = max(1, x.shape[1] // group * int(np.prod(kernel)))
    if weight is None:
        weight = b.floats(channels, x.shape[1] // group, *kernel, scale=fan**-0.5)
    has_bias = d.chance(50) if bias is None else bias
    if group != 1 or d.chance(10):
        attributes["group"] = group
    if d.chance(50):
        attributes["kernel_shape"] = list(kernel)
    return b.emit("Conv", x, weight, b.floats(channels, scale=0.5) if has_bias else None, **attributes)


def same_pads(kernel: Sequence[int]) -> list[int]:
    """Pads that keep the size at stride 1, for odd kernels."""
    half = [k // 2 for k in kernel]
    return half + half


def activation(d: Draw, b: Builder, x: Tensor, name: str | None = None) -> Tensor:
    """A usual activation, one operator."""
    name = name or d.choice(
        ["Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "Elu", "HardSigmoid", "PRelu", "HardSwish"]
    )
    if name == "Clip":
        return clip(b, x, 0.0, 6.0)
    if name == "PRelu":
        return b.emit("PRelu", x, b.floats(x.shape[1], *[1] * (x.rank - 2)) if x.rank >= 2 else b.floats(1))
    if name in ("LeakyRelu", "Elu"):
        return b.emit(name, x, alpha=d.choice([0.1, 0.01, 1.0]))
    if name == "HardSwish" and not b.has("HardSwish"):
        name = "Relu"
    return b.emit(name, x)
