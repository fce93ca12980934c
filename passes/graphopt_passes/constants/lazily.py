"""Big weights that are only moved or cast: described now, computed when the model is saved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Array, Constant, LazyConstant, Node, numpy_dtype
from graphopt_passes.common.arguments import permutation

# Operators that give the elements of their first input a new shape, in the same order.
RESHAPING = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"})
# Between these numpy rounds as IEEE 754 and the runtimes do.
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})


def lazily(node: Node, data: Constant, shape: tuple[int, ...], facts: Facts) -> LazyConstant | None:
    """The value of `node`'s output of `shape`, which moves or casts the constant `data`; None for other operators."""
    if node.op in RESHAPING:
        return LazyConstant(data.dtype, shape, lambda: data.array().reshape(shape))
    if node.op == "Transpose":
        order = permutation(node, facts)
        return None if order is None else LazyConstant(data.dtype, shape, lambda: np.transpose(data.array(), order))
    if node.op == "Cast":
        to = node.int_attr("to", 0)
        return LazyConstant(to, shape, _cast(data, to)) if {data.dtype, to} <= _FLOATS else None
    return None


def _cast(data: Constant, to: int) -> Callable[[], Array]:
    def compute() -> Array:
        with np.errstate(over="ignore", invalid="ignore"):  # too large for float16 is infinity, as ONNX says
            array = data.array()
            if (data.dtype, to) == (TensorProto.DOUBLE, TensorProto.FLOAT16):
                array = array.astype(np.float32)  # ONNX Runtime rounds twice
            return array.astype(numpy_dtype(to))

    return compute
