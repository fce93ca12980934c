"""The types of one node's outputs, by onnx's own inference: what a rewrite needs to know of the nodes that it makes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from typing import Any

from onnx import NodeProto, TensorProto, TypeProto, defs, helper, shape_inference

from graphopt.distrust import SUSPECTS, is_suspect, true_shape
from graphopt.graph import Array, Node, Shape, Tensor, node_proto, value_info
from graphopt.graph.exporter import as_dim, attribute_proto

Type = tuple[int | None, Shape | None]
Known = tuple[int, Shape | None]

UNKNOWN: Type = (None, None)
# A constant up to this many bytes may be a shape, an axis, a pad: inference sees its values.
VALUE_BYTES = 1 << 10

# Operators of the standard domain whose inference reads the inputs' types and the attributes but never a value: layers
# repeat, so the same question comes again and again.
_BY_TYPES = {
    *("Add", "BatchNormalization", "Cast", "Concat", "Conv", "ConvTranspose", "Div", "Gemm", "Identity"),
    *("InstanceNormalization", "LayerNormalization", "LeakyRelu", "MatMul", "Mul", "PRelu", "Relu", "Sub", "Transpose"),
}


def infer_node(node: Node, opset: int, ir_version: int) -> list[Type]:
    """The types of the outputs of one node, whose inputs are set but which need not be in a graph yet.

    Unknown (None, None) for operators without a schema, or where an input's dtype is unknown.
    """
    unknown = [UNKNOWN] * len(node.outputs)
    if opset < 1 or any(t is not None and t.dtype is None for t in node.inputs):
        return unknown
    if node.op in _BY_TYPES and all(node.outputs) and not (node.op in SUSPECTS and is_suspect(node_proto(node), opset)):
        inputs = tuple([(t.dtype, t.shape) if t is not None and t.dtype is not None else None for t in node.inputs])
        attrs = tuple(sorted((name, type(value), value) for name, value in node.attrs.items()))
        if _is_hashable(attrs):
            return list(_by_types(node.op, attrs, inputs, len(node.outputs), opset, ir_version))
    if not defs.has(node.op_type, node.domain):
        return unknown
    infos = [info for t in node.inputs if t is not None and (info := value_info(t)) is not None]
    values = {t.name: value for t in node.inputs if t is not None and (value := _small_value(t)) is not None}
    found = _inferred(node_proto(node), {i.name: i.type for i in infos}, values, opset, ir_version)
    types = [found.get(t.name, UNKNOWN) if t is not None else UNKNOWN for t in node.outputs]
    return _put_right(node, opset, types)


def _put_right(node: Node, opset: int, types: list[Type]) -> list[Type]:
    """The types, where onnx may be wrong only as far as they are sure."""
    proto = node_proto(node)
    if not is_suspect(proto, opset):
        return types
    shapes = [t.shape if t is not None else None for t in node.inputs]

    def value(index: int) -> Array | None:
        tensor = node.input(index)
        small = tensor is not None and tensor.constant is not None and tensor.constant.nbytes <= VALUE_BYTES
        return tensor.constant.array() if tensor is not None and tensor.constant is not None and small else None

    return [(d, true_shape(proto, opset, shapes, value, s) if s is not None else None) for d, s in types]


def _small_value(tensor: Tensor) -> TensorProto | None:
    constant = tensor.constant
    return constant.to_proto(tensor.name) if constant is not None and constant.nbytes <= VALUE_BYTES else None


def _is_hashable(attrs: tuple[Any, ...]) -> bool:
    return all(isinstance(value, (int, float, str, tuple)) for _, _, value in attrs)


@lru_cache(maxsize=1 << 12)
def _by_types(
    op: str,
    attrs: tuple[tuple[str, Hashable, Any], ...],
    inputs: tuple[Known | None, ...],
    outputs: int,
    opset: int,
    ir_version: int,
) -> tuple[Type, ...]:
    names = [f"i{index}" if known is not None else "" for index, known in enumerate(inputs)]
    node = NodeProto(op_type=op, input=names, output=[f"o{index}" for index in range(outputs)])
    node.attribute.extend(attribute_proto(name, value, node.op_type) for name, _, value in attrs)
    types = {
        name: helper.make_tensor_type_proto(known[0], known[1])
        for name, known in zip(names, inputs, strict=True)
        if known is not None
    }
    found = _inferred(node, types, {}, opset, ir_version)
    return tuple([found.get(name, UNKNOWN) for name in node.output])


def _inferred(
    node: NodeProto, types: Mapping[str, TypeProto], values: Mapping[str, TensorProto], opset: int, ir_version: int
) -> dict[str, Type]:
    try:
        schema = defs.get_schema(node.op_type, opset, node.domain)
        imports = [helper.make_opsetid(node.domain, opset)]
        found = shape_inference.infer_node_outputs(schema, node, dict(types), dict(values), None, imports, ir_version)
    except Exception:  # the schema is too new for this opset, or its inference function threw
        return {}
    return {name: _type_of(proto) for name, proto in found.items()}


def _type_of(proto: TypeProto) -> Type:
    if not proto.HasField("tensor_type"):
        return UNKNOWN
    tensor_type = proto.tensor_type
    shape = tuple([as_dim(d) for d in tensor_type.shape.dim]) if tensor_type.HasField("shape") else None
    return tensor_type.elem_type or None, shape
