"""Operators of onnx.reference that work along an axis, put right: their forms before opset 13, and absolute values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from graphopt.verification.values import Array

_COERCED_BEFORE = 13


class _AlongAxis(OpRun):
    """An operator over one axis from opset 13 on, and over all axes from `axis` (1 unless given) on before.

    Source: operator specifications of Softmax, LogSoftmax and Hardmax, versions 11 and 13. onnx's own reads every
    opset as the newest.
    """

    op_domain = ""

    def _run(self, x: Array, axis: int | None = None) -> tuple[Array]:
        if not x.size:
            return (x,)
        if self.run_params["opsets"].get("", _COERCED_BEFORE) >= _COERCED_BEFORE:
            return (self.along(x, -1 if axis is None else axis).astype(x.dtype, copy=False),)
        given = any(attribute.name == "axis" for attribute in self.onnx_node.attribute)
        start = axis if given and axis is not None else 1
        rows = math.prod(x.shape[: start if start >= 0 else x.ndim + start])
        return (self.along(x.reshape(rows, -1), 1).reshape(x.shape).astype(x.dtype, copy=False),)

    def along(self, x: Array, axis: int) -> Array:
        """The result over one axis of x, which has elements."""
        raise NotImplementedError


class Softmax(_AlongAxis):
    """exp(x) / sum(exp(x)), without overflow."""

    def along(self, x: Array, axis: int) -> Array:
        powers = np.exp(x - x.max(axis=axis, keepdims=True))
        result: Array = powers / powers.sum(axis=axis, keepdims=True)
        return result


class LogSoftmax(_AlongAxis):
    """x - log(sum(exp(x))), without overflow or underflow; onnx's own takes the logarithm of what may be 0."""

    def along(self, x: Array, axis: int) -> Array:
        below = x - x.max(axis=axis, keepdims=True)
        result: Array = below - np.log(np.exp(below).sum(axis=axis, keepdims=True))
        return result


class Hardmax(_AlongAxis):
    """1 at the first of the largest, 0 elsewhere."""

    def along(self, x: Array, axis: int) -> Array:
        result: Array = np.zeros_like(x)
        np.put_along_axis(result, np.expand_dims(x.argmax(axis=axis), axis), 1, axis=axis)
        return result


class LpNormalization(OpRun):
    """x / (sum |x|^p)^(1/p), 0 where that norm is 0; onnx's own takes the sum for p = 1 without the absolute value."""

    op_domain = ""

    def _run(self, x: Array, axis: int | None = None, p: int | None = None) -> tuple[Array]:
        order: Any = 2 if p is None else p
        norm = (np.abs(x) ** order).sum(axis=-1 if axis is None else axis, keepdims=True) ** (1.0 / order)
        return (np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)).astype(x.dtype),)


ALONG_AXES: list[type[OpRun]] = [Hardmax, LogSoftmax, LpNormalization, Softmax]
