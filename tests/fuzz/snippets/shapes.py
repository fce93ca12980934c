"""Shape arithmetic and constants that are computed: Shape, Gather, Concat, Reshape, Range, ConstantOfShape."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import ANY, FLOAT, MATRIX, RANKED, Made, snippet


def shape_of(b: Builder, x: Tensor) -> Tensor:
    return b.emit("Shape", x)


def dimension(d: Draw, b: Builder, x: Tensor, axis: int) -> Tensor:
    """x.shape[axis] as a tensor [1], in one of the spellings that exporters write."""
    shape = shape_of(b, x)
    how = d.integer(0, 3)
    if how == 0:
        index = b.constant(np.array([axis], np.int64), structural=True)
        return b.emit("Gather", shape, index, axis=0)
    if how == 1:
        index = b.constant(np.array(axis, np.int64), structural=True)
        return forms.unsqueeze(b, b.emit("Gather", shape, index, axis=0), [0])
    if how == 2 and b.opset >= 15:
        return b.emit("Shape", x, start=axis, end=axis + 1)
    return forms.slices(b, shape, [axis], [axis + 1], [0])


@snippet("reshape by computed shape", 12, MATRIX)
def computed_reshape(d: Draw, b: Builder, x: Tensor) -> Made:
    keep = d.integer(1, x.rank - 1)
    parts = [b.between(dimension(d, b, x, axis)) for axis in range(keep)]
    rest = int(np.prod(x.shape[keep:], dtype=np.int64))
    target = forms.concat(b, [*parts, b.ints(-1 if d.chance(70) else rest)], 0)
    return b.emit("Reshape", x, b.between(target), types=[(x.dtype, (*x.shape[:keep], rest))])


@snippet("product of dimensions", 8, MATRIX)
def product_of_dimensions(d: Draw, b: Builder, x: Tensor) -> Made:
    one, other = dimension(d, b, x, 0), dimension(d, b, x, 1)
    merged = b.emit("Mul", one, other)
    rest = x.shape[2:]
    target = forms.concat(b, [merged, *(dimension(d, b, x, 2 + at) for at in range(len(rest)))], 0)
    return b.emit("Reshape", x, target, types=[(x.dtype, (x.shape[0] * x.shape[1], *rest))])


@snippet("expand by shape of another", 6, RANKED, since=8)
def expand_by_shape(d: Draw, b: Builder, x: Tensor) -> Made:
    row = b.floats(x.shape[-1])
    return b.emit("Expand", row, shape_of(b, x), types=[(FLOAT, x.shape)])


@snippet("constant of shape", 8, RANKED, since=9)
def constant_of_shape(d: Draw, b: Builder, x: Tensor) -> Made:
    dtype = d.choice([np.float32, np.int64, np.bool_])
    value = numpy_helper.from_array(np.array([d.choice([1, 0, 3])], dtype), "")
    named = {} if d.chance(20) else {"value": value}
    kind = value.data_type if named else FLOAT
    if d.chance(50):
        return b.emit("ConstantOfShape", shape_of(b, x), types=[(kind, x.shape)], **named)
    return b.emit("ConstantOfShape", b.ints(*x.shape), **named)


@snippet("masked by ones", 4, RANKED, since=9)
def masked_by_ones(d: Draw, b: Builder, x: Tensor) -> Made:
    one = numpy_helper.from_array(np.array([1], np.float32), "")
    mask = b.emit("ConstantOfShape", shape_of(b, x), types=[(FLOAT, x.shape)], value=one)
    return b.emit("Mul", x, mask)


@snippet("range", 5, RANKED, since=11)
def ranges(d: Draw, b: Builder, x: Tensor) -> Made:
    zero, one = (b.constant(np.array(v, np.int64), structural=True) for v in (0, 1))
    if d.chance(50):
        limit = forms.squeeze(b, dimension(d, b, x, x.rank - 1), [0])
        positions = b.emit("Range", zero, limit, one, types=[(TensorProto.INT64, (x.shape[-1],))])
    else:
        limit = b.constant(np.array(x.shape[-1], np.int64), structural=True)
        positions = b.emit("Range", zero, limit, one)
    return b.emit("Add", x, forms.cast(b, positions, FLOAT))


@snippet("size", 3, RANKED)
def size(d: Draw, b: Builder, x: Tensor) -> Made:
    return b.emit("Div", x, forms.cast(b, b.emit("Size", x), FLOAT)) if x.size else b.emit("Size", x)


@snippet("shape as output", 4, ANY)
def shape_as_output(d: Draw, b: Builder, x: Tensor) -> Made:
    if b.opset >= 15 and d.chance(50):
        return b.emit("Shape", x, start=d.integer(-3, 1), **({"end": d.integer(-2, 3)} if d.chance(50) else {}))
    return shape_of(b, x)


@snippet("constant subgraph", 10, RANKED)
def constant_subgraph(d: Draw, b: Builder, x: Tensor) -> Made:
    """Arithmetic on constants only, which can be folded, then joined to the data."""
    value = b.floats(x.shape[-1])
    for _ in range(d.integer(1, 3)):
        op = d.choice(["Add", "Mul", "Neg", "Transpose", "Cast", "Reshape", "Tanh"])
        if op in ("Add", "Mul"):
            value = b.emit(op, value, b.floats(x.shape[-1]))
        elif op == "Cast":
            value = forms.cast(b, forms.cast(b, value, TensorProto.DOUBLE), FLOAT)
        elif op == "Reshape":
            value = forms.reshape(b, forms.reshape(b, value, [1, -1]), [-1])
        else:
            value = b.emit(op, value)
    return b.emit(d.choice(["Add", "Mul"]), x, b.between(value))


@snippet("bloat", 3, RANKED, since=13)
def bloat(d: Draw, b: Builder, x: Tensor) -> Made:
    """Constants that would grow when folded."""
    tall = b.emit("Tile", b.floats(1, x.shape[-1]), b.ints(d.integer(2, 50), 1))
    return b.emit("Add", x, forms.reduce(b, "ReduceMean", tall, [0], keepdims=0))


@snippet("non zero", 2, RANKED, since=9)
def non_zero(d: Draw, b: Builder, x: Tensor) -> Made:
    """A shape that depends on data; the input of NonZero is constant here, so its shape is known."""
    mask = (d.random().integers(0, 2, x.shape[-1]) if x.rank else np.ones(1)).astype(np.int64)
    mask[:1] = 1
    where = b.emit("NonZero", b.constant(mask, structural=True), types=[(TensorProto.INT64, (1, int(mask.sum())))])
    flat = forms.squeeze(b, where, [0])
    return b.emit("Gather", x, flat, axis=x.rank - 1) if x.shape[-1] else None
