"""Rounding errors put into a float64 copy of a model at random: what they can do to its outputs.

Every result that the original's type cannot hold is multiplied by a random factor between 1 - eps and 1 + eps, eps
being the distance from 1 to the next number of that type; so are the terms of sums of products, whose cancellation the
result does not show. Numbers that the type holds exactly, such as masks and shapes in floats, stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

from graphopt.verify.ranges import with_shapes
from graphopt.verify.source import Located, graphs, is_standard, nodes
from graphopt.verify.values import epsilon
from graphopt.verify.widen import NARROW, Before, Behind, Hooks, known_types, widen

# fmt: off
# Operators that only move, select or compare numbers, so that their results have no rounding error of their own.
_EXACT = frozenset({
    "Abs", "Cast", "CastLike", "Ceil", "Clip", "Compress", "Concat", "ConcatFromSequence", "Constant",
    "ConstantOfShape", "DepthToSpace", "Dropout", "Expand", "EyeLike", "Flatten", "Floor", "Gather",
    "GatherElements", "GatherND", "GlobalMaxPool", "Identity", "If", "Loop", "Max", "MaxPool", "MaxUnpool", "Min",
    "Neg", "OneHot", "Optional", "OptionalGetElement", "Pad", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike", "ReduceMax", "ReduceMin", "Relu", "Reshape", "ReverseSequence", "Round", "Scan", "Scatter",
    "ScatterElements", "ScatterND", "SequenceAt", "Sign", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile",
    "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Where",
})
# Operators that add up products of their inputs.
_SUMS = frozenset({
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "Einsum", "Gemm", "GlobalAveragePool",
    "GroupNormalization", "GRU", "InstanceNormalization", "LayerNormalization", "LSTM", "MatMul",
    "MeanVarianceNormalization", "ReduceMean", "ReduceSum", "ReduceSumSquare", "RMSNormalization", "RNN", "Softmax",
    "Sum", "Add", "Sub",
})
# Operators whose results jump where a float crosses a threshold or overtakes another.
_JUMPS = frozenset({
    "ArgMax", "ArgMin", "Binarizer", "Ceil", "DynamicQuantizeLinear", "Equal", "Floor", "Greater", "GreaterOrEqual",
    "Hardmax", "LabelEncoder", "Less", "LessOrEqual", "Mod", "NonMaxSuppression", "NonZero", "OneHot", "QuantizeLinear",
    "Round", "Shrink", "Sign", "ThresholdedRelu", "TopK", "TreeEnsemble", "TreeEnsembleClassifier",
    "TreeEnsembleRegressor", "Unique",
})
# fmt: on
_ROUNDED = NARROW | {TensorProto.DOUBLE}
MARK = "rounding error of "  # how the names of the nodes that draw begin


def perturbed(model: Located) -> onnx.ModelProto:
    """The model in float64 with random rounding errors; `reseed` it before each run. Raises `CannotWiden`."""
    return widen(model, Hooks(behind=_behind, before=_before))


def reseed(proto: onnx.ModelProto, seed: int) -> None:
    """Gives each drawing node a seed of its own that depends on `seed`, in place."""
    number = 0
    for graph in graphs(proto):
        for node in graph.node:
            if node.name.startswith(MARK):
                number += 1
                for attribute in node.attribute:
                    if attribute.name == "seed":
                        attribute.f = float(seed * 1_000_003 % 65_521 + number)


def jumps(proto: onnx.ModelProto) -> bool:
    """Whether any result may jump when rounding changes a float a little: comparisons, choices, rounding, Casts.

    Operators outside the standard are taken to jump, as are tensors of unknown type to be floats.
    """
    typed = with_shapes(proto)
    types = known_types(typed)
    return any(
        (node.op_type in _JUMPS or (node.op_type == "Cast" and _loses_fraction(node)) or not is_standard(node.domain))
        and any(types.get(name, TensorProto.FLOAT) in _ROUNDED for name in node.input if name)
        for node in nodes(typed)
    )


def _loses_fraction(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "to" and attribute.i not in _ROUNDED for attribute in node.attribute)


def _behind(op_type: str) -> Behind | None:
    return None if op_type in _EXACT else _round_result


def _before(op_type: str) -> Before | None:
    return _round_term if op_type in _SUMS else None


def _round_result(raw: str, result: str, kind: int) -> Sequence[onnx.NodeProto]:
    """`result` is `raw`, perturbed where the type `kind` does not hold it exactly."""
    narrow, back = f"{raw}\x1fn", f"{raw}\x1fb"
    nodes = [
        helper.make_node("Cast", [raw], [narrow], to=kind),
        helper.make_node("Cast", [narrow], [back], to=TensorProto.DOUBLE),
    ]
    return [*nodes, *_perturb(raw, back, result, kind)]


def _round_term(given: str, term: str, kind: int) -> Sequence[onnx.NodeProto]:
    """`term` is `given`, perturbed where it is no whole number."""
    whole = f"{term}\x1fw"
    return [helper.make_node("Floor", [given], [whole]), *_perturb(given, whole, term, kind)]


def _perturb(number: str, exact: str, result: str, kind: int) -> list[onnx.NodeProto]:
    """`result` is `number` where it equals `exact`, else `number` times a random factor near 1."""
    eps = epsilon(helper.tensor_dtype_to_np_dtype(kind))
    stem = f"{result}\x1fp"
    return [
        helper.make_node(
            "RandomUniformLike",
            [number],
            [f"{stem}f"],
            name=MARK + number,
            low=1 - eps,
            high=1 + eps,
            dtype=TensorProto.DOUBLE,
            seed=0.0,
        ),
        helper.make_node("Mul", [number, f"{stem}f"], [f"{stem}m"]),
        helper.make_node("Equal", [number, exact], [f"{stem}e"]),
        helper.make_node("Where", [f"{stem}e", number, f"{stem}m"], [result]),
    ]
