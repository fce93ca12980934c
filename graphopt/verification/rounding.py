"""Rounding errors put into a float64 copy of a model at random: what they can do to its outputs.

Every result that the original's type cannot hold is multiplied by a random factor between 1 - eps and 1 + eps, eps
being the distance from 1 to the next number of that type (results in float64: every one that is no whole number); so
are the terms of sums of products, whose cancellation the
result does not show. Numbers that the type holds exactly, such as masks and shapes in floats, stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import onnx
from onnx import TensorProto, helper

from graphopt.verification.ranges import with_shapes
from graphopt.verification.source import Located, is_standard, nodes
from graphopt.verification.values import epsilon
from graphopt.verification.widen import NARROW, Before, Behind, Hooks, known_types, widen

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


def perturbed(model: Located) -> onnx.ModelProto:
    """The model in float64 with random rounding errors, other ones in each run of a session. Raises `CannotWiden`."""
    noise = _Noise()
    return widen(model, Hooks(behind=noise.behind, before=noise.before))


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


class _Noise:
    """Makes the nodes that put rounding errors in; each draws from a seed of its own."""

    def __init__(self) -> None:
        self._seeds = count(1)

    def behind(self, op_type: str) -> Behind | None:
        """What to put behind an operator's results."""
        return None if op_type in _EXACT else self.round_result

    def before(self, op_type: str) -> Before | None:
        """What to put before an operator's inputs."""
        return self.round_term if op_type in _SUMS else None

    def round_result(self, raw: str, result: str, kind: int) -> Sequence[onnx.NodeProto]:
        """`result` is `raw`, perturbed where the type `kind` does not hold it exactly."""
        if kind == TensorProto.DOUBLE:  # which holds all that a float64 run can show
            return self.round_term(raw, result, kind)
        narrow, back = f"{raw}\x1fn", f"{raw}\x1fb"
        nodes = [
            helper.make_node("Cast", [raw], [narrow], to=kind),
            helper.make_node("Cast", [narrow], [back], to=TensorProto.DOUBLE),
        ]
        return [*nodes, *self.perturb(raw, back, result, kind)]

    def round_term(self, given: str, term: str, kind: int) -> Sequence[onnx.NodeProto]:
        """`term` is `given`, perturbed where it is no whole number."""
        whole = f"{term}\x1fw"
        return [helper.make_node("Floor", [given], [whole]), *self.perturb(given, whole, term, kind)]

    def perturb(self, number: str, exact: str, result: str, kind: int) -> list[onnx.NodeProto]:
        """`result` is `number` where it equals `exact`, else `number` + `number` * eps * a random factor below 1."""
        eps = helper.make_tensor("eps", TensorProto.DOUBLE, [], [epsilon(helper.tensor_dtype_to_np_dtype(kind))])
        stem = f"{result}\x1fp"
        seed = float(next(self._seeds))
        return [
            helper.make_node(
                "RandomUniformLike", [number], [f"{stem}u"], low=-1.0, high=1.0, dtype=TensorProto.DOUBLE, seed=seed
            ),
            helper.make_node("Constant", [], [f"{stem}c"], value=eps),
            helper.make_node("Mul", [f"{stem}u", f"{stem}c"], [f"{stem}r"]),
            helper.make_node("Mul", [number, f"{stem}r"], [f"{stem}d"]),
            helper.make_node("Add", [number, f"{stem}d"], [f"{stem}s"]),
            helper.make_node("Equal", [number, exact], [f"{stem}e"]),
            helper.make_node("Where", [f"{stem}e", number, f"{stem}s"], [result]),
        ]
