"""MatMul, Gemm, Einsum, recurrent layers and normalizations over the last axes."""

from __future__ import annotations

import numpy as np

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import DOUBLE, FLAT, FLOAT, IMAGE, MATRIX, RANKED, TOKENS, Made, snippet


def weight(d: Draw, b: Builder, *shape: int) -> Tensor:
    """A constant [..., K, N] of a size that keeps the products near one; now and then an input instead (near miss)."""
    if d.chance(6):
        return b.input(FLOAT, shape)
    return b.floats(*shape, scale=max(1, shape[-2]) ** -0.5)


@snippet("matmul", 10, MATRIX)
def matmul(d: Draw, b: Builder, x: Tensor) -> Made:
    inner, n = x.shape[-1], d.integer(1, 6)
    batch = x.shape[:-2][d.integer(0, x.rank - 2) :] if d.chance(30) else ()
    y = b.emit("MatMul", x, weight(d, b, *batch, inner, n))
    return b.emit("Add", b.between(y), b.floats(n)) if d.chance(40) else y


@snippet("matmul of vectors", 3, RANKED)
def matmul_vectors(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.shape[-1] == 0:
        return None
    return b.emit("MatMul", x, b.floats(x.shape[-1]))


@snippet("matmul of computed tensors", 6, MATRIX)
def matmul_computed(d: Draw, b: Builder, x: Tensor) -> Made:
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    turned = b.between(forms.transpose(b, x, order))
    return b.emit("MatMul", *([x, turned] if d.chance(50) else [turned, x]))


@snippet("gemm", 12, FLAT)
def gemm(d: Draw, b: Builder, x: Tensor) -> Made:
    trans_a, trans_b, n = int(d.chance(30)), int(d.chance(50)), d.integer(1, 6)
    rows, inner = (x.shape[1], x.shape[0]) if trans_a else x.shape
    w = weight(d, b, *([n, inner] if trans_b else [inner, n]))
    shape = d.choice([(n,), (1, n), (rows, n), (rows, 1), (1,), (), None])
    bias = None if shape is None else b.floats(*shape)
    if bias is None and b.opset < 11:
        bias = b.floats(n)
    named = {"transA": trans_a} if trans_a or d.chance(20) else {}
    named |= {"transB": trans_b} if trans_b or d.chance(20) else {}
    scales = {key: d.choice([0.5, 2.0, 0.0, 1.0]) for key in ("alpha", "beta") if d.chance(30)}
    return b.emit("Gemm", x, w, bias, **named, **scales)


@snippet("gemm of a transpose", 5, FLAT)
def gemm_of_transpose(d: Draw, b: Builder, x: Tensor) -> Made:
    turned = b.between(forms.transpose(b, x, d.choice([[1, 0], None])))
    flag = int(d.chance(40))
    inner = turned.shape[0] if flag else turned.shape[1]
    n = d.integer(1, 4)
    w = weight(d, b, inner, n)
    if d.chance(40):
        return b.emit("MatMul", forms.transpose(b, turned, [1, 0]) if flag else turned, w)
    return b.emit("Gemm", turned, w, b.floats(n), transA=flag)


@snippet("chain of matmuls", 6, MATRIX)
def matmul_chain(d: Draw, b: Builder, x: Tensor) -> Made:
    middle, n = d.integer(1, 5), d.integer(1, 5)
    y = b.between(b.emit("MatMul", x, weight(d, b, x.shape[-1], middle)))
    if d.chance(30):
        y = b.between(b.emit("Add", y, b.floats(middle)))
    return b.emit("MatMul", y, weight(d, b, middle, n))


@snippet("double precision", 4, MATRIX)
def double_precision(d: Draw, b: Builder, x: Tensor) -> Made:
    y = forms.cast(b, x, DOUBLE)
    y = b.emit("MatMul", y, b.floats(x.shape[-1], 3, dtype=DOUBLE))
    y = b.emit("Mul", y, b.floats(3, dtype=DOUBLE))
    return forms.cast(b, y, FLOAT) if d.chance(60) else y


@snippet("einsum", 3, TOKENS, since=12)
def einsum(d: Draw, b: Builder, x: Tensor) -> Made:
    equation = d.choice(["bij,jk->bik", "bij,kj->bik", "bij,bkj->bik", "bij->bji", "bij->bi"])
    if "," not in equation:
        return b.emit("Einsum", x, equation=equation)
    if "bkj" in equation:
        return b.emit("Einsum", x, x, equation=equation)
    width, n = x.shape[2], d.integer(1, 4)
    return b.emit("Einsum", x, b.floats(*([width, n] if ",jk" in equation else [n, width])), equation=equation)


@snippet("recurrent layer", 4, TOKENS)
def recurrent(d: Draw, b: Builder, x: Tensor) -> Made:
    op, gates = d.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    direction = d.choice(["forward", "reverse", "bidirectional"])
    count, hidden = 2 if direction == "bidirectional" else 1, d.integer(1, 3)
    w = b.floats(count, gates * hidden, x.shape[2], scale=0.4)
    r = b.floats(count, gates * hidden, hidden, scale=0.4)
    bias = b.floats(count, 2 * gates * hidden) if d.chance(50) else None
    outputs = d.integer(1, 3 if op == "LSTM" else 2)
    extra = {"linear_before_reset": 1} if op == "GRU" and d.chance(50) else {}
    made = b.emit(op, x, w, r, bias, outputs=outputs, hidden_size=hidden, direction=direction, **extra)
    return made


@snippet("layer normalization", 5, TOKENS, since=17)
def layer_normalization(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = d.choice([-1, 2, 1])
    shape = x.shape[axis:]
    bias = b.floats(*shape) if d.chance(60) else None
    return b.emit("LayerNormalization", x, b.floats(*shape), bias, axis=axis, epsilon=d.choice([1e-5, 1e-2]))


@snippet("channel normalizations", 5, IMAGE)
def channel_normalizations(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice(
        ["InstanceNormalization", "LRN", "LpNormalization", "GroupNormalization", "MeanVarianceNormalization"]
    )
    channels = x.shape[1]
    if op == "InstanceNormalization":
        return b.emit(op, x, b.floats(channels), b.floats(channels), epsilon=1e-2)
    if op == "LRN":
        return b.emit(op, x, size=d.choice([3, 5, 1]), alpha=0.01, beta=0.75, bias=1.0)
    if op == "LpNormalization":
        return b.emit(op, x, axis=d.choice([1, 2, 3]), p=d.choice([2, 1]))
    if op == "MeanVarianceNormalization":
        return b.emit(op, x) if b.opset >= 9 else None
    if b.opset < 18:
        return None
    groups = d.choice([g for g in (1, 2, 3) if channels % g == 0])
    size = channels if b.opset >= 21 else groups
    return b.emit(op, x, b.floats(size), b.floats(size), num_groups=groups, epsilon=1e-2)


@snippet("bfloat16", 2, RANKED, since=13)
def brain_floats(d: Draw, b: Builder, x: Tensor) -> Made:
    """bf16 passes through operators that only move data, which the CPU can run."""
    y = forms.cast(b, x, 16)
    y = b.emit("Identity", y) if d.chance(30) else forms.transpose(b, y, d.order(x.rank))
    return forms.cast(b, y, FLOAT)


@snippet("half precision", 5, RANKED)
def half_precision(d: Draw, b: Builder, x: Tensor) -> Made:
    half = 10
    y = forms.cast(b, forms.clip(b, x, -50.0, 50.0), half)
    y = b.emit(d.choice(["Add", "Mul"]), y, b.constant(d.floats((x.shape[-1],)).astype(np.float16)))
    if d.chance(50):
        y = b.emit("Relu", y)
    return forms.cast(b, y, FLOAT) if d.chance(70) else y
