"""Hiding a node from onnx's inference, which is then told what its results are."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, NodeProto, TypeProto, ValueInfoProto, helper

from graphopt.graph import Shape
from graphopt.graph.exporter import as_dim

# Prefix of the names of operators that onnx must not know.
HIDDEN = "Graphopt__"


def hide(
    node: NodeProto, graph: GraphProto, types: Mapping[str, TypeProto], shapes: Mapping[str, Shape | None]
) -> None:
    """Gives `node` of `graph` a name that onnx does not know, and its results these shapes and the types they have."""
    for name in node.output:
        if name in types and types[name].tensor_type.elem_type:
            _claim(graph, helper.make_tensor_value_info(name, types[name].tensor_type.elem_type, shapes.get(name)))
    node.op_type = HIDDEN + node.op_type


def types_of(graph: GraphProto) -> dict[str, TypeProto]:
    """The types that a graph says of its tensors."""
    made = {t.name: helper.make_tensor_type_proto(t.data_type, list(t.dims)) for t in graph.initializer}
    return made | {info.name: info.type for infos in (graph.value_info, graph.output, graph.input) for info in infos}


def shape_of(kind: TypeProto | None) -> Shape | None:
    """The shape in a tensor's type, None where not even the rank is known."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    return tuple([as_dim(dim) for dim in kind.tensor_type.shape.dim])


def _claim(graph: GraphProto, claim: ValueInfoProto) -> None:
    for infos in (graph.output, graph.value_info):
        for info in infos:
            if info.name == claim.name:
                info.CopyFrom(claim)
                return
    graph.value_info.append(claim)
