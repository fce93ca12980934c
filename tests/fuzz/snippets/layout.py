"""Chains of Transpose, Reshape, Squeeze and their friends around operators that let them through."""

from __future__ import annotations

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import IMAGE, MATRIX, RANKED, TOKENS, Made, snippet
from tests.fuzz.snippets.movement import regrouped


def _inverse(order: list[int]) -> list[int]:
    return [order.index(at) for at in range(len(order))]


@snippet("transposes in a row", 12, RANKED)
def transposes(d: Draw, b: Builder, x: Tensor) -> Made:
    order = d.order(x.rank)
    y = b.between(forms.transpose(b, x, order))
    return forms.transpose(b, y, _inverse(order) if d.chance(50) else d.order(x.rank))


def _through(d: Draw, b: Builder, y: Tensor) -> Tensor:
    """An operator that a transpose can cross, with its axis or constant at the transposed place."""
    how = d.choice(["unary", "binary", "concat", "reduce", "pad", "softmax", "two", "slice", "split"])
    axis = d.integer(0, y.rank - 1)
    if how == "binary":
        shape = [dim if d.chance(50) else 1 for dim in y.shape][d.integer(0, y.rank) :]
        return b.emit(d.choice(["Add", "Mul"]), y, b.floats(*shape))
    if how == "concat":
        return forms.concat(b, [y, b.emit("Neg", y)], axis)
    if how == "reduce":
        return forms.reduce(b, d.choice(["ReduceMean", "ReduceMax"]), y, [axis], keepdims=1)
    if how == "pad":
        return forms.pad(b, y, [d.integer(0, 1) for _ in range(2 * y.rank)])
    if how == "softmax":
        return forms.softmax(b, y, axis)
    if how == "two":
        return b.emit("Mul", y, b.emit("Sigmoid", y))
    if how == "slice" and y.shape[axis] > 1:
        return forms.cut(b, y, axis, 1, y.shape[axis])
    if how == "split" and y.shape[axis] > 1:
        parts = forms.split(b, y, [1, y.shape[axis] - 1], axis)
        return forms.concat(b, parts[::-1], axis)
    return forms.activation(d, b, y, d.choice(["Relu", "Sigmoid", "Clip"]))


@snippet("transposes around", 18, MATRIX)
def transposes_around(d: Draw, b: Builder, x: Tensor) -> Made:
    order = [0, 2, 3, 1] if x.rank == 4 and d.chance(50) else d.order(x.rank)
    y = b.between(forms.transpose(b, x, order))
    for _ in range(d.integer(1, 2)):
        y = b.between(_through(d, b, y))
    return forms.transpose(b, y, _inverse(order) if d.chance(80) else d.order(y.rank))


@snippet("binary of two transposes", 8, MATRIX)
def binary_of_transposes(d: Draw, b: Builder, x: Tensor) -> Made:
    order = d.order(x.rank)
    one = b.between(forms.transpose(b, x, order))
    two = forms.transpose(b, b.emit("Neg", x), order)
    y = b.emit("Add", one, two)
    return forms.transpose(b, y, _inverse(order)) if d.chance(60) else y


@snippet("reshapes in a row", 14, RANKED)
def reshapes(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.size == 0:
        return None
    y = x
    for _ in range(d.integer(1, 2)):
        y = b.between(forms.reshape(b, y, regrouped(d, y)))
        if d.chance(20):
            y = b.emit("Relu", y)
    return forms.reshape(b, y, list(x.shape)) if d.chance(50) else forms.reshape(b, y, [0, -1] if y.rank >= 2 else [-1])


@snippet("squeezes and unsqueezes", 12, RANKED)
def squeezes(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.rank > 4:
        return None
    axis = d.integer(0, x.rank)
    y = b.between(forms.unsqueeze(b, x, [axis]))
    how = d.choice(["back", "other", "reshape", "flatten", "transpose", "again"])
    if how == "back":
        return forms.squeeze(b, y, [axis])
    if how == "other":
        return forms.squeeze(b, y, d.choice([[at] for at, dim in enumerate(y.shape) if dim == 1]))
    if how == "reshape" and y.size:
        return forms.reshape(b, y, regrouped(d, y))
    if how == "flatten":
        return b.emit("Flatten", y, axis=d.integer(0, y.rank))
    if how == "transpose":
        return forms.transpose(b, y, d.order(y.rank))
    return forms.unsqueeze(b, y, [0]) if y.rank < 5 else y


@snippet("transpose of size-one axes", 8, RANKED)
def transpose_ones(d: Draw, b: Builder, x: Tensor) -> Made:
    y = forms.unsqueeze(b, x, [d.integer(0, x.rank)]) if x.rank < 5 else x
    ones = [at for at, dim in enumerate(y.shape) if dim == 1]
    order = list(range(y.rank))
    if ones:
        moved = d.choice(ones)
        order.remove(moved)
        order.insert(d.integer(0, y.rank - 1), moved)
    return forms.transpose(b, y, order)


@snippet("transposed constant", 6, MATRIX)
def transposed_constant(d: Draw, b: Builder, x: Tensor) -> Made:
    weight = b.floats(d.integer(1, 4), x.shape[-1], scale=0.5)
    return b.emit("MatMul", x, b.between(forms.transpose(b, weight, [1, 0])))


@snippet("channels last conv", 10, IMAGE)
def channels_last(d: Draw, b: Builder, x: Tensor) -> Made:
    """A conv as a framework that keeps channels last writes it: transposes on both sides."""
    if x.shape[1] * x.shape[2] > 64:
        return None
    y = forms.transpose(b, forms.transpose(b, x, [0, 2, 3, 1]), [0, 3, 1, 2])
    y = forms.transpose(b, forms.conv(d, b, y, d.integer(1, 4), [1, 1]), [0, 2, 3, 1])
    y = forms.activation(d, b, b.between(b.emit("Add", y, b.floats(y.shape[-1]))), "Relu")
    return forms.transpose(b, y, [0, 3, 1, 2])


@snippet("heads", 10, TOKENS)
def heads(d: Draw, b: Builder, x: Tensor) -> Made:
    """Split a width into heads and put it together again, as attention does."""
    n, t, width = x.shape
    count = d.choice([2, 4])
    y = forms.reshape(
        b, x, d.choice([[n, t, count, width // count], [0, 0, count, -1], [0, -1, count, width // count]])
    )
    y = b.between(forms.transpose(b, b.between(y), [0, 2, 1, 3]))
    y = forms.transpose(b, y, [0, 2, 1, 3])
    return forms.reshape(b, y, d.choice([[n, t, width], [0, 0, -1], [n, -1, width]]))


@snippet("flatten family", 6, RANKED)
def flattening(d: Draw, b: Builder, x: Tensor) -> Made:
    if 0 in x.shape:
        return None
    y = b.emit("Flatten", x, axis=1)
    how = d.choice(["reshape", "flatten", "squeeze"])
    if how == "reshape":
        return forms.reshape(b, b.between(y), d.choice([[-1], list(x.shape), [x.shape[0], -1]]))
    if how == "flatten":
        return b.emit("Flatten", b.between(y), axis=d.integer(0, 2))
    return forms.squeeze(b, forms.unsqueeze(b, y, [2]), None)
