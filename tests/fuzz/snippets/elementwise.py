"""Element-wise operators: activations, arithmetic, comparisons, logic, casts."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import ANY, BOOLEAN, DOUBLE, FLOAT, HALF, INTEGER, NUMBERS, RANKED, Made, snippet

UNARY = [
    *["Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Floor", "Ceil", "Exp", "Softplus", "Softsign", "Sin", "Cos", "Atan"],
    *["Erf", "Sign", "Round", "Sinh", "Asinh", "HardSwish", "Mish", "Identity", "Reciprocal", "Sqrt", "Log", "Gelu"],
]
WITH_ALPHA = ["LeakyRelu", "Elu", "Selu", "HardSigmoid", "Celu", "ThresholdedRelu", "Swish", "Gelu"]


@snippet("unary", 20)
def unary(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice([op for op in UNARY if b.has(op)])
    if op in ("Sqrt", "Log", "Reciprocal"):  # keep away from the edges of their domain
        x = b.emit("Add", b.emit("Abs", x), b.constant(np.float32(0.5)))
    if op == "Exp":
        x = forms.clip(b, x, -4.0, 4.0)
    return b.emit(op, x)


@snippet("unary with attributes", 8)
def unary_with_attributes(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice([op for op in WITH_ALPHA if b.has(op)])
    if op == "Gelu":
        return b.emit(op, x, approximate=d.choice(["none", "tanh"]))
    named = {"alpha": d.choice([0.25, 0.5, 1.0, 0.01])} if d.chance(70) else {}
    if op in ("HardSigmoid",) and d.chance(50):
        named["beta"] = 0.4
    return b.emit(op, x, **named)


@snippet("composite activation", 10, RANKED)
def composite_activation(d: Draw, b: Builder, x: Tensor) -> Made:
    return forms.activation(d, b, x)


def _operand(d: Draw, b: Builder, x: Tensor) -> Tensor:
    """The other side of a binary operator: itself, a tensor of the pool, or a constant that broadcasts."""
    same = [t for t in b.visible() if t.dtype == x.dtype and t.shape == x.shape]
    roll = d.integer(0, 9)
    if roll >= 8:
        return x
    if roll >= 5 and same:
        return d.choice(same)
    shape = [1 if d.chance(40) else dim for dim in x.shape][d.integer(0, x.rank) :]
    if d.chance(5):
        shape = [*([1] * (x.rank + 1 - len(shape))), *shape]
    if x.dtype in (FLOAT, DOUBLE, HALF):
        return b.floats(*shape, dtype=x.dtype)
    return b.constant(d.random().integers(-3, 4, shape).astype(x.numpy_dtype))


@snippet("binary arithmetic", 24, NUMBERS)
def binary_arithmetic(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice(["Add", "Mul", "Sub", "Div"])
    other = _operand(d, b, x)
    if op == "Div":  # no division by zero
        magnitude = b.emit("Abs", other)
        one = b.constant(np.array(1, x.numpy_dtype))
        return b.emit("Div", x, b.emit("Add", magnitude, one))
    return b.emit(op, *([x, other] if d.chance(70) else [other, x]))


@snippet("special arithmetic", 6, NUMBERS, since=13)
def special_arithmetic(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice(["Max", "Min", "Mean", "Sum", "Pow", "Mod"])
    if x.dtype not in (FLOAT, DOUBLE) and op in ("Mean", "Sum", "Pow"):
        op = "Max"
    if op == "Pow":
        exponent = d.choice([2, 1, 3, 0, 0.5])
        return b.emit("Pow", b.emit("Abs", x) if exponent == 0.5 else x, b.constant(np.array(exponent, np.float32)))
    if op == "Mod":
        floating = x.dtype in (FLOAT, DOUBLE)
        divisor = b.constant(np.array(d.choice([3, 2, -2]), x.numpy_dtype))
        return b.emit("Mod", x, divisor, fmod=1 if floating or d.chance(30) else 0)
    others = [_operand(d, b, x) for _ in range(d.integer(0, 2))]
    return b.emit(op, x, *others)


@snippet("variadic", 5)
def variadic(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice(["Sum", "Max", "Min", "Mean"])
    parts = [x] + [_operand(d, b, x) for _ in range(d.integer(0, 3))]
    if b.opset < 8 and any(part.shape != x.shape for part in parts):
        return None  # no broadcasting yet
    return b.emit(op, *parts)


@snippet("integer arithmetic", 8, INTEGER)
def integer_arithmetic(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice(["Add", "Mul", "Sub", "Abs", "Neg", "Div", "Sign"])
    if op in ("Abs", "Neg", "Sign"):
        return b.emit(op, x) if op != "Sign" or b.opset >= 9 else None
    value = d.choice([1, 0, 2, -1, -3, 7])
    other = b.constant(np.array(value if op != "Div" else value or 2, x.numpy_dtype))
    return b.emit(op, x, other)


@snippet("bitwise", 3, INTEGER, since=18)
def bitwise(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice(["BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"])
    if op == "BitwiseNot":
        return b.emit(op, x)
    return b.emit(op, x, b.constant(np.array(d.choice([0, -1, 6]), x.numpy_dtype)))


@snippet("bit shift", 2, INTEGER, since=11)
def bit_shift(d: Draw, b: Builder, x: Tensor) -> Made:
    unsigned = forms.cast(b, b.emit("Abs", forms.cast(b, x, FLOAT)), TensorProto.UINT32)
    amount = b.constant(np.array(d.choice([0, 1, 3]), np.uint32))
    shifted = b.emit("BitShift", unsigned, amount, direction=d.choice(["LEFT", "RIGHT"]))
    return forms.cast(b, shifted, TensorProto.INT64)


@snippet("comparison", 8, NUMBERS, since=9)
def comparison(d: Draw, b: Builder, x: Tensor) -> Made:
    options = ["Greater", "Less", *(["Equal"] if b.opset >= 11 else [])]
    options += ["GreaterOrEqual", "LessOrEqual"] if b.opset >= 12 else []
    return b.emit(d.choice(options), x, _operand(d, b, x))


@snippet("where", 8, BOOLEAN, since=9)
def where(d: Draw, b: Builder, x: Tensor) -> Made:
    """Where over a run-time condition; one side may be the same tensor, or the shape comes from the constants."""
    dtype = d.choice([FLOAT, FLOAT, TensorProto.INT64])
    fitting = [t for t in b.visible() if t.dtype == dtype and t.shape == x.shape]
    yes = (
        d.choice(fitting)
        if fitting
        else b.constant(d.floats(x.shape, 2).astype(np.float32 if dtype == FLOAT else np.int64))
    )
    no = yes if d.chance(20) else b.constant(np.array(d.choice([0, 1, -5]), yes.numpy_dtype))
    return b.emit("Where", x, *([yes, no] if d.chance(60) else [no, yes]))


@snippet("where with a constant condition", 5, since=9)
def where_constant(d: Draw, b: Builder, x: Tensor) -> Made:
    shape = d.choice([(), (1,), x.shape, (2, *x.shape)])
    condition = np.full(shape, d.chance(50))
    if condition.size > 1 and d.chance(30):
        condition.flat[0] ^= True
    other = _operand(d, b, x)
    return b.emit("Where", b.constant(condition), *([x, other] if d.chance(50) else [other, x]))


@snippet("logic", 8, BOOLEAN)
def logic(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice(["Not", "And", "Or", "Xor"])
    if op == "Not":
        return b.emit("Not", b.between(b.emit("Not", x))) if d.chance(40) else b.emit("Not", x)
    same = [t for t in b.visible() if t.dtype == x.dtype and t.shape == x.shape]
    shape = d.choice([(), x.shape, (1, *x.shape)])
    other = d.choice(same) if same and d.chance(40) else b.constant(np.full(shape, d.chance(50)))
    return b.emit(op, x, other)


@snippet("number tests", 2, since=10)
def number_tests(d: Draw, b: Builder, x: Tensor) -> Made:
    return b.emit(d.choice(["IsNaN", "IsInf"]), x)


@snippet("cast", 10, ANY, since=9)
def cast(d: Draw, b: Builder, x: Tensor) -> Made:
    targets = [FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, DOUBLE, HALF, TensorProto.INT8]
    to = d.choice(targets)
    if x.dtype in (FLOAT, DOUBLE, HALF) and to in (TensorProto.INT8,):
        x = forms.clip(b, forms.cast(b, x, FLOAT), -100.0, 100.0)  # outside of the range the result is undefined
    return forms.cast(b, x, to)


@snippet("cast like", 3, ANY, since=15)
def cast_like(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.dtype not in (FLOAT, DOUBLE, *[TensorProto.INT64, TensorProto.INT32]):
        return None
    like = d.choice([t for t in b.visible() if t.dtype in (FLOAT, TensorProto.INT64)] or [b.floats(1)])
    return b.emit("CastLike", x, like)


@snippet("clip", 8, RANKED)
def clip(d: Draw, b: Builder, x: Tensor) -> Made:
    low = d.choice([0.0, None, -1.0, -0.5])
    high = d.choice([6.0, None, 1.0, 0.25, -2.0 if low is None else 2.0])
    y = forms.clip(b, x, low, high)
    if d.chance(40):
        y = forms.clip(b, b.between(y), d.choice([0.0, None, -2.0]), d.choice([1.0, None, 3.0]))
    return y


@snippet("clip with a run-time bound", 3, RANKED, since=11)
def clip_dynamic(d: Draw, b: Builder, x: Tensor) -> Made:
    bound = b.input(FLOAT, ())
    return b.emit("Clip", x, *([bound] if d.chance(50) else [None, bound]))


@snippet("random numbers", 3, before=22)
def random_numbers(d: Draw, b: Builder, x: Tensor) -> Made:
    """Two calls of a random operator must stay two; with noise times zero the result can still be compared."""
    op = d.choice(["RandomNormalLike", "RandomUniformLike"])
    noise = b.emit(op, x, **({"seed": float(d.integer(0, 3))} if d.chance(60) else {}))
    if b.opset >= 9:
        tested = b.emit("Greater", noise, b.constant(np.float32(1e30), structural=True))
        return b.emit("Add", x, forms.cast(b, tested, FLOAT))
    return b.emit("Add", x, b.emit("Floor", b.emit("Mul", noise, b.constant(np.float32(1e-30), structural=True))))
