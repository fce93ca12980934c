"""Transformer layers node by node, as an exporter that folds nothing writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper


class Layers:
    """Collects the nodes and weights of encoder layers; `last` is the tensor that the next layer reads."""

    def __init__(self, width: int, heads: int) -> None:
        self.width = width
        self.heads = heads
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self.last = "x"
        self._rng = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Appends a node; returns its output's name."""
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=f"{kind}_{len(self.nodes)}", **attributes))
        return out

    def value(self, array: object, dtype: type[np.generic] = np.float32) -> str:
        """A Constant node, as torch writes scalars and shapes."""
        return self.op("Constant", value=_unnamed(np.asarray(array, dtype)))

    def weight(self, *shape: int) -> str:
        """A random initializer."""
        name = f"w{len(self.weights)}"
        self.weights[name] = (self._rng.standard_normal(shape) * 0.1).astype(np.float32)
        return name

    def encoder_layer(self) -> None:
        """Attention and feed-forward block, each behind a LayerNorm, with residual connections."""
        self.last = self.op("Add", self.last, self.attention(self.norm(self.last)))
        hidden = self.gelu(self.linear(self.norm(self.last), self.width, 4 * self.width))
        self.last = self.op("Add", self.last, self.linear(hidden, 4 * self.width, self.width))

    def linear(self, x: str, fan_in: int, fan_out: int) -> str:
        """x W + b."""
        return self.op("Add", self.weight(fan_out), self.op("MatMul", x, self.weight(fan_in, fan_out)))

    def norm(self, x: str) -> str:
        """LayerNorm over the last axis, decomposed."""
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        variance = self.op("ReduceMean", self.op("Pow", centred, self.value(2.0)), axes=[-1])
        deviation = self.op("Sqrt", self.op("Add", variance, self.value(1e-5)))
        scaled = self.op("Mul", self.op("Div", centred, deviation), self.weight(self.width))
        return self.op("Add", scaled, self.weight(self.width))

    def gelu(self, x: str) -> str:
        """GELU by erf, decomposed."""
        erf = self.op("Erf", self.op("Div", x, self.value(2.0**0.5)))
        return self.op("Mul", self.op("Mul", x, self.op("Add", erf, self.value(1.0))), self.value(0.5))

    def dim(self, x: str, axis: int) -> str:
        """One dimension of x as a vector of one element, by Shape, Gather and Unsqueeze."""
        number = self.op("Gather", self.op("Shape", x), self.value(axis, np.int64), axis=0)
        return self.op("Unsqueeze", number, self.value([0], np.int64))

    def heads_of(self, x: str, perm: list[int]) -> str:
        """[N, T, C] as [N, heads, T, C / heads], or another order by `perm`."""
        each = self.value([self.width // self.heads], np.int64)
        heads = self.value([self.heads], np.int64)
        shape = self.op("Concat", self.dim(x, 0), self.dim(x, 1), heads, each, axis=0)
        return self.op("Transpose", self.op("Reshape", x, shape), perm=perm)

    def attention(self, x: str) -> str:
        """Multi-head self-attention without a mask."""
        width = self.width
        query, key, value = (self.linear(x, width, width) for _ in range(3))
        query, value = self.heads_of(query, [0, 2, 1, 3]), self.heads_of(value, [0, 2, 1, 3])
        scores = self.op("MatMul", query, self.heads_of(key, [0, 2, 3, 1]))
        weights = self.op("Softmax", self.op("Div", scores, self.value((width / self.heads) ** 0.5)), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", weights, value), perm=[0, 2, 1, 3])
        shape = self.op("Concat", self.dim(mixed, 0), self.dim(mixed, 1), self.value([width], np.int64), axis=0)
        return self.linear(self.op("Reshape", mixed, shape), width, width)


def _unnamed(array: NDArray[Any]) -> TensorProto:
    return numpy_helper.from_array(array)
