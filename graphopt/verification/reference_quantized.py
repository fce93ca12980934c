"""QuantizeLinear and DequantizeLinear before opset 19, of which onnx.reference has none.

Source: operator specifications of opsets 10 and 13.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from graphopt.verification.values import Array

# The opset from which on onnx.reference has them.
SINCE = 19


def _along(value: Array, x: Array, axis: int) -> Array:
    """A scale or zero point, one for all of `x` or one for each of its slices along `axis`."""
    if value.ndim == 0 or value.size == 1:
        return value.reshape(())
    return value.reshape([-1 if place == axis % x.ndim else 1 for place in range(x.ndim)])


class DequantizeLinear(OpRun):
    """(x - zero point) * scale, in the scale's type."""

    op_domain = ""

    def _run(
        self, x: Array, scale: Array, zero: Array | None = None, axis: int | None = None, **_: Any
    ) -> tuple[Array]:
        place = 1 if axis is None else axis
        shift = 0 if zero is None else _along(zero, x, place).astype(np.int64)
        return (((x.astype(np.int64) - shift) * _along(scale, x, place)).astype(scale.dtype),)


class QuantizeLinear(OpRun):
    """x / scale rounded, ties to even, plus the zero point, within the range of that one's type: uint8 without one."""

    op_domain = ""

    def _run(
        self, x: Array, scale: Array, zero: Array | None = None, axis: int | None = None, **_: Any
    ) -> tuple[Array]:
        place = 1 if axis is None else axis
        kind = np.dtype(np.uint8) if zero is None else zero.dtype
        shift = 0 if zero is None else _along(zero, x, place).astype(np.int64)
        limits = np.iinfo(kind)
        rounded = np.rint(x / _along(scale, x, place)) + shift
        return (np.clip(rounded, limits.min, limits.max).astype(kind),)


QUANTIZED: list[type[OpRun]] = [DequantizeLinear, QuantizeLinear]
