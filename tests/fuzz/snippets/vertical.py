"""Chains that fuse vertically: conv and norm, affine before and after, residual blocks, branches that meet in Add."""

from __future__ import annotations

import numpy as np

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import FLAT, FLOAT, IMAGE, MATRIX, SPATIAL, Made, snippet


def per_channel(d: Draw, b: Builder, x: Tensor) -> Tensor:
    """A constant that scales or shifts channels: [1,C,1,1], [C,1,1], a scalar; near misses: full shape, per column."""
    ones = [1] * (x.rank - 2)
    options = [(1, x.shape[1], *ones), (x.shape[1], *ones), (), (1,), (1, 1, *ones), (1, x.shape[1], *ones)]
    if d.chance(12):
        options = [x.shape, x.shape[-1:], (1, *x.shape[1:])]
    if d.chance(4):
        return b.input(FLOAT, options[0])
    return b.floats(*d.choice(options))


def affine(d: Draw, b: Builder, x: Tensor) -> Tensor:
    op = d.choice(["Add", "Mul", "Sub", "Div"])
    other = per_channel(d, b, x)
    if op == "Div":
        if other.value is None:
            return b.emit("Mul", x, other)
        other = b.constant(np.abs(other.value) + np.float32(0.5))
    turned = (op in ("Add", "Mul") and d.chance(30)) or (op == "Sub" and d.chance(10))
    return b.emit(op, *([other, x] if turned else [x, other]))


def small_conv(d: Draw, b: Builder, x: Tensor) -> Tensor:
    kernel = [d.choice([3, 1])] * (x.rank - 2)
    channels = x.shape[1]
    group = d.choice([1, 1, channels, *([2] if channels % 2 == 0 else [])])
    named: dict[str, object] = {"pads": forms.same_pads(kernel)} if d.chance(70) else {}
    if d.chance(20):
        named["strides"] = [2] * (x.rank - 2)
    return forms.conv(d, b, x, group * d.integer(1, 2), kernel, group=group, **named)


@snippet("conv and batch norm", 16, SPATIAL)
def conv_norm(d: Draw, b: Builder, x: Tensor) -> Made:
    y = b.between(small_conv(d, b, x))
    y = forms.batch_norm(b, y)
    return forms.activation(d, b, b.between(y)) if d.chance(50) else y


@snippet("conv and affine", 16, SPATIAL)
def conv_affine(d: Draw, b: Builder, x: Tensor) -> Made:
    y = b.between(small_conv(d, b, x))
    for _ in range(d.integer(1, 3)):
        y = b.between(affine(d, b, y))
    return y


@snippet("affine and conv", 14, SPATIAL)
def affine_conv(d: Draw, b: Builder, x: Tensor) -> Made:
    y = forms.batch_norm(b, x) if d.chance(50) else affine(d, b, x)
    if y.rank != x.rank or y.shape != x.shape:
        return y
    return small_conv(d, b, b.between(y))


@snippet("transposed conv and norm", 6, IMAGE)
def conv_transpose_norm(d: Draw, b: Builder, x: Tensor) -> Made:
    group = d.choice([1, *([2] if x.shape[1] % 2 == 0 else [])])
    per_group = d.integer(1, 3)
    bias = b.floats(group * per_group) if d.chance(40) else None
    y = b.emit("ConvTranspose", x, b.floats(x.shape[1], per_group, 2, 2, scale=0.4), bias, group=group, strides=[2, 2])
    y = b.between(y)
    return forms.batch_norm(b, y) if d.chance(60) else affine(d, b, y)


@snippet("pad and conv", 14, IMAGE)
def pad_conv(d: Draw, b: Builder, x: Tensor) -> Made:
    pads = [0, 0, d.integer(0, 2), d.integer(0, 2)] * 2 if d.chance(60) else [0, 0, 0, 1, 0, 0, 1, 0]
    mode, value = "constant", d.choice([None, 0.0])
    miss = d.integer(0, 29)
    if miss == 25:
        mode = "edge"
    elif miss == 26:
        mode = "reflect"
    elif miss == 27:
        value = 1.0
    elif miss == 28:
        pads[1] = 1
    elif miss == 29:
        pads[2] = -1
    y = b.between(forms.pad(b, x, pads, mode, value))
    named: dict[str, object] = {"pads": [d.integer(0, 1) for _ in range(4)]} if d.chance(40) else {}
    what = d.choice(["conv", "conv", "average", "max"])
    if what == "conv":
        if d.chance(10):
            named = {"auto_pad": d.choice(["SAME_UPPER", "VALID"])}
        return forms.conv(d, b, y, d.integer(1, 4), [3, 3], **named)
    if what == "average":
        return b.emit("AveragePool", y, kernel_shape=[2, 2], count_include_pad=int(d.chance(70)), **named)
    return b.emit("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], **named)


@snippet("pad with minus infinity and max pool", 4, IMAGE)
def pad_max_pool(d: Draw, b: Builder, x: Tensor) -> Made:
    value = d.choice([float("-inf"), -3.4028234663852886e38, 0.0])
    y = b.between(forms.pad(b, x, [0, 0, 1, 1, 0, 0, 1, 1], "constant", value))
    return b.emit("MaxPool", y, kernel_shape=[3, 3], strides=[d.choice([2, 1])] * 2)


@snippet("residual block", 8, IMAGE)
def residual(d: Draw, b: Builder, x: Tensor) -> Made:
    y = forms.conv(d, b, x, x.shape[1], [3, 3], pads=[1, 1, 1, 1])
    if d.chance(50):
        y = forms.batch_norm(b, y)
    y = b.between(forms.activation(d, b, y, "Relu"))
    y = forms.conv(d, b, y, x.shape[1], [3, 3], pads=[1, 1, 1, 1])
    return b.emit("Relu", b.between(b.emit("Add", *([b.between(y), x] if d.chance(60) else [x, y]))))


@snippet("branches that meet in Add", 16, IMAGE)
def reparameterized(d: Draw, b: Builder, x: Tensor) -> Made:
    """RepVGG and ACNet blocks: parallel convs of several kernels, a norm or the input itself, added up."""
    group = d.choice([1, 1, 1, *(g for g in (2, x.shape[1]) if x.shape[1] % g == 0)])
    stride = 2 if d.chance(15) else 1
    width = x.shape[1] if d.chance(70) or group > 1 else d.integer(1, 4)
    branches = [_branch(d, b, x, width, group, stride) for _ in range(d.integer(2, 3))]
    if width == x.shape[1] and stride == 1 and d.chance(50):
        branches.append(forms.batch_norm(b, x) if d.chance(60) else x)
    total = branches[0]
    if d.chance(20):
        total = b.emit("Sum", *branches)
    else:
        for branch in branches[1:]:
            total = b.emit("Add", b.between(total), branch)
    return forms.activation(d, b, total, "Relu") if d.chance(50) else total


def _branch(d: Draw, b: Builder, x: Tensor, width: int, group: int, stride: int) -> Tensor:
    kernel = d.choice([[3, 3], [1, 1], [3, 3], [1, 3], [3, 1]])
    named: dict[str, object] = {"pads": forms.same_pads(kernel)} if max(kernel) > 1 or d.chance(40) else {}
    if stride > 1 or d.chance(30):
        named["strides"] = [stride, stride]
    y = b.between(forms.conv(d, b, x, width, kernel, group=group, **named))
    return forms.batch_norm(b, y) if d.chance(40) else y


@snippet("chain of 1x1 convs", 12, SPATIAL)
def pointwise_chain(d: Draw, b: Builder, x: Tensor) -> Made:
    """1x1 after 1x1, sometimes with a larger, strided or grouped one among them."""
    for _ in range(2):
        kernel = [d.choice([1, 1, 1, 1, 1, 3])] * (x.rank - 2)
        group = d.choice([1, 1, 1, 1, x.shape[1]])
        named = {"strides": [2] * (x.rank - 2)} if d.chance(10) and min(x.shape[2:]) > 4 else {}
        x = b.between(
            forms.conv(d, b, x, group * d.choice([1, 2, 3, 8]) if group < 5 else group, kernel, group=group, **named)
        )
    return x


@snippet("gemm and norm", 8, FLAT)
def gemm_norm(d: Draw, b: Builder, x: Tensor) -> Made:
    n = d.integer(1, 5)
    how = d.choice(["gemm", "matmul", "matmul+add"])
    if how == "gemm":
        flag = int(d.chance(50))
        shape = (n, x.shape[1]) if flag else (x.shape[1], n)
        y = b.emit("Gemm", x, b.floats(*shape), b.floats(*d.choice([(n,), (1, n), ()])), transB=flag)
    else:
        y = b.emit("MatMul", x, b.floats(x.shape[1], n))
        if how == "matmul+add":
            y = b.emit("Add", b.between(y), b.floats(n))
    y = b.between(y)
    if d.chance(60):
        return forms.batch_norm(b, y)
    return b.emit(d.choice(["Mul", "Add"]), y, b.floats(*d.choice([(n,), (1, n), (), (x.shape[0], 1)])))


@snippet("matmul and add", 10, MATRIX)
def matmul_add(d: Draw, b: Builder, x: Tensor) -> Made:
    n = d.integer(1, 5)
    y = b.between(b.emit("MatMul", x, b.floats(x.shape[-1], n, scale=0.5)))
    bias = b.floats(*d.choice([(n,), (1, n), (), (1,), (1, 1, 1, 1, n), (x.shape[-2], 1)]))
    return b.emit("Add", *([y, bias] if d.chance(60) else [bias, y]))


@snippet("conv and bias add", 10, SPATIAL)
def conv_bias(d: Draw, b: Builder, x: Tensor) -> Made:
    kernel = [d.choice([1, 3])] * (x.rank - 2)
    y = b.between(forms.conv(d, b, x, d.integer(1, 4), kernel, bias=d.chance(20)))
    bias = per_channel(d, b, y)
    return forms.activation(d, b, b.between(b.emit("Add", *([y, bias] if d.chance(60) else [bias, y]))))


@snippet("several norms in a row", 5, IMAGE)
def norms(d: Draw, b: Builder, x: Tensor) -> Made:
    parameters = forms.norm_parameters(b, x.shape[1])
    y = b.between(forms.batch_norm(b, x, parameters if d.chance(50) else None))
    return forms.batch_norm(b, y, parameters)
