"""Composite spellings of operators: normalizations, activations and attention written out."""

from __future__ import annotations

import numpy as np

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import IMAGE, RANKED, TOKENS, Made, snippet


def scalar(b: Builder, value: float) -> Tensor:
    return b.constant(np.full(b.draw.choice([(), (1,)]), value, np.float32))


def _near(d: Draw, value: float) -> float:
    """The constant that the pattern wants, in rare cases another one."""
    return value if not d.chance(6) else value * d.choice([0.9, 2.0, -1.0])


def _square(d: Draw, b: Builder, x: Tensor) -> Tensor:
    if d.chance(50):
        return b.emit("Mul", x, x)
    return b.emit("Pow", x, b.constant(np.float32(_near(d, 2.0))))


def _swap(d: Draw, b: Builder, op: str, x: Tensor, other: Tensor) -> Tensor:
    return b.emit(op, *([x, other] if d.chance(65) else [other, x]))


@snippet("layer norm written out", 14, RANKED)
def layer_norm(d: Draw, b: Builder, x: Tensor) -> Made:
    if 0 in x.shape:
        return None
    axes = [-1] if d.chance(75) or x.rank < 2 else d.choice([[-2, -1], [0], [1], [x.rank - 1]])
    mean = forms.reduce(b, "ReduceMean", x, axes)
    centered = b.between(b.emit("Sub", x, mean))
    again = centered if d.chance(75) else b.emit("Sub", x, mean)
    variance = forms.reduce(b, "ReduceMean", _square(d, b, again), axes, keepdims=1)
    root = b.emit("Sqrt", b.between(_swap(d, b, "Add", variance, scalar(b, d.choice([1e-5, 1e-2])))))
    y = b.emit("Div", centered, root) if d.chance(70) else b.emit("Mul", centered, b.emit("Reciprocal", root))
    shape = x.shape[axes[0] :] if axes[0] < 0 else x.shape[-1:]
    if d.chance(80):
        y = _swap(d, b, "Mul", b.between(y), b.floats(*shape))
        y = _swap(d, b, "Add", y, b.floats(*shape)) if d.chance(80) else y
    return y


@snippet("RMS norm written out", 12, RANKED)
def rms_norm(d: Draw, b: Builder, x: Tensor) -> Made:
    if 0 in x.shape:
        return None
    mean = forms.reduce(b, "ReduceMean", _square(d, b, x), [-1] if d.chance(85) else [0])
    root = b.emit("Sqrt", b.between(_swap(d, b, "Add", mean, scalar(b, 1e-5))))
    how = d.choice(["div", "reciprocal", "one over"])
    if how == "div":
        y = b.emit("Div", x, root)
    elif how == "reciprocal":
        y = _swap(d, b, "Mul", x, b.emit("Reciprocal", root))
    else:
        y = b.emit("Mul", x, b.emit("Div", scalar(b, _near(d, 1.0)), root))
    return _swap(d, b, "Mul", b.between(y), b.floats(x.shape[-1])) if d.chance(80) else y


@snippet("GELU written out", 14, RANKED)
def gelu(d: Draw, b: Builder, x: Tensor) -> Made:
    how = d.choice(["erf", "tanh", "sigmoid"])
    if how == "erf" and b.opset >= 9:
        inner = b.emit("Div", x, scalar(b, _near(d, 2**0.5))) if d.chance(60) else b.emit("Mul", x, scalar(b, 0.5**0.5))
        one = _swap(d, b, "Add", b.between(b.emit("Erf", inner)), scalar(b, _near(d, 1.0)))
    elif how == "sigmoid":
        return _swap(d, b, "Mul", x, b.emit("Sigmoid", _swap(d, b, "Mul", x, scalar(b, _near(d, 1.702)))))
    else:
        cube = b.emit("Pow", x, b.constant(np.float32(3))) if d.chance(60) else b.emit("Mul", b.emit("Mul", x, x), x)
        summed = _swap(d, b, "Add", x, _swap(d, b, "Mul", cube, scalar(b, _near(d, 0.044715))))
        one = _swap(d, b, "Add", b.emit("Tanh", _swap(d, b, "Mul", summed, scalar(b, 0.7978845608))), scalar(b, 1.0))
    order = d.integer(0, 2)
    if order == 0:
        return _swap(d, b, "Mul", b.between(b.emit("Mul", x, one)), scalar(b, _near(d, 0.5)))
    if order == 1:
        return _swap(d, b, "Mul", b.emit("Mul", x, scalar(b, 0.5)), one)
    return b.emit("Mul", x, b.emit("Mul", one, scalar(b, 0.5)))


@snippet("activation written out", 18, RANKED)
def activations(d: Draw, b: Builder, x: Tensor) -> Made:
    how = d.choice(
        ["silu", "hard swish", "mish", "hard sigmoid", "leaky", "relu6", "softsign", "sigmoid", "hard swish op"]
    )
    if how == "silu":
        return _swap(d, b, "Mul", x, b.between(b.emit("Sigmoid", x)))
    if how == "mish":
        return _swap(d, b, "Mul", x, b.between(b.emit("Tanh", b.between(b.emit("Softplus", x)))))
    if how in ("hard swish", "hard sigmoid"):
        gate = forms.clip(b, _swap(d, b, "Add", x, scalar(b, _near(d, 3.0))), 0.0, _near(d, 6.0))
        if how == "hard sigmoid":
            return b.emit("Div", b.between(gate), scalar(b, 6.0))
        if d.chance(50):
            return b.emit("Div", _swap(d, b, "Mul", x, b.between(gate)), scalar(b, _near(d, 6.0)))
        return _swap(d, b, "Mul", x, b.emit("Mul", gate, scalar(b, 1 / 6)))
    if how == "hard swish op":
        return _swap(d, b, "Mul", x, b.emit("HardSigmoid", x, alpha=_near(d, 1 / 6), beta=0.5))
    if how == "leaky" and b.opset >= 8:
        return b.emit("Max", x, b.emit("Mul", x, scalar(b, _near(d, 0.1))))
    if how == "relu6":
        return forms.clip(b, b.between(b.emit("Relu", x)), d.choice([None, 0.0]), 6.0)
    if how == "sigmoid":
        return b.emit(
            "Reciprocal", b.emit("Add", b.emit("Exp", b.emit("Neg", forms.clip(b, x, -5.0, 5.0))), scalar(b, 1.0))
        )
    return b.emit("Div", x, b.emit("Add", b.emit("Abs", x), scalar(b, 1.0)))


@snippet("attention written out", 14, TOKENS)
def attention(d: Draw, b: Builder, x: Tensor) -> Made:
    n, t, width = x.shape
    count = d.choice([2, 4])
    head = width // count

    def project(turn: list[int]) -> Tensor:
        y = b.emit("MatMul", x, b.floats(width, width, scale=width**-0.5))
        y = b.emit("Add", y, b.floats(width)) if d.chance(50) else y
        return forms.transpose(b, forms.reshape(b, y, [n, t, count, head]), turn)

    query, value = project([0, 2, 1, 3]), project([0, 2, 1, 3])
    key = project([0, 2, 3, 1])
    if d.chance(40):
        scores = b.emit("MatMul", b.emit("Mul", query, scalar(b, head**-0.5)), key)
    else:
        scores = b.emit("Div", b.between(b.emit("MatMul", query, key)), scalar(b, _near(d, head**0.5)))
    if d.chance(40):
        mask = np.where(np.tri(t, dtype=bool), 0, d.choice([-1e4, -1e9])).astype(np.float32)
        scores = b.emit("Add", scores, b.constant(mask))
    weights = b.between(forms.softmax(b, scores, 3 if d.chance(80) or b.opset < 11 else -1))
    y = forms.transpose(b, b.emit("MatMul", weights, value), [0, 2, 1, 3])
    y = forms.reshape(b, y, [n, t, width])
    return b.emit("MatMul", y, b.floats(width, width, scale=width**-0.5)) if d.chance(50) else y


@snippet("instance and group norm written out", 8, IMAGE)
def group_norm(d: Draw, b: Builder, x: Tensor) -> Made:
    n, c, h, w = x.shape
    if d.chance(50):
        groups = d.choice([g for g in (2, 1, 3) if c % g == 0])
        y = forms.reshape(b, x, [0, groups, -1])
        y = b.emit(
            "InstanceNormalization",
            y,
            b.constant(np.ones(groups, np.float32)),
            b.constant(np.zeros(groups, np.float32)),
        )
        y = forms.reshape(b, b.between(y), [n, c, h, w])
    else:
        mean = forms.reduce(b, "ReduceMean", x, [2, 3])
        centered = b.emit("Sub", x, mean)
        variance = forms.reduce(b, "ReduceMean", _square(d, b, centered), [2, 3])
        y = b.emit("Div", centered, b.emit("Sqrt", b.emit("Add", variance, scalar(b, 1e-3))))
    return b.emit("Add", b.emit("Mul", b.between(y), b.floats(c, 1, 1)), b.floats(c, 1, 1))


@snippet("softmax written out", 6, RANKED)
def softmax(d: Draw, b: Builder, x: Tensor) -> Made:
    if 0 in x.shape:
        return None
    largest = forms.reduce(b, "ReduceMax", x, [-1])
    power = b.emit("Exp", b.emit("Sub", x, largest))
    return b.emit("Div", power, forms.reduce(b, "ReduceSum", power, [-1]))


@snippet("batch norm written out", 6, IMAGE)
def batch_norm(d: Draw, b: Builder, x: Tensor) -> Made:
    c = x.shape[1]
    y = forms.conv(d, b, x, c, [1, 1]) if d.chance(50) else x
    y = b.emit("Sub", y, b.floats(c, 1, 1))
    deviation = b.constant((np.abs(d.random().standard_normal((c, 1, 1))) + 0.2).astype(np.float32))
    y = b.emit("Div", b.between(y), b.emit("Sqrt", deviation) if d.chance(50) else deviation)
    return b.emit("Add", b.emit("Mul", y, b.floats(1, c, 1, 1)), b.floats(c, 1, 1))


@snippet("squeeze and excitation", 6, IMAGE)
def squeeze_excitation(d: Draw, b: Builder, x: Tensor) -> Made:
    pooled = b.emit("GlobalAveragePool", x)
    y = forms.activation(d, b, forms.conv(d, b, pooled, d.integer(1, 3), [1, 1], True), "Relu")
    gate = b.emit("Sigmoid", forms.conv(d, b, b.between(y), x.shape[1], [1, 1], True))
    return _swap(d, b, "Mul", x, gate)
