"""Convolutions of every kind, pooling, batch normalization, resizing and pixel shuffles."""

from __future__ import annotations

import numpy as np

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.registry import FLOAT, IMAGE, SPATIAL, Made, snippet


def geometry(d: Draw, x: Tensor) -> tuple[list[int], dict[str, object]]:
    """A kernel and the attributes that place it, so that at least one output element is left."""
    rank = x.rank - 2
    kernel = [d.choice([3, 1, 2]) for _ in range(rank)]
    named: dict[str, object] = {}
    if d.chance(40):
        named["strides"] = [d.choice([1, 2, 3]) for _ in range(rank)]
    if d.chance(25):
        named["auto_pad"] = d.choice(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    elif d.chance(60):
        named["pads"] = forms.same_pads(kernel) if d.chance(60) else [d.integer(0, k - 1) for k in kernel * 2]
    if d.chance(20) and "auto_pad" not in named and min(x.shape[2:]) >= 5:
        named["dilations"] = [d.choice([1, 2]) for _ in range(rank)]
    return kernel, named


@snippet("conv", 22, SPATIAL)
def conv(d: Draw, b: Builder, x: Tensor) -> Made:
    kernel, named = geometry(d, x)
    channels = x.shape[1]
    group = d.choice([1, 1, *(g for g in (2, 3, channels) if channels % g == 0)])
    out = group * d.integer(1, max(1, 6 // group))
    if d.chance(6):
        w = b.input(FLOAT, (out, channels // group, *kernel))
        return b.emit("Conv", x, w, group=group, **named)
    if b.opset < 11 and named.get("auto_pad") == "NOTSET":
        named.pop("auto_pad")
    return forms.conv(d, b, x, out, kernel, group=group, **named)


@snippet("shared conv weight", 4, IMAGE)
def shared_weight(d: Draw, b: Builder, x: Tensor) -> Made:
    """One weight, two convs; one of them may be followed by a normalization that wants to scale it."""
    w = b.floats(x.shape[1], x.shape[1], 3, 3, scale=(9 * x.shape[1]) ** -0.5)
    first = forms.conv(d, b, x, x.shape[1], [3, 3], weight=w, pads=[1, 1, 1, 1])
    second = forms.conv(d, b, first if d.chance(50) else x, x.shape[1], [3, 3], weight=w, pads=[1, 1, 1, 1])
    return [forms.batch_norm(b, first) if d.chance(60) else first, second]


@snippet("conv transpose", 8, SPATIAL)
def conv_transpose(d: Draw, b: Builder, x: Tensor) -> Made:
    rank, channels = x.rank - 2, x.shape[1]
    kernel = [d.choice([3, 2, 1]) for _ in range(rank)]
    group = d.choice([1, *(g for g in (2, channels) if channels % g == 0)])
    strides = [d.choice([1, 2]) for _ in range(rank)]
    named: dict[str, object] = {"strides": strides} if d.chance(70) else {}
    if "strides" in named and d.chance(30):
        named["output_padding"] = [s - 1 for s in strides]
    if d.chance(40):
        named["pads"] = [d.integer(0, k - 1) for k in kernel * 2]
    per_group = d.integer(1, 3)
    w = b.floats(channels, per_group, *kernel, scale=0.4)
    bias = b.floats(group * per_group) if d.chance(50) else None
    y = b.emit("ConvTranspose", x, w, bias, group=group, **named)
    if min(y.shape[2:]) < 1:
        return None
    return forms.batch_norm(b, b.between(y)) if d.chance(40) else y


@snippet("pooling", 10, SPATIAL)
def pooling(d: Draw, b: Builder, x: Tensor) -> Made:
    op = d.choice(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"])
    if op.startswith("Global"):
        return b.emit(op, x)
    kernel, named = geometry(d, x)
    if "dilations" in named and (op == "LpPool" or b.opset < {"MaxPool": 10}.get(op, 19)):
        named.pop("dilations")
    if op == "AveragePool" and d.chance(40):
        named["count_include_pad"] = 1
    if d.chance(20) and b.opset >= 10 and op != "LpPool" and "auto_pad" not in named:
        named["ceil_mode"] = 1
    if op == "MaxPool" and b.opset >= 8 and d.chance(25) and "ceil_mode" not in named:
        return b.emit(op, x, outputs=2, kernel_shape=kernel, **named)
    return b.emit(op, x, kernel_shape=kernel, **named)


@snippet("batch norm", 8, SPATIAL)
def batch_norm(d: Draw, b: Builder, x: Tensor) -> Made:
    return forms.batch_norm(b, x)


@snippet("batch norm in training", 3, SPATIAL, since=14)
def training_norm(d: Draw, b: Builder, x: Tensor) -> Made:
    if np.prod(x.shape) // x.shape[1] < 2:
        return None
    y = forms.conv(d, b, x, x.shape[1], [1] * (x.rank - 2)) if d.chance(50) else x
    wanted = d.choice([1, 3])
    return b.emit(
        "BatchNormalization", y, *forms.norm_parameters(b, y.shape[1]), outputs=wanted, training_mode=1, epsilon=0.01
    )


@snippet("resize", 6, IMAGE, since=10)
def resize(d: Draw, b: Builder, x: Tensor) -> Made:
    mode = d.choice(["nearest", "linear"])
    scales = [1.0, 1.0, *(d.choice([2.0, 1.0, 3.0, 0.5]) for _ in range(2))]
    if b.opset < 11:
        return b.emit("Resize", x, b.constant(np.array(scales, np.float32), structural=True), mode=mode)
    named: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": d.choice(["half_pixel", "asymmetric"])}
    if mode == "nearest":
        named["nearest_mode"] = d.choice(["floor", "round_prefer_floor"])
    empty = b.constant(np.zeros(0, np.float32), structural=True)
    roi = empty if b.opset < 13 else None
    if d.chance(40):
        sizes = [x.shape[0], x.shape[1], d.integer(1, 9), d.integer(1, 9)]
        return b.emit("Resize", x, roi, empty if b.opset < 13 else None, b.ints(*sizes), **named)
    return b.emit("Resize", x, roi, b.constant(np.array(scales, np.float32), structural=True), **named)


@snippet("upsample", 2, IMAGE, before=10)
def upsample(d: Draw, b: Builder, x: Tensor) -> Made:
    scales = [1.0, 1.0, d.choice([2.0, 1.0]), d.choice([2.0, 1.0])]
    if b.opset < 9:
        return b.emit("Upsample", x, mode="nearest", scales=scales)
    return b.emit("Upsample", x, b.constant(np.array(scales, np.float32), structural=True), mode="nearest")


@snippet("space to depth", 5, IMAGE)
def space_to_depth(d: Draw, b: Builder, x: Tensor) -> Made:
    if d.chance(50) and x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0:
        return b.emit("SpaceToDepth", x, blocksize=2)
    if x.shape[1] % 4 == 0:
        mode = {"mode": d.choice(["DCR", "CRD"])} if b.opset >= 11 else {}
        return b.emit("DepthToSpace", x, blocksize=2, **mode)
    return None


@snippet("classifier head", 5, IMAGE)
def classifier_head(d: Draw, b: Builder, x: Tensor) -> Made:
    pooled = b.emit("GlobalAveragePool", x) if d.chance(60) else forms.reduce(b, "ReduceMean", x, [2, 3])
    flat = b.emit("Flatten", pooled) if d.chance(60) else forms.reshape(b, pooled, [pooled.shape[0], -1])
    scores = b.emit("Gemm", flat, b.floats(5, x.shape[1]), b.floats(5), transB=1)
    return forms.softmax(b, scores, d.choice([None, 1, -1]))
