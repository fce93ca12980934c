"""Siblings: operators of one kind on one tensor that could be one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from onnx import TensorProto

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import IMAGE, MATRIX, RANKED, SPATIAL, TOKENS, Made, snippet


def _siblings(d: Draw, b: Builder, x: Tensor, count: int, same_kernel: bool) -> list[Tensor]:
    """Convs on x with equal geometry; unequal channels and mixed biases; rarely one differs in strides or group."""
    rank = x.rank - 2
    base, made = [d.choice([1, 3])] * rank, []
    strides = [2] * rank if d.chance(15) else None
    group = d.choice([1, 1, 1, 1, x.shape[1], 2 if x.shape[1] % 2 == 0 else 1])
    equal = group * d.integer(1, 3) if d.chance(40) else None
    for _ in range(count):
        kernel = base if same_kernel or d.chance(40) else [d.choice([1, 3, 5])] * rank
        kernel = [min(k, 3) for k in kernel] if min(x.shape[2:]) < 5 else kernel
        named: dict[str, object] = {"pads": forms.same_pads(kernel)} if max(kernel) > 1 or d.chance(30) else {}
        if strides or d.chance(10):
            named["strides"] = strides or [1] * rank
        own_group = 1 if d.chance(4) else group
        channels = equal or own_group * d.integer(1, 4)
        made.append(forms.conv(d, b, x, channels, kernel, group=own_group, **named))
    return made


def _after(d: Draw, b: Builder, parts: list[Tensor]) -> list[Tensor]:
    """Equal things behind each sibling: a norm, an activation; rarely not equal."""
    if d.chance(35):
        parts = [forms.batch_norm(b, b.between(part)) for part in parts]
    if d.chance(50):
        name = d.choice(["Relu", "Sigmoid", "Clip", "LeakyRelu"])
        if name == "LeakyRelu":
            parts = [b.emit("LeakyRelu", part, alpha=0.2 if d.chance(10) else 0.1) for part in parts]
        else:
            parts = [forms.activation(d, b, part, "Tanh" if d.chance(5) else name) for part in parts]
    return parts


def _meet(d: Draw, b: Builder, parts: list[Tensor], axis: int, extra: Callable[[], Tensor]) -> Made:
    """Siblings end apart, in one Concat in their order or another, or in a Concat with strangers between them."""
    how = d.choice(["concat", "permuted", "apart", "stranger", "two concats"])
    if how == "apart" or len({part.rank for part in parts}) > 1:
        return parts
    try:
        if how == "concat":
            return forms.concat(b, parts, axis)
        if how == "permuted":
            return forms.concat(b, [parts[at] for at in d.order(len(parts))], axis)
        if how == "stranger":
            where = d.integer(0, len(parts))
            return forms.concat(b, [*parts[:where], extra(), *parts[where:]], axis)
        return [forms.concat(b, parts, axis), forms.concat(b, list(reversed(parts)), axis)]
    except RuntimeError:
        return parts


@snippet("sibling convs", 24, SPATIAL)
def sibling_convs(d: Draw, b: Builder, x: Tensor) -> Made:
    parts = _siblings(d, b, x, d.integer(2, 3), same_kernel=True)
    parts = _after(d, b, [b.between(part) for part in parts])
    if len({part.shape[2:] for part in parts}) > 1:
        return parts
    return _meet(d, b, parts, 1, lambda: b.floats(parts[0].shape[0], 1, *parts[0].shape[2:]))


@snippet("sibling convs of several kernels", 10, SPATIAL)
def sibling_kernels(d: Draw, b: Builder, x: Tensor) -> Made:
    parts = _siblings(d, b, x, d.integer(2, 3), same_kernel=False)
    parts = _after(d, b, [b.between(part) for part in parts])
    if len({part.shape[2:] for part in parts}) > 1:
        return parts
    return _meet(d, b, parts, 1, lambda: b.floats(parts[0].shape[0], 1, *parts[0].shape[2:]))


@snippet("inception block", 8, IMAGE)
def inception(d: Draw, b: Builder, x: Tensor) -> Made:
    one = forms.activation(d, b, forms.conv(d, b, x, d.integer(1, 3), [1, 1]), "Relu")
    reduced = forms.activation(d, b, forms.conv(d, b, x, d.integer(1, 3), [1, 1]), "Relu")
    three = forms.activation(d, b, forms.conv(d, b, b.between(reduced), 2, [3, 3], pads=[1, 1, 1, 1]), "Relu")
    pooled = b.emit("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    last = forms.conv(d, b, pooled, d.integer(1, 3), [1, 1])
    return forms.concat(b, [one, three, last], 1)


@snippet("sibling matmuls", 16, MATRIX)
def sibling_matmuls(d: Draw, b: Builder, x: Tensor) -> Made:
    """Q, K and V: any widths, biases on all, some or none."""
    inner, equal, mode = x.shape[-1], d.integer(1, 4) if d.chance(50) else None, d.integer(0, 2)
    parts = []
    for _ in range(d.integer(2, 3)):
        n = equal or d.integer(1, 5)
        if x.rank == 2 and d.chance(30):
            flag = int(d.chance(50))
            parts.append(b.emit("Gemm", x, b.floats(*((n, inner) if flag else (inner, n))), b.floats(n), transB=flag))
            continue
        y = b.between(b.emit("MatMul", x, b.floats(inner, n, scale=0.5)))
        parts.append(b.emit("Add", y, b.floats(n)) if mode == 1 or (mode == 2 and d.chance(50)) else y)
    if d.chance(40):
        name = d.choice(["Relu", "Sigmoid", "Tanh"])
        parts = [forms.activation(d, b, part, name) for part in parts]
    return _meet(d, b, parts, x.rank - 1, lambda: b.floats(*x.shape[:-1], 1))


@snippet("sibling gemms", 8, MATRIX)
def sibling_gemms(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.rank != 2:
        return None
    inner, flag, parts = x.shape[1], int(d.chance(50)), []
    scales = {"alpha": 0.5} if d.chance(20) else {}
    for _ in range(d.integer(2, 3)):
        n = d.integer(1, 4)
        bias = b.floats(*d.choice([(n,), (1, n), (1,)])) if d.chance(70) or b.opset < 11 else None
        parts.append(b.emit("Gemm", x, b.floats(*((n, inner) if flag else (inner, n))), bias, transB=flag, **scales))
    return _meet(d, b, parts, 1, lambda: b.floats(x.shape[0], 1))


@snippet("gated linear unit", 6, TOKENS)
def gated(d: Draw, b: Builder, x: Tensor) -> Made:
    n = d.integer(2, 5)
    gate, up = (b.emit("MatMul", x, b.floats(x.shape[2], n, scale=0.5)) for _ in range(2))
    return b.emit("Mul", b.between(b.emit("Mul", gate, b.emit("Sigmoid", gate))), up)


@snippet("sibling pools", 6, IMAGE)
def sibling_pools(d: Draw, b: Builder, x: Tensor) -> Made:
    one, two = (b.emit("MaxPool", x, kernel_shape=[2, 2], strides=[d.choice([2, 2, 2, 1])] * 2) for _ in range(2))
    return [one, two]


@snippet("slices that tile an axis", 14, RANKED)
def tiling_slices(d: Draw, b: Builder, x: Tensor) -> Made:
    """Sibling Slices or Gathers over one axis; they tile it, or leave a gap, or overlap."""
    axis = d.integer(0, x.rank - 1)
    if x.shape[axis] < 2:
        return None
    edges, parts = [0], []
    for size in d.parts(x.shape[axis], d.integer(2, min(3, x.shape[axis]))):
        edges.append(edges[-1] + size)
    miss = d.chance(12)
    for at, (low, high) in enumerate(pairwise(edges)):
        parts.append(forms.cut(b, x, axis, low - 1 if miss and at == 1 else low, high))
    if d.chance(50):
        parts = [b.between(part) for part in parts]
        return forms.concat(b, [parts[at] for at in (range(len(parts)) if d.chance(70) else d.order(len(parts)))], axis)
    return parts


@snippet("gathers that tile an axis", 8, RANKED)
def tiling_gathers(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = d.integer(0, x.rank - 1)
    if not 2 <= x.shape[axis] <= 6:
        return None
    kind = d.choice(["scalar", "vector"])
    parts = []
    for at in range(x.shape[axis]):
        index = b.ints(at) if kind == "vector" else b.constant(b.ints(at).value.reshape(()), structural=True)
        parts.append(b.emit("Gather", x, index, axis=axis))
    if kind == "vector" and d.chance(50):
        return forms.concat(b, parts, axis)
    return parts


@snippet("equal casts and transposes", 6, RANKED)
def sibling_movement(d: Draw, b: Builder, x: Tensor) -> Made:
    if d.chance(50):
        return [b.emit("Cast", x, to=TensorProto.DOUBLE), b.emit("Cast", x, to=TensorProto.DOUBLE)]
    order = d.order(x.rank)
    return [forms.activation(d, b, forms.transpose(b, x, order), "Relu"), forms.transpose(b, x, order)]
