"""Reductions of int64 that ONNX Runtime computes in float64, so that what is larger than 2**53 is rounded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from onnx import ModelProto, TensorProto, helper, inliner, shape_inference

from tests.fuzz.inputs import Feeds
from tests.fuzz.noise import has_operator, types_of

_KINDS = ("Sum", "Mean", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")
_IN_DOUBLES = tuple(f"Reduce{kind}" for kind in _KINDS)
_EXACT_UP_TO = 2**53
Run = Callable[[Feeds], list[Any]]


def rounding_of(model: ModelProto, runner: Callable[[ModelProto], Run]) -> Callable[[Feeds], bool]:
    """Whether, for given inputs, such a reduction reads or gives an integer that a float64 does not hold.

    Those in bodies are not seen.
    """
    run: Run | None = None
    if has_operator(model, *_IN_DOUBLES):
        with contextlib.suppress(Exception):  # what onnx or ONNX Runtime raise on odd models: then nobody knows
            shown = _with_ends_of_reductions(model)
            run = runner(shown) if shown.graph.output else None

    def are_rounded(inputs: Feeds) -> bool:
        values = run(inputs) if run is not None else []
        return any(bool(((v > _EXACT_UP_TO) | (v < -_EXACT_UP_TO)).any()) for v in values)

    return are_rounded


def _with_ends_of_reductions(model: ModelProto) -> ModelProto:
    """The model with no outputs but what its int64 reductions read and give."""
    copy = ModelProto()
    copy.CopyFrom(inliner.inline_local_functions(model) if model.functions else model)
    types = types_of(shape_inference.infer_shapes(copy).graph)
    reduced = [node for node in copy.graph.node if node.op_type in _IN_DOUBLES]
    ends = {name for node in reduced for name in (node.input[0], node.output[0])}
    names = sorted(name for name in ends if types.get(name) == TensorProto.INT64)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in names)
    return copy
