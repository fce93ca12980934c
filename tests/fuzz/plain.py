"""Models in which Sigmoid is written as 1 / (1 + exp(-x)).

ONNX Runtime's Sigmoid is right to a rounding of 1, not of its result: far below zero, where that is small, it is much
less accurate than the formula. Where a result differs from the original for that alone, the formula shows it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper, inliner, numpy_helper

from tests.fuzz.noise import types_of

_CALLS = ("Swish",)  # by their definition x times a Sigmoid


def with_formulas(model: ModelProto) -> ModelProto:
    """A copy without Sigmoids of tensors whose types are known. Raises what onnx raises on odd models."""
    calls = [("", op) for op in _CALLS]
    copy = inliner.inline_local_functions(model) if model.functions else model
    copy = inliner.inline_selected_functions(copy, calls, inline_schema_functions=True)
    inferred = onnx.shape_inference.infer_shapes(copy)
    _write(inferred.graph, types_of(inferred.graph))
    return inferred


def _write(graph: GraphProto, types: dict[str, int]) -> None:
    nodes: list[NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _write(attribute.g, types)
        kind = types.get(node.input[0]) if node.op_type == "Sigmoid" else None
        nodes += _formula(node.input[0], node.output[0], kind) if kind else [_copy(node)]
    del graph.node[:]
    graph.node.extend(nodes)


def _copy(node: NodeProto) -> NodeProto:
    other = NodeProto()
    other.CopyFrom(node)
    return other


def _formula(x: str, y: str, kind: int) -> list[NodeProto]:
    one = numpy_helper.from_array(np.ones((), helper.tensor_dtype_to_np_dtype(kind)))
    return [
        helper.make_node("Constant", [], [f"{y}::one"], value=one),
        helper.make_node("Neg", [x], [f"{y}::minus"]),
        helper.make_node("Exp", [f"{y}::minus"], [f"{y}::power"]),
        helper.make_node("Add", [f"{y}::power", f"{y}::one"], [f"{y}::below"]),
        helper.make_node("Div", [f"{y}::one", f"{y}::below"], [y]),
    ]
