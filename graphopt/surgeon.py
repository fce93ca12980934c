"""The border to onnx-graphsurgeon: pipelines that hold a `gs.Graph` hand it in and get one back.

GraphSurgeon drops some of what ONNX models say (see docs/adr/0001), so models in files are never sent through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import ModelProto

from graphopt.errors import ModelError
from graphopt.external import printable

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


def is_surgeon_graph(source: Any) -> bool:
    """Whether `source` is a `gs.Graph`; GraphSurgeon is not imported to find out."""
    return type(source).__module__.startswith("onnx_graphsurgeon.") and type(source).__name__ == "Graph"


def from_surgeon(graph: gs.Graph) -> ModelProto:
    """The model of a GraphSurgeon graph, which is not changed. Raises ModelError where GraphSurgeon cannot write it."""
    import onnx_graphsurgeon as gs

    try:
        model: ModelProto = gs.export_onnx(graph)
    except Exception as error:  # GraphSurgeon raises its own type, and whatever a wrong field leads to
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(f"onnx-graphsurgeon cannot write this graph: {printable(reason)}; mend the graph.") from error
    return model


def to_surgeon(model: ModelProto) -> gs.Graph:
    """A GraphSurgeon graph of a model, which is not changed."""
    import onnx_graphsurgeon as gs

    copy = ModelProto()  # GraphSurgeon keeps and renames the protobufs of weights
    copy.CopyFrom(model)
    return gs.import_onnx(copy)
