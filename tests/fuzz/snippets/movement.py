"""Operators that move data: each in the forms that its opset knows, with the odd attribute values rules trip over."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import FLOAT, MATRIX, RANKED, Made, snippet


@snippet("transpose", 8, RANKED)
def transpose(d: Draw, b: Builder, x: Tensor) -> Made:
    return forms.transpose(b, x, None if d.chance(20) else d.order(x.rank))


def regrouped(d: Draw, x: Tensor) -> list[int]:
    """Another shape of the same size."""
    left = x.size
    shape = []
    for prime in (2, 3, 5, 7):
        while left % prime == 0 and left > 1 and len(shape) < 4:
            shape.append(prime)
            left //= prime
    shape.append(left)
    while len(shape) > 1 and d.chance(60):
        at = d.integer(0, len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    return [shape[at] for at in d.order(len(shape))]


@snippet("reshape", 10, RANKED)
def reshape(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.size == 0:
        return forms.reshape(b, x, list(x.shape), allowzero=1) if b.opset >= 14 else None
    target = regrouped(d, x)
    if d.chance(40):  # 0 copies the dimension at the same place
        for at, dim in enumerate(target):
            if at < x.rank and dim == x.shape[at] and d.chance(60):
                target[at] = 0
    if d.chance(50):
        target[d.integer(0, len(target) - 1)] = -1
    if 0 not in target and b.opset >= 14 and d.chance(20):
        return forms.reshape(b, x, target, allowzero=1)
    return forms.reshape(b, x, target)


@snippet("flatten", 4, RANKED)
def flatten(d: Draw, b: Builder, x: Tensor) -> Made:
    low = -x.rank if b.opset >= 11 else 0
    return b.emit("Flatten", x, axis=d.integer(low, x.rank)) if d.chance(70) else b.emit("Flatten", x)


@snippet("squeeze", 5, RANKED)
def squeeze(d: Draw, b: Builder, x: Tensor) -> Made:
    ones = [at for at, dim in enumerate(x.shape) if dim == 1]
    if not ones or d.chance(20):
        return forms.squeeze(b, x, None)
    axes = d.some(ones, least=1)
    return forms.squeeze(b, x, [axis - x.rank if d.chance(30) else axis for axis in axes])


@snippet("unsqueeze", 5)
def unsqueeze(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.rank > 4:
        return None
    count = d.integer(1, 2)
    axes = d.some(list(range(x.rank + count)), least=1)[:count]
    return forms.unsqueeze(b, x, axes)


@snippet("slice", 12, RANKED)
def slices(d: Draw, b: Builder, x: Tensor) -> Made:
    axes = d.some(list(range(x.rank)), least=1)
    starts, ends, steps = [], [], []
    for axis in axes:
        dim = x.shape[axis]
        backwards = b.opset >= 10 and d.chance(25)
        step = d.choice([1, 2, 3]) if b.opset >= 10 else 1
        low = d.integer(0, max(0, dim - 1))
        high = d.choice([forms.INT64_MAX, dim, min(dim, low + 1), -1 if dim - 1 > low else dim, dim + 5])
        starts.append(d.choice([dim - 1, -1, forms.INT64_MAX]) if backwards else low - dim if d.chance(20) else low)
        ends.append(d.choice([-forms.INT64_MAX, -dim - 1, 0 if dim > 1 else -dim - 1]) if backwards else high)
        steps.append(-step if backwards else step)
    named_axes = [axis - x.rank if b.opset >= 10 and d.chance(20) else axis for axis in axes]
    bare = axes == list(range(len(axes))) and d.chance(30) and all(step == 1 for step in steps)
    plain = all(step == 1 for step in steps) and d.chance(60)
    return forms.slices(b, x, starts, ends, None if bare else named_axes, None if plain or bare else steps)


@snippet("gather", 8, RANKED)
def gather(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = d.integer(0, x.rank - 1)
    dim = x.shape[axis]
    if dim == 0:
        return None
    negative = b.opset >= 11
    shape = d.choice([(), (1,), (2,), (dim,), (2, 2)])
    if d.chance(15):
        indices = b.input(TensorProto.INT64, shape, (-dim if negative else 0, dim - 1))
    else:
        values = d.random().integers(-dim if negative else 0, dim, shape)
        if shape == (dim,) and d.chance(50):
            values = np.array(d.order(dim))
        indices = b.constant(np.asarray(values, d.choice([np.int64, np.int32])), structural=True)
    return b.emit("Gather", x, indices, axis=axis - x.rank if negative and d.chance(20) else axis)


@snippet("gather elements", 3, MATRIX, since=11)
def gather_elements(d: Draw, b: Builder, x: Tensor) -> Made:
    if d.chance(50):
        return b.emit("GatherND", x, b.constant(np.array([[0] * (x.rank - 1)] * 2, np.int64), structural=True))
    axis = d.integer(0, x.rank - 1)
    indices = d.random().integers(-x.shape[axis], x.shape[axis], x.shape)
    return b.emit("GatherElements", x, b.constant(indices, structural=True), axis=axis)


@snippet("scatter", 3, MATRIX, since=11)
def scatter(d: Draw, b: Builder, x: Tensor) -> Made:
    if d.chance(50):
        indices = b.constant(np.array([[x.shape[0] - 1]], np.int64), structural=True)
        return b.emit("ScatterND", x, indices, b.floats(1, *x.shape[1:]))
    row = tuple(1 if at == 0 else dim for at, dim in enumerate(x.shape))
    return b.emit("ScatterElements", x, b.constant(np.zeros(row, np.int64), structural=True), b.floats(*row), axis=0)


@snippet("concat", 10, RANKED)
def concat(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = d.integer(0, x.rank - 1)
    parts = [x]
    for _ in range(d.integer(0, 3)):
        same = [t for t in b.visible() if t.dtype == FLOAT and t.rank == x.rank and _agree(t, x, axis)]
        sizes = [*x.shape]
        sizes[axis] = d.choice([1, 2, 0])
        parts.append(d.choice([x, *same]) if d.chance(60) else b.floats(*sizes))
    order = d.order(len(parts))
    return forms.concat(b, [parts[at] for at in order], axis - x.rank if d.chance(30) else axis)


def _agree(one: Tensor, other: Tensor, axis: int) -> bool:
    return all(at == axis or one.shape[at] == other.shape[at] for at in range(other.rank))


@snippet("split", 8, RANKED)
def split(d: Draw, b: Builder, x: Tensor) -> Made:
    axes = [at for at, dim in enumerate(x.shape) if dim >= 2]
    if not axes:
        return None
    axis = d.choice(axes)
    sizes = d.parts(x.shape[axis], d.integer(1, min(3, x.shape[axis])))
    if d.chance(50) and x.shape[axis] % len(sizes) == 0:
        sizes = [x.shape[axis] // len(sizes)] * len(sizes)
    if d.chance(8):
        sizes = [*sizes, 0]
    return forms.split(b, x, sizes, axis - x.rank if d.chance(20) else axis)


@snippet("expand", 6, since=8)
def expand(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.rank > 4 or x.size > 2000:
        return None
    target = [d.choice([dim, 1, 3]) if dim == 1 else d.choice([dim, 1]) for dim in x.shape]
    target = [*([2, 1][: d.integer(0, 1)]), *target][d.choice([0, 0, 1]) :]
    return forms.expand(b, x, target)


@snippet("tile", 4, RANKED)
def tile(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.size > 1000:
        return None
    return b.emit("Tile", x, b.ints(*(d.choice([1, 2, 1, 3]) for _ in x.shape)))


@snippet("pad", 8, RANKED)
def pad(d: Draw, b: Builder, x: Tensor) -> Made:
    mode = d.choice(["constant", "edge", "reflect"])
    if min(x.shape) < 2:
        mode = "constant"
    if mode == "constant" and d.chance(25):
        pads = [-d.integer(0, (dim - 1) // 2) for dim in x.shape] * 2
    else:
        pads = [d.integer(0, 1 if mode != "constant" else 2) for _ in range(2 * x.rank)]
    if b.opset >= 18 and d.chance(20):
        axis = d.integer(0, x.rank - 1)
        return b.emit("Pad", x, b.ints(1, 0), None, b.ints(axis), mode=mode)
    return forms.pad(b, x, pads, mode, d.choice([None, 0.0, 1.5]) if mode == "constant" else None)


@snippet("triangle", 2, MATRIX, since=14)
def triangle(d: Draw, b: Builder, x: Tensor) -> Made:
    return b.emit(
        "Trilu", x, b.constant(np.array(d.integer(-1, 1), np.int64), structural=True), upper=int(d.chance(50))
    )
