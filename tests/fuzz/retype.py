"""A copy of a model that computes in another float type."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
_TYPE_ATTRIBUTES = ("to", "dtype")
_OWN_TYPE = ("Cast", "EyeLike", "RandomNormalLike", "RandomUniformLike", "RandomNormal", "RandomUniform", "Bernoulli")


def retyped(model: ModelProto, kind: int) -> ModelProto:
    """The model with `kind` in place of float32 throughout; operators that do not take it make it invalid."""
    copy = ModelProto()
    copy.CopyFrom(model)
    _graph(copy.graph, kind)
    return copy


def _graph(graph: GraphProto, kind: int) -> None:
    for info in [*graph.input, *graph.output]:
        if info.type.tensor_type.elem_type == FLOAT:
            info.type.tensor_type.elem_type = kind
    del graph.value_info[:]
    for tensor in graph.initializer:
        _tensor(tensor, kind)
    _nodes(graph.node, kind)


def _nodes(nodes: Iterable[NodeProto], kind: int) -> None:
    for node in nodes:
        if node.op_type == "ConstantOfShape" and not node.attribute:
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float32))))
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _graph(attribute.g, kind)
            elif attribute.HasField("t"):
                _tensor(attribute.t, kind)
            elif node.op_type in _OWN_TYPE and attribute.name in _TYPE_ATTRIBUTES and attribute.i == FLOAT:
                attribute.i = kind
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                _constant(attribute, kind)


def _constant(attribute: AttributeProto, kind: int) -> None:
    value = np.asarray(helper.get_attribute_value(attribute), helper.tensor_dtype_to_np_dtype(kind))
    attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(value)))


def _tensor(tensor: TensorProto, kind: int) -> None:
    if tensor.data_type == FLOAT:
        with np.errstate(over="ignore"):
            value = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
