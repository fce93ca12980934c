"""Shaken copies of a model: every rounding operation gets a tiny relative error that differs from copy to copy.

What the outputs of such copies do tells how far rounding alone may move them, through cancellation, through steps
(Floor, comparisons, quantization) and through overflow: Monte Carlo arithmetic (Parker, 1997), with noise that is a
function of the value, so that equal values stay equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper

EPSILON = {
    TensorProto.FLOAT: 2.0**-22,
    TensorProto.DOUBLE: 2.0**-51,
    TensorProto.FLOAT16: 2.0**-10,
}

# These give back values that they were given, or values that are exact in a float.
_EXACT = {
    *["Identity", "Relu", "Abs", "Neg", "Sign", "Floor", "Ceil", "Round", "Max", "Min", "Clip", "Where", "Cast", "Not"],
    *[
        "Transpose",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Gather",
        "GatherElements",
        "GatherND",
        "Pad",
    ],
    *["Concat", "Split", "Expand", "Tile", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Shape", "Size"],
    *["Constant", "ConstantOfShape", "Range", "TopK", "DepthToSpace", "SpaceToDepth", "If", "Loop", "Scan", "CastLike"],
    *["ScatterND", "ScatterElements", "Trilu", "OneHot", "Hardmax", "EyeLike", "SplitToSequence", "SequenceAt"],
    *["Dropout", "RandomNormalLike", "RandomUniformLike", "QuantizeLinear"],
}


def shaken(model: ModelProto, seed: int) -> ModelProto:
    """A copy with noise behind every rounding node and on every float weight. Raises what onnx raises on odd models."""
    copy = ModelProto()
    copy.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    types = types_of(copy.graph)
    types.update(types_of(onnx.shape_inference.infer_shapes(copy).graph))
    _shake(copy.graph, types, np.random.default_rng(seed))
    return copy


def shake_values(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The array with independent relative errors of about one rounding; what is no float comes back as it is."""
    if array.dtype not in (np.float16, np.float32, np.float64):
        return array
    size = float(np.finfo(array.dtype).eps)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array * (1 + size * rng.uniform(-1, 1, array.shape))).astype(array.dtype)


def element_types(model: ModelProto) -> set[int]:
    """Element types of all tensors whose types are known."""
    inferred = onnx.shape_inference.infer_shapes(model)
    return {*types_of(inferred.graph).values(), *(init.data_type for init in model.graph.initializer)}


def has_operator(model: ModelProto, *ops: str) -> bool:
    """Whether the model, a body or a function has a node of one of these operators."""
    return any(_has(nodes, ops) for nodes in [model.graph.node, *(f.node for f in model.functions)])


def _has(nodes: Iterable[NodeProto], ops: tuple[str, ...]) -> bool:
    return any(node.op_type in ops or any(_has(a.g.node, ops) for a in node.attribute) for node in nodes)


def types_of(graph: GraphProto) -> dict[str, int]:
    """Element types that the graph declares, in its bodies too."""
    found = {i.name: i.type.tensor_type.elem_type for i in [*graph.input, *graph.output, *graph.value_info]}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found.update(types_of(attribute.g))
    return found


def _shake(graph: GraphProto, types: dict[str, int], rng: np.random.Generator) -> None:
    weights: list[TensorProto] = []
    # ONNX Runtime takes scales of exactly 1 alone in some dimensions: a shaken scale would end the run, not move it.
    kept = {name for node in graph.node if node.op_type in ("Resize", "Upsample") for name in node.input[1:]}
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        noisy = values if weight.name in kept else shake_values(values, rng)
        weights.append(numpy_helper.from_array(noisy, weight.name))
    nodes: list[NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _shake(attribute.g, types, rng)
        nodes.append(node)
        for at, name in enumerate(node.output):
            half = types.get(name) == TensorProto.FLOAT16  # where it is rounded is not certain
            if name and types.get(name) in EPSILON and (half or node.op_type not in _EXACT):
                node.output[at] = f"{name}::before noise"
                nodes += _noise(name, types[name], rng)
    nodes, weights = [_copy(n) for n in nodes], [_copy(w) for w in weights]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)


def _copy(message):  # type: ignore[no-untyped-def]
    other = type(message)()
    other.CopyFrom(message)
    return other


def _noise(name: str, dtype: int, rng: np.random.Generator) -> list[NodeProto]:
    """name = raw * (1 + e sin(k atan(raw) + p)): bounded, finite for an infinite raw, and rough."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    constants = {
        "k": np.float32(rng.uniform(1e3, 2e3)),
        "p": np.float32(rng.uniform(0, 2 * math.pi)),
        "e": kind.type(EPSILON[dtype]),
        "one": kind.type(1),
    }
    made = [
        helper.make_node("Constant", [], [f"{name}::{key}"], value=numpy_helper.from_array(np.asarray(value), ""))
        for key, value in constants.items()
    ]
    steps: list[tuple[str, list[str], str, dict[str, int]]] = [
        ("Cast", ["before noise"], "single", {"to": TensorProto.FLOAT}),
        ("Atan", ["single"], "angle", {}),
        ("Mul", ["angle", "k"], "wide", {}),
        ("Add", ["wide", "p"], "turned", {}),
        ("Sin", ["turned"], "sine", {}),
        ("Cast", ["sine"], "own", {"to": dtype}),
        ("Mul", ["own", "e"], "small", {}),
        ("Add", ["small", "one"], "factor", {}),
    ]
    for op, inputs, out, attributes in steps:
        made.append(helper.make_node(op, [f"{name}::{i}" for i in inputs], [f"{name}::{out}"], **attributes))
    made.append(helper.make_node("Mul", [f"{name}::before noise", f"{name}::factor"], [name]))
    return made
