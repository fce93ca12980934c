"""Operators that do nothing, the near misses that do a little, and computations that occur twice."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import ANY, DOUBLE, FLOAT, IMAGE, INTEGER, RANKED, Made, snippet


@snippet("identity chain", 10, ANY)
def identity_chain(d: Draw, b: Builder, x: Tensor) -> Made:
    for _ in range(d.integer(1, 3)):
        x = b.between(b.emit("Identity", x))
    return x


@snippet("dropout", 10, RANKED)
def dropout(d: Draw, b: Builder, x: Tensor) -> Made:
    made = forms.dropout(b, x, d.choice([0.5, 0.0, 0.1]), d.chance(40))
    if len(made) == 2 and made[1].dtype == TensorProto.BOOL and b.opset >= 9 and d.chance(60):
        return b.emit("Where", made[1], made[0], b.constant(np.float32(7)))
    return made


@snippet("movement that moves nothing", 24, RANKED)
def still_movement(d: Draw, b: Builder, x: Tensor) -> Made:
    rank, axis = x.rank, d.integer(0, x.rank - 1)
    how = d.choice(
        [
            "transpose",
            "reshape",
            "slice",
            "pad",
            "tile",
            "expand",
            "concat",
            "split",
            "flatten",
            "gather",
            "squeeze",
            "resize",
        ]
    )
    if how == "transpose":
        return forms.transpose(b, x, list(range(rank)))
    if how == "reshape" and x.size:
        return forms.reshape(b, x, d.choice([list(x.shape), [0] * rank, [*[0] * (rank - 1), -1], [-1, *x.shape[1:]]]))
    if how == "slice":
        return forms.slices(b, x, [0], [d.choice([x.shape[axis], forms.INT64_MAX])], [axis])
    if how == "pad":
        return forms.pad(b, x, [0] * 2 * rank, d.choice(["constant", "edge"]))
    if how == "tile":
        return b.emit("Tile", x, b.ints(*[1] * rank))
    if how == "expand" and b.opset >= 8:
        return forms.expand(b, x, d.choice([list(x.shape), [1] * rank, [1], list(x.shape[1:])]))
    if how == "concat":
        return forms.concat(b, [x], axis)
    if how == "split" and x.shape[axis]:
        return forms.split(b, x, [x.shape[axis]], axis)
    if how == "flatten" and rank == 2:
        return b.emit("Flatten", x)
    if how == "gather" and x.shape[axis]:
        return b.emit("Gather", x, b.ints(*range(x.shape[axis])), axis=axis)
    if how == "squeeze":
        return forms.squeeze(b, forms.unsqueeze(b, x, [axis]), [axis])
    return b.emit("Identity", x)


@snippet("arithmetic with neutral constants", 16, RANKED)
def neutral_arithmetic(d: Draw, b: Builder, x: Tensor) -> Made:
    """x+0, x-0, x*1, x/1, x**1 and their near misses: the other side, a shape that broadcasts up, one wrong element."""
    op, neutral = d.choice(
        [("Add", 0.0), ("Mul", 1.0), ("Sub", 0.0), ("Div", 1.0), ("Pow", 1.0), ("Add", -0.0), ("Mul", 0.0)]
    )
    shape = d.choice([(), (1,), x.shape[-1:], x.shape, (1, *x.shape), (2, *x.shape)])
    value = np.full(shape, neutral, np.float32)
    if value.size > 1 and d.chance(15):
        value.flat[-1] = 2.0
    other = b.constant(value)
    swap = (op in ("Add", "Mul") and d.chance(30)) or (d.chance(5) and op != "Pow")
    if swap and op == "Div":
        return b.emit("Div", other, b.emit("Add", b.emit("Abs", x), b.constant(np.float32(1))))
    return b.emit(op, *([other, x] if swap else [x, other]))


@snippet("integer neutral", 5, INTEGER)
def integer_neutral(d: Draw, b: Builder, x: Tensor) -> Made:
    op, neutral = d.choice([("Add", 0), ("Mul", 1), ("Sub", 0), ("Div", 1)])
    return b.emit(op, x, b.constant(np.array(neutral, x.numpy_dtype)))


@snippet("cast chain", 14, ANY, since=9)
def cast_chain(d: Draw, b: Builder, x: Tensor) -> Made:
    """Casts forth and back: some lose nothing, some round, and only the first kind may go away."""
    if x.dtype not in (FLOAT, DOUBLE, TensorProto.INT32, TensorProto.INT64):
        return forms.cast(b, x, x.dtype)
    through = d.choice(
        [x.dtype, DOUBLE, FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.BOOL]
    )
    y = b.between(forms.cast(b, x, through))
    if d.chance(30):
        y = b.between(forms.cast(b, y, d.choice([FLOAT, DOUBLE, TensorProto.INT64])))
    return forms.cast(b, y, x.dtype)


@snippet("repeated activation", 8, RANKED)
def repeated_activation(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice(["Relu", "Abs", "Ceil", "Floor", "Neg", "Round", "Sign", "Sigmoid", "Clip"])
    if op == "Clip":
        y = forms.clip(b, b.between(b.emit("Relu", x)), 0.0, d.choice([6.0, None]))
        return b.emit("Relu", b.between(y)) if d.chance(50) else y
    if not b.has(op):
        return None
    second = d.choice(["Relu", "Abs", "Floor"]) if d.chance(20) else op
    return b.emit(second, b.between(b.emit(op, x)))


@snippet("same computation twice", 14, RANKED)
def twice(d: Draw, b: Builder, x: Tensor) -> Made:
    """Equal nodes on one tensor; now and then they differ in an attribute, or are random."""
    how = d.choice(["unary", "commuted", "transpose", "deep", "random", "differ", "dead end"])
    if how == "unary":
        one, two = b.emit("Tanh", x), b.emit("Tanh", x)
    elif how == "commuted":
        other = b.floats(x.shape[-1])
        one, two = b.emit("Add", x, other), b.emit("Add", other, x)
    elif how == "transpose":
        one, two = forms.transpose(b, x, None), forms.transpose(b, x, list(reversed(range(x.rank))))
    elif how == "deep":
        one, two = (b.emit("Exp", b.emit("Neg", b.emit("Abs", x))) for _ in range(2))
    elif how == "random":
        one, two = b.emit("Sub", x, x), b.emit("Mul", x, x)
    elif how == "differ":
        one, two = b.emit("LeakyRelu", x, alpha=0.1), b.emit("LeakyRelu", x, alpha=d.choice([0.1, 0.2]))
    else:
        return [b.emit("Sigmoid", x), b.expose(b.emit("Sigmoid", x))]
    if d.chance(50):
        return [one, two]
    return b.emit("Mul", one, two) if one.shape == two.shape else [one, two]


@snippet("equal constants", 6, RANKED)
def equal_constants(d: Draw, b: Builder, x: Tensor) -> Made:
    value = d.floats(x.shape[-1:])
    one, two = b.constant(value), b.constant(value.copy())
    return b.emit("Mul", b.emit("Add", x, one), two)


@snippet("pooling that does nothing", 3, IMAGE)
def still_pooling(d: Draw, b: Builder, x: Tensor) -> Made:
    return b.emit(d.choice(["MaxPool", "AveragePool"]), x, kernel_shape=[1, 1], strides=[1, 1])


@snippet("reduce over ones", 6, RANKED)
def reduce_over_ones(d: Draw, b: Builder, x: Tensor) -> Made:
    y = forms.unsqueeze(b, x, [0]) if x.shape[0] != 1 else x
    op = d.choice(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceL1", "ReduceProd"])
    return forms.reduce(b, op, b.between(y), [0], keepdims=int(d.chance(60)))


@snippet("dead branch", 6, RANKED)
def dead_branch(d: Draw, b: Builder, x: Tensor) -> Made:
    """Nodes that nobody reads beside a living result."""
    lost = b.emit("Mul", x, x)
    forms.activation(d, b, lost, "Sigmoid")
    if d.chance(50):
        b.floats(3)
    return b.emit("Neg", x)


@snippet("idle resize", 3, IMAGE, since=13)
def idle_resize(d: Draw, b: Builder, x: Tensor) -> Made:
    mode = d.choice(["nearest", "linear"])
    if d.chance(50):
        return b.emit("Resize", x, None, b.constant(np.ones(4, np.float32), structural=True), mode=mode)
    return b.emit("Resize", x, None, None, b.ints(*x.shape), mode=mode)
