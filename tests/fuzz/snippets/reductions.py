"""Reductions, Softmax in its old and new meaning, ArgMax, TopK, CumSum, OneHot."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import IMAGE, INTEGER, RANKED, Made, snippet

REDUCTIONS = [
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
]


@snippet("reduce", 12, RANKED)
def reduce(d: Draw, b: Builder, x: Tensor) -> Made:
    if 0 in x.shape:
        return None
    op = d.choice(REDUCTIONS)
    if op == "ReduceProd" and x.size > 64:
        op = "ReduceSum"
    axes = None if d.chance(15) else d.some(list(range(x.rank)), least=1)
    if axes is not None and d.chance(25):
        axes = [axis - x.rank for axis in axes]
    keepdims = int(d.chance(60))
    if axes is None and b.opset >= 18 and d.chance(40):
        return b.emit(op, x, noop_with_empty_axes=1)
    return forms.reduce(b, op, x, axes, keepdims)


@snippet("reduce log", 2, RANKED)
def reduce_log(d: Draw, b: Builder, x: Tensor) -> Made:
    if 0 in x.shape:
        return None
    if d.chance(50):
        return forms.reduce(b, "ReduceLogSumExp", x, [d.integer(0, x.rank - 1)])
    return forms.reduce(b, "ReduceLogSum", b.emit("Exp", forms.clip(b, x, -3.0, 3.0)), [d.integer(0, x.rank - 1)])


@snippet("integer reduce", 3, INTEGER, since=12)
def integer_reduce(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.rank == 0 or 0 in x.shape:
        return None
    return forms.reduce(b, d.choice(["ReduceSum", "ReduceMax", "ReduceMin"]), x, [d.integer(0, x.rank - 1)])


@snippet("softmax", 10, RANKED)
def softmax(d: Draw, b: Builder, x: Tensor) -> Made:
    if 0 in x.shape:
        return None
    axis = d.choice([None, -1, *range(x.rank)])
    if axis is None and b.opset < 13 and x.rank < 2:
        axis = 0
    return forms.softmax(b, x, axis, d.choice(["Softmax", "LogSoftmax", "Softmax", "Hardmax"]))


@snippet("arg max", 4, RANKED)
def arg_max(d: Draw, b: Builder, x: Tensor) -> Made:
    if 0 in x.shape:
        return None
    extra = {"select_last_index": 1} if b.opset >= 12 and d.chance(20) else {}
    axis = d.integer(-x.rank if b.opset >= 11 else 0, x.rank - 1)
    return b.emit(d.choice(["ArgMax", "ArgMin"]), x, axis=axis, keepdims=int(d.chance(60)), **extra)


@snippet("top k", 4, RANKED)
def top_k(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = d.integer(0, x.rank - 1)
    if 0 in x.shape:
        return None
    k = d.integer(1, x.shape[axis])
    if b.opset < 10:
        return b.emit("TopK", x, outputs=2, axis=axis, k=k)
    if b.opset < 11:
        return b.emit("TopK", x, b.ints(k), outputs=2, axis=axis)
    values, indices = b.emit("TopK", x, b.ints(k), outputs=2, axis=axis - x.rank, largest=int(d.chance(70)))
    return [values] if d.chance(50) else [values, indices]


@snippet("cumulative sum", 3, RANKED, since=11)
def cumulative_sum(d: Draw, b: Builder, x: Tensor) -> Made:
    axis = b.constant(np.array(d.integer(0, x.rank - 1), np.int64), structural=True)
    return b.emit("CumSum", x, axis, exclusive=int(d.chance(30)), reverse=int(d.chance(30)))


@snippet("one hot", 2, INTEGER, since=11)
def one_hot(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.rank == 0 or x.dtype != TensorProto.INT64:
        return None
    depth = b.constant(np.array(4, np.int64), structural=True)
    values = b.constant(np.array([0, 1], np.float32), structural=True)
    return b.emit("OneHot", x, depth, values, axis=-1, types=[(TensorProto.FLOAT, (*x.shape, 4))])


@snippet("means of a concat", 5, IMAGE)
def means_of_concat(d: Draw, b: Builder, x: Tensor) -> Made:
    """Concat on channels, then a mean over space."""
    other = b.between(forms.activation(d, b, x))
    both = b.between(forms.concat(b, [x, other], 1))
    return (
        b.emit("GlobalAveragePool", both)
        if d.chance(60)
        else forms.reduce(b, "ReduceMean", both, [2, 3], d.choice([1, 0]))
    )
