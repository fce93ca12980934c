"""Pooling for onnx.reference by whole arrays: its own visits every output element in Python, minutes for a real CNN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_max_pool import MaxPool as _SlowMaxPool

from graphopt.verification.values import Array, is_float


class _Window:
    """Where the windows of a pool lie. Source: operator specification, "output_spatial_shape" and `auto_pad`."""

    def __init__(self, size: tuple[int, ...], kernel: list[int], attributes: dict[str, Any]) -> None:
        rank = len(kernel)
        self.kernel = kernel
        self.strides = attributes.get("strides") or [1] * rank
        self.dilations = attributes.get("dilations") or [1] * rank
        pads = attributes.get("pads") or [0] * (2 * rank)
        extent = [(k - 1) * d + 1 for k, d in zip(kernel, self.dilations, strict=True)]
        auto = attributes.get("auto_pad") or "NOTSET"
        self.begin, self.end, self.out = list(pads[:rank]), list(pads[rank:]), []
        for axis, (length, reach, stride) in enumerate(zip(size, extent, self.strides, strict=True)):
            if auto in ("SAME_UPPER", "SAME_LOWER"):
                count = -(-length // stride)
                total = max((count - 1) * stride + reach - length, 0)
                first = total // 2 if auto == "SAME_UPPER" else total - total // 2
                self.begin[axis], self.end[axis] = first, total - first
            else:
                if auto == "VALID":
                    self.begin[axis], self.end[axis] = 0, 0
                room = length + self.begin[axis] + self.end[axis] - reach
                count = (-(-room // stride) if attributes.get("ceil_mode") else room // stride) + 1
                if attributes.get("ceil_mode") and (count - 1) * stride >= length + self.begin[axis]:
                    count -= 1  # a window must begin in the data or in its left padding
            self.out.append(count)
        # what windows reach beyond the right padding, in ceil mode
        self.beyond = [
            max(0, (n - 1) * s + reach - (length + b + e))
            for n, s, reach, length, b, e in zip(
                self.out, self.strides, extent, size, self.begin, self.end, strict=True
            )
        ]

    def padded(self, x: Array, value: float, beyond: float) -> Array:
        """`x` with `value` in the padding and `beyond` in what lies outside of it."""
        inner = [(0, 0), (0, 0), *zip(self.begin, self.end, strict=True)]
        outer = [(0, 0), (0, 0), *((0, more) for more in self.beyond)]
        return np.pad(np.pad(x, inner, constant_values=value), outer, constant_values=beyond)

    def slices(self, padded: Array) -> Iterator[Array]:
        """For each position in the kernel, what all windows have there: [N, C, *out]."""
        for position in np.ndindex(*self.kernel):
            place = tuple(
                slice(k * d, k * d + s * (n - 1) + 1, s)
                for k, d, s, n in zip(position, self.dilations, self.strides, self.out, strict=True)
            )
            yield padded[(slice(None), slice(None)) + place]  # noqa: RUF005 - a star in a subscript needs Python 3.11


class MaxPool(OpRun):
    """The largest of each window; onnx's own where the indices are asked for."""

    op_domain = ""

    def _run(self, x: Array, kernel_shape: list[int] | None = None, **attributes: Any) -> tuple[Array, ...]:
        assert kernel_shape is not None
        if len(self.onnx_node.output) > 1:
            slow = _SlowMaxPool._run(self, x, kernel_shape=kernel_shape, **attributes)  # type: ignore[arg-type,no-untyped-call]
            return tuple(slow)
        window = _Window(x.shape[2:], list(kernel_shape), attributes)
        result: Array | None = None
        lowest = -np.inf if is_float(x.dtype) else np.iinfo(x.dtype).min
        for part in window.slices(window.padded(x, lowest, lowest)):
            result = part.copy() if result is None else np.maximum(result, part, out=result)
        assert result is not None
        return (result,)


class AveragePool(OpRun):
    """The mean of each window; padding counts with `count_include_pad`, what lies beyond it never does."""

    op_domain = ""

    def _run(
        self, x: Array, kernel_shape: list[int] | None = None, count_include_pad: int | None = None, **attributes: Any
    ) -> tuple[Array]:
        assert kernel_shape is not None
        window = _Window(x.shape[2:], list(kernel_shape), attributes)
        total = sum(window.slices(window.padded(x, 0, 0)))
        ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
        counts = sum(window.slices(window.padded(ones, 1 if count_include_pad else 0, 0)))
        return (np.asarray(total / counts, x.dtype),)


POOLS: list[type[OpRun]] = [AveragePool, MaxPool]
