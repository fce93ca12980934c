"""What onnx's version converter makes of single nodes: small models in, nodes out, no weights on the way.

The converter takes whole models. It drops functions and metadata, does not look into bodies, and would have to be
handed all weights. So it is given one model in which every node that changes stands alone, between inputs and outputs
of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.version_converter import convert_version

from graphopt.graph import Node, Tensor, value_info
from graphopt.graph.exporter import attribute_proto

# Constants up to this many bytes are handed over: axes, scales, numbers of outputs.
_MOST_BYTES = 1 << 10
# Nodes in one model: the converter's time grows faster than their number.
_AT_ONCE = 1 << 10
_PLAIN = (TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64)
_IR_VERSION = 8


@dataclass
class Converted:
    """What stands for one node: nodes in order, and the constants that they read, by name.

    The old node's inputs and outputs are called "i0", "i1", ..., "o0", ...; other names are new.
    """

    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)


def convert(nodes: Sequence[Node], before: int, after: int) -> list[Converted]:
    """What the converter makes of each of `nodes` between two versions of the standard's operator set.

    Raises RuntimeError, as the converter does, when it has no way for one of them.
    """
    made: list[Converted] = []
    for start in range(0, len(nodes), _AT_ONCE):
        made += _convert(nodes[start : start + _AT_ONCE], before, after)
    return made


def _convert(nodes: Sequence[Node], before: int, after: int) -> list[Converted]:
    graph = GraphProto(name="nodes")
    for number, node in enumerate(nodes):
        _add(graph, number, node)
    opset = helper.make_opsetid("", before)
    found = convert_version(ModelProto(ir_version=_IR_VERSION, graph=graph, opset_import=[opset]), after).graph
    return _sorted_out(found, len(nodes))


def plain_proto(node: Node) -> NodeProto:
    """The node with its inputs and outputs called "i0", ..., "o0", ...; absent ones stay absent."""
    inputs = [f"i{k}" if t is not None else "" for k, t in enumerate(node.inputs)]
    outputs = [f"o{k}" if t is not None else "" for k, t in enumerate(node.outputs)]
    proto = NodeProto(op_type=node.op_type, input=inputs, output=outputs)
    proto.attribute.extend(attribute_proto(name, value, node.op_type) for name, value in node.attrs.items())
    return proto


def _add(graph: GraphProto, number: int, node: Node) -> None:
    proto = plain_proto(node)
    proto.input[:] = [f"{number}.{name}" if name else "" for name in proto.input]
    proto.output[:] = [f"{number}.{name}" if name else "" for name in proto.output]
    graph.node.append(proto)
    for name, tensor in zip(proto.input, node.inputs, strict=True):
        if tensor is None:
            continue
        constant = tensor.constant
        if constant is not None and constant.nbytes <= _MOST_BYTES and constant.dtype in _PLAIN:
            graph.initializer.append(onnx.numpy_helper.from_array(constant.array(), name))
        else:
            graph.input.append(_info(tensor, name))
    graph.output.extend(_info(t, n) for n, t in zip(proto.output, node.outputs, strict=True) if t is not None)


def _info(tensor: Tensor, name: str) -> ValueInfoProto:
    return value_info(tensor, name) or ValueInfoProto(name=name)


def _sorted_out(graph: GraphProto, count: int) -> list[Converted]:
    """Each node goes to the old node whose outputs it makes, directly or through others."""
    results = [Converted() for _ in range(count)]
    owners: dict[str, int] = {}
    for node in reversed(graph.node):
        # an absent output or input is called "", which says nothing of whose it is
        number = next((n for n in (_owner(name, owners) for name in node.output if name) if n is not None), None)
        if number is None:
            continue  # nothing reads it
        for name in filter(None, node.input):
            owners.setdefault(name, number)
        if node.op_type == "Constant" and not node.input:
            results[number].constants[_short(node.output[0])] = node.attribute[0].t
            continue
        copy = NodeProto(op_type=node.op_type, attribute=node.attribute)
        copy.input.extend(_short(name) for name in node.input)
        copy.output.extend(_short(name) for name in node.output)
        results[number].nodes.insert(0, copy)
    for tensor in graph.initializer:
        prefix, dot, _ = tensor.name.partition(".")
        if not (dot and prefix.isdigit()) and tensor.name in owners:
            results[owners[tensor.name]].constants[tensor.name] = tensor
    return results


def _owner(name: str, owners: dict[str, int]) -> int | None:
    prefix, dot, _ = name.partition(".")
    return int(prefix) if dot and prefix.isdigit() else owners.get(name)


def _short(name: str) -> str:
    """The name without the number of its node."""
    prefix, dot, rest = name.partition(".")
    return rest if dot and prefix.isdigit() else name
