"""Concat, Split and Slice against each other, and across convs."""

from __future__ import annotations

import numpy as np

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import FLOAT, IMAGE, RANKED, Made, snippet


def _axis(d: Draw, x: Tensor, least: int) -> int | None:
    axes = [at for at, dim in enumerate(x.shape) if dim >= least]
    return d.choice(axes) if axes else None


def _parts(d: Draw, b: Builder, x: Tensor, axis: int, most: int = 3) -> tuple[Tensor, ...]:
    count = d.integer(2, min(most, x.shape[axis]))
    even = x.shape[axis] % count == 0 and d.chance(60)
    sizes = [x.shape[axis] // count] * count if even else d.parts(x.shape[axis], count)
    return forms.split(b, x, sizes, axis)


def _like(d: Draw, b: Builder, x: Tensor, axis: int) -> Tensor:
    """Another run-time tensor that can be concatenated with x on the axis."""
    fitting = [
        t
        for t in b.visible()
        if t.dtype == x.dtype
        and t.rank == x.rank
        and all(t.shape[at] == x.shape[at] for at in range(x.rank) if at != axis)
    ]
    if fitting and d.chance(60):
        return d.choice(fitting)
    if d.chance(50):
        return b.emit(d.choice(["Neg", "Abs", "Sigmoid"]), x)
    shape = [*x.shape]
    shape[axis] = d.integer(1, 3)
    return b.input(x.dtype, shape) if d.chance(40) else b.floats(*shape, dtype=x.dtype)


@snippet("split and concat", 14, RANKED)
def split_concat(d: Draw, b: Builder, x: Tensor) -> Made:
    if (axis := _axis(d, x, 2)) is None:
        return None
    parts = [b.between(part) for part in _parts(d, b, x, axis)]
    miss = d.integer(0, 9)
    if miss == 7:
        parts = parts[:-1]
    elif miss == 8:
        parts = [*parts, parts[0]]
    elif miss == 9:
        axis = d.integer(0, x.rank - 1) if len({part.shape for part in parts}) == 1 else axis
    order = range(len(parts)) if d.chance(50) else d.order(len(parts))
    return forms.concat(b, [parts[at] for at in order], axis)


@snippet("concat and split", 14, RANKED)
def concat_split(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = d.integer(0, x.rank - 1)
    parts = [x, *(_like(d, b, x, axis) for _ in range(d.integer(1, 2)))]
    sizes = [part.shape[axis] for part in parts]
    if 0 in x.shape or min(sizes) == 0:
        return None
    joined = b.between(forms.concat(b, parts, axis))
    if d.chance(25) and sizes[0] > 1:
        sizes[0], sizes[1] = sizes[0] - 1, sizes[1] + 1
    elif d.chance(20):
        sizes[:2] = [sum(sizes[:2])]
    return forms.split(b, joined, sizes, axis)


@snippet("concat and slice", 12, RANKED)
def concat_slice(d: Draw, b: Builder, x: Tensor) -> Made:
    """A slice or gather of a concat that stays inside one input, crosses a border, or runs on another axis."""
    axis = d.integer(0, x.rank - 1)
    parts = [x, _like(d, b, x, axis)]
    if 0 in x.shape:
        return None
    joined = b.between(forms.concat(b, parts, axis))
    low = d.choice([0, x.shape[axis], d.integer(0, joined.shape[axis] - 1)])
    high = d.choice([x.shape[axis], joined.shape[axis], d.integer(low, joined.shape[axis])])
    if d.chance(20):
        return b.emit("Gather", joined, b.ints(min(low, joined.shape[axis] - 1)), axis=axis)
    if high <= low:
        return None
    return forms.cut(b, joined, axis, low, high)


@snippet("nested concats", 10, RANKED)
def nested_concats(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = d.integer(0, x.rank - 1)
    inner = b.between(forms.concat(b, [x, _like(d, b, x, axis)], axis))
    outer_axis = axis if d.chance(85) else d.integer(0, x.rank - 1)
    other = _like(d, b, x if outer_axis == axis else inner, outer_axis)
    parts = [inner, other] if d.chance(50) else [other, inner]
    if d.chance(30):
        parts.append(inner)
    return forms.concat(b, parts, outer_axis - x.rank if d.chance(30) else outer_axis)


@snippet("concat with constants", 8, RANKED)
def concat_constants(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = d.integer(0, x.rank - 1)
    shape = [*x.shape]
    parts: list[Tensor] = [x]
    for _ in range(d.integer(1, 3)):
        shape[axis] = d.choice([1, 2, 0])
        parts.append(b.floats(*shape))
    return forms.concat(b, [parts[at] for at in d.order(len(parts))], axis)


@snippet("same tensor concatenated", 6, RANKED)
def repeated_concat(d: Draw, b: Builder, x: Tensor) -> Made:
    return forms.concat(b, [x] * d.integer(2, 4), d.integer(0, x.rank - 1))


@snippet("element-wise on every input of a concat", 12, RANKED)
def concat_of_elementwise(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = d.integer(0, x.rank - 1)
    parts = [x, *(_like(d, b, x, axis) for _ in range(d.integer(1, 2)))]
    op = d.choice(["Relu", "Sigmoid", "Tanh", "Neg", "Cast", "Mul"])
    if op == "Cast":
        acted = [b.emit("Cast", part, to=11) for part in parts]
    elif op == "Mul":
        acted = [b.emit("Mul", part, b.constant(np.float32(d.choice([2, 2, 2, 3])))) for part in parts]
    else:
        acted = [b.between(b.emit("Abs" if d.chance(6) else op, part)) for part in parts]
    return forms.concat(b, acted, axis)


@snippet("element-wise on every part of a split", 8, RANKED)
def split_elementwise(d: Draw, b: Builder, x: Tensor) -> Made:
    if (axis := _axis(d, x, 2)) is None:
        return None
    op = d.choice(["Relu", "Tanh"])
    acted = [b.between(b.emit("Neg" if d.chance(6) else op, part)) for part in _parts(d, b, x, axis)]
    return forms.concat(b, acted, axis) if d.chance(70) else acted


@snippet("split, convs, concat", 12, IMAGE)
def split_convs_concat(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.shape[1] < 2:
        return None
    parts = _parts(d, b, x, 1)
    kernel, channels = d.choice([[3, 3], [1, 1]]), d.integer(1, 3)
    bias = d.choice([True, False, None])
    made = []
    for part in parts:
        out = channels + (1 if d.chance(6) else 0)
        made.append(b.between(forms.conv(d, b, part, out, kernel, bias, pads=forms.same_pads(kernel))))
    return forms.concat(b, [made[at] for at in (range(len(made)) if d.chance(80) else d.order(len(made)))], 1)


@snippet("equal convs on different tensors", 6, IMAGE)
def convs_concat(d: Draw, b: Builder, x: Tensor) -> Made:
    other = b.emit(d.choice(["Relu", "Neg"]), x)
    made = [forms.conv(d, b, t, 2, [3, 3], pads=[1, 1, 1, 1]) for t in (x, other)]
    return forms.concat(b, made, 1)


@snippet("concat and 1x1 conv", 10, IMAGE)
def concat_conv(d: Draw, b: Builder, x: Tensor) -> Made:
    other = b.floats(1, 1, 1, 1) if d.chance(10) else _like(d, b, x, 1)
    if other.shape[2:] != x.shape[2:] or other.shape[0] != x.shape[0]:
        other = b.floats(x.shape[0], d.integer(1, 2), *x.shape[2:])
    joined = b.between(forms.concat(b, [x, other], 1))
    kernel = d.choice([[1, 1], [1, 1], [3, 3]])
    return forms.conv(d, b, joined, d.integer(1, 4), kernel)


@snippet("conv and slices of its channels", 10, IMAGE)
def conv_slices(d: Draw, b: Builder, x: Tensor) -> Made:
    y = b.between(forms.conv(d, b, x, d.integer(2, 5), [1, 1]))
    if d.chance(50):
        return _parts(d, b, y, 1)
    cut = d.integer(1, y.shape[1] - 1)
    made = [forms.cut(b, y, 1, 0, cut), forms.cut(b, y, 1, cut, y.shape[1])]
    return made[:1] if d.chance(30) else made


@snippet("slice of a slice", 10, RANKED)
def slice_slice(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = _axis(d, x, 3)
    if axis is None:
        return None
    dim = x.shape[axis]
    step = d.choice([1, 1, 2, -1]) if b.opset >= 10 else 1
    if step == 1:
        first = forms.cut(b, x, axis, d.integer(0, 1), d.integer(dim - 1, dim))
    elif step == 2:
        first = forms.slices(b, x, [d.integer(0, 1)], [forms.INT64_MAX], [axis], [2])
    else:
        first = forms.slices(b, x, [-1], [-forms.INT64_MAX], [axis], [-1])
    other = axis if d.chance(70) else d.integer(0, x.rank - 1)
    high = first.shape[other]
    if high == 0:
        return first
    low = d.integer(0, high - 1)
    if b.opset >= 10 and d.chance(25):
        return forms.slices(b, b.between(first), [low], [forms.INT64_MAX], [other], [d.choice([2, 1])])
    return forms.cut(b, b.between(first), other, low, d.integer(low + 1, high))


@snippet("YOLO focus", 12, IMAGE, since=10)
def focus(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.shape[2] % 2 or x.shape[3] % 2:
        x = forms.slices(b, x, [0, 0], [x.shape[2] // 2 * 2, x.shape[3] // 2 * 2], [2, 3])
    parts = []
    for row, column in [(0, 0), (1, 0), (0, 1), (1, 1)]:
        if d.chance(70):
            rows = forms.slices(b, x, [row], [forms.INT64_MAX], [2], [2])
            parts.append(forms.slices(b, rows, [column], [forms.INT64_MAX], [3], [2]))
        else:
            end = [x.shape[2], x.shape[3]]
            parts.append(forms.slices(b, x, [row, column], end, [2, 3], [2, 2]))
    order = d.order(4) if d.chance(25) else range(4)
    joined = forms.concat(b, [b.between(parts[at]) for at in order], 1)
    if d.chance(50):
        return forms.conv(d, b, b.between(joined), d.integer(1, 4), [3, 3], pads=[1, 1, 1, 1])
    return joined


@snippet("channel shuffle", 8, IMAGE)
def channel_shuffle(d: Draw, b: Builder, x: Tensor) -> Made:
    n, c, h, w = x.shape
    group = d.choice([g for g in (2, 3, 1) if c % g == 0])
    y = forms.reshape(b, x, [n, group, c // group, h, w])
    y = forms.transpose(b, b.between(y), [0, 2, 1, 3, 4])
    y = forms.reshape(b, b.between(y), [n, c, h, w] if d.chance(60) else [n, -1, h, w])
    return forms.conv(d, b, y, d.integer(1, 3), [1, 1]) if d.chance(40) else y


@snippet("zero-size concat", 3, RANKED)
def empty_concat(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = d.integer(0, x.rank - 1)
    shape = [*x.shape]
    shape[axis] = 0
    empty = b.constant(np.zeros(shape, np.float32)) if d.chance(60) else forms.slices(b, x, [0], [0], [axis])
    assert empty.dtype == FLOAT
    return forms.concat(b, [empty, x], axis)
