"""A copy of a model that computes in another float type."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
_TYPE_ATTRIBUTES = ("to", "dtype")
_OWN_TYPE = ("Cast", "EyeLike", "RandomNormalLike", "RandomUniformLike", "RandomNormal", "RandomUniform", "Bernoulli")


def retyped(model: ModelProto, kind: int, old: int = FLOAT) -> ModelProto:
    """The model with `kind` in place of `old` throughout; operators that do not take it make it invalid."""
    copy = ModelProto()
    copy.CopyFrom(model)
    _graph(copy.graph, kind, old)
    return copy


def _graph(graph: GraphProto, kind: int, old: int) -> None:
    for info in [*graph.input, *graph.output]:
        if info.type.tensor_type.elem_type == old:
            info.type.tensor_type.elem_type = kind
    del graph.value_info[:]
    for tensor in graph.initializer:
        _tensor(tensor, kind, old)
    _nodes(graph.node, kind, old)


def _nodes(nodes: Iterable[NodeProto], kind: int, old: int) -> None:
    for node in nodes:
        if node.op_type == "ConstantOfShape" and not node.attribute and old == FLOAT:
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float32))))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _graph(attribute.g, kind, old)
            elif attribute.HasField("t"):
                _tensor(attribute.t, kind, old)
            elif node.op_type in _OWN_TYPE and attribute.name in _TYPE_ATTRIBUTES and attribute.i == old:
                attribute.i = kind
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats") and old == FLOAT:
                _constant(attribute, kind)


def _constant(attribute: AttributeProto, kind: int) -> None:
    value = np.asarray(helper.get_attribute_value(attribute), helper.tensor_dtype_to_np_dtype(kind))
    attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(value)))


def _tensor(tensor: TensorProto, kind: int, old: int) -> None:
    if tensor.data_type == old:
        with np.errstate(over="ignore"):
            value = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def with_roundings(model: ModelProto, names: Collection[str], kind: int) -> ModelProto:
    """A copy of a model of float32 in which the tensors of these names are rounded to `kind` where they are made."""
    copy = ModelProto()
    copy.CopyFrom(model)
    _round(copy.graph, names, kind)
    return copy


def _round(graph: GraphProto, names: Collection[str], kind: int) -> None:
    nodes: list[NodeProto] = []
    for node in graph.node:
        made = NodeProto()
        made.CopyFrom(node)
        nodes.append(made)
        for attribute in made.attribute:
            if attribute.HasField("g"):
                _round(attribute.g, names, kind)
        for at, name in enumerate(node.output):
            if name in names:
                made.output[at] = f"{name}::whole"
                nodes.append(helper.make_node("Cast", [made.output[at]], [f"{name}::rounded"], to=kind))
                nodes.append(helper.make_node("Cast", [f"{name}::rounded"], [name], to=FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
