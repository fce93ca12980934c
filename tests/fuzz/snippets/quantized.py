"""QuantizeLinear and DequantizeLinear around convs and matmuls, and the integer operators they stand for."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import FLAT, IMAGE, RANKED, Made, snippet


def scale(b: Builder, value: float = 0.05) -> Tensor:
    return b.constant(np.array(value, np.float32), structural=True)


def through(d: Draw, b: Builder, x: Tensor, kind: object = None, step: float | None = None) -> Tensor:
    """DequantizeLinear(QuantizeLinear(x)) per tensor."""
    kind = kind or d.choice([np.int8, np.uint8])
    step = step or d.choice([0.05, 0.1])
    zero = b.constant(np.array(0 if kind is np.int8 else d.choice([128, 0]), kind), structural=True)
    steps = scale(b, step)
    return b.emit("DequantizeLinear", b.between(b.emit("QuantizeLinear", x, steps, zero)), steps, zero)


def weight(d: Draw, b: Builder, shape: tuple[int, ...], axis: int) -> Tensor:
    """A dequantized int8 constant, per tensor or (opset 13 on) per channel of an axis."""
    values = b.constant(d.random().integers(-127, 128, shape).astype(np.int8))
    if b.opset >= 13 and d.chance(60):
        steps = b.constant((d.random().random(shape[axis]) * 0.01 + 0.001).astype(np.float32), structural=True)
        zeros = b.constant(np.zeros(shape[axis], np.int8), structural=True)
        return b.emit("DequantizeLinear", values, steps, zeros, axis=axis)
    return b.emit("DequantizeLinear", values, scale(b, 0.01), b.constant(np.array(0, np.int8), structural=True))


@snippet("quantized conv", 10, IMAGE, since=10)
def quantized_conv(d: Draw, b: Builder, x: Tensor) -> Made:
    x = through(d, b, x)
    made = []
    width = d.integer(1, 4)
    for _ in range(d.integer(1, 2)):
        channels = width if d.chance(50) else d.integer(1, 4)
        w = weight(d, b, (channels, x.shape[1], 3, 3), 0)
        bias = b.floats(channels) if d.chance(50) else None
        y = b.emit("Conv", x, w, bias, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        y = forms.activation(d, b, y, "Relu") if d.chance(50) else y
        made.append(through(d, b, b.between(y), np.int8, 0.1) if d.chance(50) else y)
    return forms.concat(b, made, 1) if len(made) > 1 and d.chance(50) else made


@snippet("quantized matmul", 6, FLAT, since=10)
def quantized_matmul(d: Draw, b: Builder, x: Tensor) -> Made:
    y = b.emit("MatMul", through(d, b, x), weight(d, b, (x.shape[1], d.integer(1, 4)), 1))
    return through(d, b, y) if d.chance(50) else y


@snippet("quantize and dequantize", 6, RANKED, since=10)
def rounded(d: Draw, b: Builder, x: Tensor) -> Made:
    y = through(d, b, x, np.int8, 0.1)
    return through(d, b, y, np.int8, 0.1) if d.chance(40) else y


@snippet("quantize around movement", 5, RANKED, since=10)
def rounded_movement(d: Draw, b: Builder, x: Tensor) -> Made:
    y = forms.transpose(b, through(d, b, x, np.int8, 0.1), d.order(x.rank))
    return through(d, b, y, np.int8, 0.1)


@snippet("QLinearConv", 4, IMAGE, since=10)
def qlinear_conv(d: Draw, b: Builder, x: Tensor) -> Made:
    zero, steps = b.constant(np.array(d.choice([128, 0]), np.uint8), structural=True), scale(b, 0.05)
    quantized = b.emit("QuantizeLinear", x, steps, zero)
    channels = d.integer(1, 3)
    w = b.constant(d.random().integers(-127, 128, (channels, x.shape[1], 3, 3)).astype(np.int8))
    w_zero = b.constant(np.array(0, np.int8), structural=True)
    bias = b.constant(d.random().integers(-50, 50, channels).astype(np.int32)) if d.chance(50) else None
    y = b.emit("QLinearConv", quantized, steps, zero, w, scale(b, 0.01), w_zero, steps, zero, bias, pads=[1, 1, 1, 1])
    return b.emit("DequantizeLinear", y, steps, zero)


@snippet("QLinearMatMul", 3, FLAT, since=10)
def qlinear_matmul(d: Draw, b: Builder, x: Tensor) -> Made:
    zero, steps = b.constant(np.array(128, np.uint8), structural=True), scale(b, 0.05)
    quantized = b.emit("QuantizeLinear", x, steps, zero)
    w = b.constant(d.random().integers(0, 255, (x.shape[1], d.integer(1, 4))).astype(np.uint8))
    y = b.emit("QLinearMatMul", quantized, steps, zero, w, scale(b, 0.01), zero, scale(b, 0.1), zero)
    return b.emit("DequantizeLinear", y, scale(b, 0.1), zero)


@snippet("integer matmul", 4, FLAT, since=11)
def integer_matmul(d: Draw, b: Builder, x: Tensor) -> Made:
    w = b.constant(d.random().integers(0, 255, (x.shape[1], d.integer(1, 4))).astype(np.uint8))
    if d.chance(50):
        quantized, steps, zero = b.emit("DynamicQuantizeLinear", x, outputs=3)
        y = b.emit("MatMulInteger", quantized, w, zero)
        return b.emit("Mul", forms.cast(b, y, TensorProto.FLOAT), steps)
    zero = b.constant(np.array(128, np.uint8), structural=True)
    quantized = b.emit("QuantizeLinear", x, scale(b), zero)
    return forms.cast(b, b.emit("MatMulInteger", quantized, w, zero if d.chance(60) else None), TensorProto.FLOAT)


@snippet("integer conv", 3, IMAGE, since=10)
def integer_conv(d: Draw, b: Builder, x: Tensor) -> Made:
    zero = b.constant(np.array(128, np.uint8), structural=True)
    quantized = b.emit("QuantizeLinear", x, scale(b), zero)
    w = b.constant(d.random().integers(0, 255, (d.integer(1, 3), x.shape[1], 3, 3)).astype(np.uint8))
    made = b.emit("ConvInteger", quantized, w, zero, b.constant(np.array(7, np.uint8), structural=True))
    return forms.cast(b, made, TensorProto.FLOAT)
