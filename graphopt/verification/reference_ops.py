"""Operators of onnx.reference put right: where its own lose precision, fail on scalars, or misread an old opset."""

from __future__ import annotations

from math import erf, pi, sqrt
from typing import Any

import numpy as np
from onnx import helper
from onnx.reference.op_run import OpRun

from graphopt.verification.values import Array

_erf: Any = np.vectorize(erf, otypes=[np.float64])


class Erf(OpRun):
    """Erf in float64; onnx's own rounds its result to float32."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        result: Array = _erf(x).astype(x.dtype) if x.size else x
        return (result,)


class Gelu(OpRun):
    """Both forms in float64; onnx's own evaluates the operator's function, with its own Erf and float32 constants."""

    op_domain = ""

    def _run(self, x: Array, approximate: str | None = None) -> tuple[Array]:
        wide = np.asarray(x, np.float64)
        if approximate == "tanh":
            bell = np.tanh(sqrt(2 / pi) * (wide + 0.044715 * wide**3))
        else:
            bell = _erf(wide * sqrt(0.5)) if wide.size else wide
        return ((0.5 * wide * (1 + bell)).astype(x.dtype),)


class BatchNormalization(OpRun):
    """All opsets; onnx's own takes opsets 9 to 13 for training whenever they have a momentum.

    Source: operator specification. Before opset 14 more than one output means training; from 14 on `training_mode`.
    """

    op_domain = ""

    def _run(
        self,
        x: Array,
        scale: Array,
        bias: Array,
        mean: Array,
        var: Array,
        epsilon: float | None = None,
        momentum: float | None = None,
        training_mode: int | None = None,
        spatial: int | None = None,
        is_test: int | None = None,
        consumed_inputs: Any = None,
    ) -> tuple[Array, ...]:
        epsilon = 1e-5 if epsilon is None else epsilon
        momentum = 0.9 if momentum is None else momentum
        outputs = len(self.onnx_node.output)
        if not training_mode and outputs == 1:
            return (_normalized(x, scale, bias, mean, var, epsilon),)
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        batch_mean, batch_var = x.mean(axis=axes), x.var(axis=axes)
        running = (mean * momentum + batch_mean * (1 - momentum), var * momentum + batch_var * (1 - momentum))
        results = (_normalized(x, scale, bias, batch_mean, batch_var, epsilon), *running, batch_mean, batch_var)
        return results[:outputs]


def _normalized(x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float) -> Array:
    along = (1, -1) + (1,) * (x.ndim - 2)
    factor = (scale / np.sqrt(var + epsilon)).reshape(along)
    result: Array = ((x - mean.reshape(along)) * factor + bias.reshape(along)).astype(x.dtype)
    return result


class ConvTranspose(OpRun):
    """With groups, which onnx's own takes for one, and a matrix product for each element of the kernel.

    Source: operator specification; the output is the sum over kernel positions k of the products, spread by the
    strides, moved by k times the dilations, and cropped by the pads.
    """

    op_domain = ""

    def _run(
        self,
        X: Array,
        W: Array,
        B: Array | None = None,
        auto_pad: str | None = None,
        dilations: list[int] | None = None,
        group: int | None = None,
        kernel_shape: list[int] | None = None,
        output_padding: list[int] | None = None,
        output_shape: list[int] | None = None,
        pads: list[int] | None = None,
        strides: list[int] | None = None,
    ) -> tuple[Array]:
        rank = X.ndim - 2
        steps, spread = strides or [1] * rank, dilations or [1] * rank
        extra = output_padding or [0] * rank
        full = [steps[i] * (X.shape[i + 2] - 1) + (W.shape[i + 2] - 1) * spread[i] + 1 + extra[i] for i in range(rank)]
        if output_shape is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            output_shape = [X.shape[i + 2] * steps[i] for i in range(rank)]
        if output_shape is not None:
            crop = [max(0, size - wanted) for size, wanted in zip(full, output_shape, strict=True)]
            begin = [total // 2 if auto_pad == "SAME_UPPER" else total - total // 2 for total in crop]
            end = [total - first for total, first in zip(crop, begin, strict=True)]
        else:
            pads = pads if pads is not None and auto_pad in (None, "NOTSET") else [0] * (2 * rank)
            begin, end = list(pads[:rank]), list(pads[rank:])
        result = _spread_products(X, W, group or 1, full, steps, spread)
        window = tuple(slice(b, size - e) for b, size, e in zip(begin, full, end, strict=True))
        result = result[(Ellipsis,) + window]  # noqa: RUF005 - a star in a subscript needs Python 3.11
        return (result if B is None else result + B.reshape(-1, *[1] * rank),)


def _spread_products(X: Array, W: Array, group: int, full: list[int], steps: list[int], spread: list[int]) -> Array:
    """The transposed convolution before cropping: [N, group * W.shape[1], *full]."""
    batch, channels, *size = X.shape
    made = W.shape[1]
    out = np.zeros((batch, group, made, *full), dtype=X.dtype)
    grouped = X.reshape(batch, group, channels // group, -1)
    weights = W.reshape(group, channels // group, made, -1)
    for number, position in enumerate(np.ndindex(*W.shape[2:])):
        products = np.einsum("ngcs,gcm->ngms", grouped, weights[..., number], optimize=True)
        place = tuple(
            slice(k * d, k * d + s * (n - 1) + 1, s) for k, d, s, n in zip(position, spread, steps, size, strict=True)
        )
        out[(Ellipsis,) + place] += products.reshape(batch, group, made, *size)  # noqa: RUF005 - as above
    return out.reshape(batch, group * made, *full)


class LRN(OpRun):
    """Over all channels; onnx's own visits as many channels as there are batches."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        alpha: float | None = None,
        beta: float | None = None,
        bias: float | None = None,
        size: int | None = None,
    ) -> tuple[Array]:
        assert alpha is not None
        assert beta is not None
        assert bias is not None
        assert size is not None
        before, after = (size - 1) // 2, size // 2  # floor and ceil of (size - 1) / 2
        squares = np.pad(x * x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
        total = sum(squares[:, k : k + x.shape[1]] for k in range(size))
        return (np.asarray(x / (bias + alpha / size * total) ** beta, x.dtype),)


class RandomUniformLike(OpRun):
    """For tensors of any rank, and other numbers in each run; onnx's own fails on scalars and repeats itself."""

    op_domain = ""
    _rng: np.random.Generator | None = None

    def _run(
        self,
        x: Array,
        dtype: int | None = None,
        high: float | None = None,
        low: float | None = None,
        seed: float | None = None,
    ) -> tuple[Array]:
        if self._rng is None:
            self._rng = np.random.default_rng(None if seed is None or np.isnan(seed) else int(seed))
        low, high = 0.0 if low is None else low, 1.0 if high is None else high
        kind = x.dtype if dtype is None else helper.tensor_dtype_to_np_dtype(dtype)
        return (np.asarray(self._rng.uniform(low, high, x.shape)).astype(kind),)


PRECISE: list[type[OpRun]] = [BatchNormalization, ConvTranspose, Erf, Gelu, LRN, RandomUniformLike]
