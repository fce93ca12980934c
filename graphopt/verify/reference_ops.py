"""Operators of onnx.reference put right: where its own lose precision, fail on scalars, or misread an old opset."""

from __future__ import annotations

from math import erf
from typing import Any

import numpy as np
from onnx import helper
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv_transpose import ConvTranspose as OnnxConvTranspose

from graphopt.verify.values import Array

_erf: Any = np.vectorize(erf, otypes=[np.float64])


class Erf(OpRun):
    """Erf in float64; onnx's own rounds its result to float32."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        result: Array = _erf(x).astype(x.dtype) if x.size else x
        return (result,)


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
    """With groups, which onnx's own takes for one."""

    op_domain = ""

    def _run(
        self, X: Array, W: Array, B: Array | None = None, group: int | None = None, **settings: Any
    ) -> tuple[Array]:
        count = group or 1
        inputs, weights = np.split(X, count, axis=1), np.split(W, count, axis=0)
        biases = [None] * count if B is None else np.split(B, count)
        one: Any = OnnxConvTranspose._run
        parts = [one(self, x, w, b, group=1, **settings)[0] for x, w, b in zip(inputs, weights, biases, strict=True)]
        return (np.concatenate(parts, axis=1),)


class RandomUniformLike(OpRun):
    """For tensors of any rank; onnx's own fails on scalars."""

    op_domain = ""

    def _run(
        self,
        x: Array,
        dtype: int | None = None,
        high: float | None = None,
        low: float | None = None,
        seed: float | None = None,
    ) -> tuple[Array]:
        rng = np.random.default_rng(None if seed is None or np.isnan(seed) else int(seed))
        low, high = 0.0 if low is None else low, 1.0 if high is None else high
        kind = x.dtype if dtype is None else helper.tensor_dtype_to_np_dtype(dtype)
        return (np.asarray(rng.uniform(low, high, x.shape)).astype(kind),)


PRECISE: list[type[OpRun]] = [BatchNormalization, ConvTranspose, Erf, RandomUniformLike]
