"""Model -> ModelProto. What no rewrite touched comes out as it went in, node for node and name for name."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from graphopt.graph.constant import Constant, SparseConstant
from graphopt.graph.graph import Function, Graph, Model
from graphopt.graph.node import AttributeRef, Dim, Node, Tensor
from graphopt.graph.scopes import unshadow
from graphopt.graph.standard import list_type

# what the exporter writes for an initializer or an input's default: its TensorProto, or None when it goes elsewhere
WriteInitializer = Callable[[Tensor, Constant], TensorProto | None]

_OPTIONAL_DEFAULTS_IR = 4


def export_model(
    model: Model, write_initializer: WriteInitializer | None = None, left_out: Container[Node] = ()
) -> ModelProto:
    """A new ModelProto of the model; nothing in it is shared with the graph's own protobufs.

    `write_initializer` says how an initializer is written; by default with its values, or with their place where they
    are in another file. The nodes of `left_out` are not written.
    """
    if model.has_shadows:
        unshadow(model)
    exporter = _Exporter(model, write_initializer or stored_initializer, left_out)
    result = ModelProto()
    source = model.proto
    for field, value in source.ListFields():
        if field.name not in ("graph", "functions", "opset_import", "training_info"):
            _copy_field(result, field.name, value)
    if model.ir_version:
        result.ir_version = model.ir_version
    result.training_info.extend(source.training_info)
    for opset in source.opset_import:
        version = model.opsets.get(_domain(opset.domain))
        if version is not None:
            result.opset_import.append(helper.make_opsetid(opset.domain, version))
    known = {o.domain for o in source.opset_import} | ({""} if "" in model.opsets else set())
    for domain, version in model.opsets.items():
        if domain not in known and not (domain == "" and "ai.onnx" in known):
            result.opset_import.append(helper.make_opsetid(domain, version))
    exporter.fill_graph(result.graph, model.graph)
    exporter.restore_listed_initializers(result)
    result.functions.extend(exporter.function(f.proto, f.body) for f in model.functions.values())
    return result


def export_bodies(node: Node) -> dict[str, list[GraphProto]]:
    """The bodies of one node as protobuf, weights inside."""
    model = next(node.subgraphs()).model
    return _Exporter(model, inline_initializer).bodies(node)


def export_function(model: Model, function: Function) -> FunctionProto:
    """One function of the model as it is now."""
    return _Exporter(model, inline_initializer).function(function.proto, function.body)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def inline_initializer(tensor: Tensor, constant: Constant) -> TensorProto:
    """The initializer with its values, wherever they lay."""
    return constant.to_proto(tensor.name)


def stored_initializer(tensor: Tensor, constant: Constant) -> TensorProto:
    """The initializer with its values, or with their place in another file."""
    return constant.stored_proto(tensor.name)


def value_info(tensor: Tensor, name: str | None = None) -> ValueInfoProto | None:
    """The tensor's type as a ValueInfoProto, None when its dtype is unknown."""
    if tensor.dtype is None:
        return None
    return helper.make_tensor_value_info(
        name or tensor.name, tensor.dtype, list(tensor.shape) if tensor.shape is not None else None
    )


def node_proto(node: Node, bodies: dict[str, list[GraphProto]] | None = None) -> NodeProto:
    """The node as protobuf. `bodies` are its subgraphs, already exported."""
    inputs = [t.name if t is not None else "" for t in node.inputs]
    outputs = [t.name if t is not None else "" for t in node.outputs]
    source = node.proto
    if (
        source is not None
        and not bodies
        and not node.metadata
        and source.name == node.name
        and list(source.input) == inputs
        and list(source.output) == outputs
    ):
        return source
    result = NodeProto()
    graphs = bodies or {}
    if source is not None:
        result.CopyFrom(source)
        del result.input[:], result.output[:]
        if source.name != node.name:
            result.name = node.name
        if graphs:
            del result.attribute[:]
            result.attribute.extend(
                _graph_attribute(a.name, graphs[a.name]) if a.name in graphs else a for a in source.attribute
            )
    else:
        result.op_type, result.domain, result.name = node.op_type, node.domain, node.name
        result.attribute.extend(attribute_proto(k, v, node.op_type) for k, v in sorted(node.attrs.items()))
        result.attribute.extend(_graph_attribute(k, v) for k, v in graphs.items())
    result.input.extend(inputs)
    result.output.extend(outputs)
    for key, value in node.metadata.items():
        _set_entry(result.metadata_props, key, value)
    return result


def _number_equal_names(graph: GraphProto, nodes: Sequence[Node]) -> None:
    """Gives nodes that rewrites made a name that no other node of the graph has: ONNX Runtime takes no other graphs."""
    taken = {node.name for node in nodes if node.proto is not None}
    for node, proto in zip(nodes, graph.node, strict=True):
        if node.proto is not None or not node.name:
            continue
        name, number = node.name, 0
        while name in taken:
            number += 1
            name = f"{node.name}_{number}"
        taken.add(name)
        if name != node.name:
            proto.name = name


def attribute_proto(name: str, value: Any, op_type: str) -> AttributeProto:
    """The attribute as protobuf; tuples become lists, empty ones of the operator's type, a protobuf is taken as it is.

    Raises ValueError for an attribute of a function that its caller gives.
    """
    if isinstance(value, AttributeProto):
        return value
    if isinstance(value, AttributeRef):
        raise ValueError(f"attribute '{name}' refers to '{value.name}': its type is unknown outside its function")
    if isinstance(value, tuple):
        return helper.make_attribute(name, list(value), attr_type=None if value else list_type(op_type, name))
    return helper.make_attribute(name, value)


def _graph_attribute(name: str, graphs: list[GraphProto]) -> AttributeProto:
    if len(graphs) == 1:
        return helper.make_attribute(name, graphs[0])
    return helper.make_attribute(name, graphs)


def _set_entry(entries: Any, key: str, value: str) -> None:
    for entry in entries:
        if entry.key == key:
            entry.value = value
            return
    entries.add(key=key, value=value)


def _copy_field(target: Any, name: str, value: Any) -> None:
    if hasattr(value, "extend") and not isinstance(value, (str, bytes)):
        getattr(target, name).extend(value)
    else:
        setattr(target, name, value)


class _Exporter:
    def __init__(self, model: Model, write_initializer: WriteInitializer, left_out: Container[Node] = ()) -> None:
        self.model = model
        self.write_initializer = write_initializer
        self.left_out = left_out

    def fill_graph(self, result: GraphProto, graph: Graph) -> None:
        source = graph.proto
        for field in ("name", "doc_string"):
            if source.HasField(field):
                setattr(result, field, getattr(source, field))
        result.metadata_props.extend(source.metadata_props)
        result.input.extend(_named(t) for t in graph.inputs)
        result.output.extend(_renamed(info, t.name) for t, info in zip(graph.outputs, graph.declared, strict=True))
        nodes = [node for node in graph.sorted_nodes() if node not in self.left_out]
        result.node.extend(self.node(n) for n in nodes)
        _number_equal_names(result, nodes)
        self._initializers(result, graph)
        self._value_info(result, graph)
        present = {t.name for t in graph.initializers} | {
            t.name for n in graph.nodes for t in n.outputs if t is not None
        }
        present |= {t.name for t in graph.inputs}
        result.quantization_annotation.extend(q for q in source.quantization_annotation if q.tensor_name in present)

    def node(self, node: Node) -> NodeProto:
        return node_proto(node, self.bodies(node) if node.bodies else None)

    def bodies(self, node: Node) -> dict[str, list[GraphProto]]:
        result: dict[str, list[GraphProto]] = {}
        for name, graphs in node.bodies.items():
            result[name] = [GraphProto() for _ in graphs]
            for proto, graph in zip(result[name], graphs, strict=True):
                self.fill_graph(proto, graph)
        return result

    def function(self, proto: FunctionProto, body: Graph) -> FunctionProto:
        result = FunctionProto()
        result.CopyFrom(proto)
        del result.node[:]
        for tensor in body.initializers:  # a function has no initializers: they become Constant nodes
            assert tensor.constant is not None
            value = inline_initializer(tensor, tensor.constant)
            result.node.append(helper.make_node("Constant", [], [tensor.name], value=value))
        result.node.extend(self.node(n) for n in body.sorted_nodes())
        return result

    def _initializers(self, result: GraphProto, graph: Graph) -> None:
        """In the order of the file; what rewrites made comes last."""
        last = len(graph.ranks)
        constants = {t: t.constant for t in graph.initializers} | graph.defaults
        for tensor in sorted(constants, key=lambda t: graph.ranks.get(t, last)):
            constant = constants[tensor]
            assert constant is not None
            if isinstance(constant, SparseConstant):
                result.sparse_initializer.append(constant.proto)
                continue
            proto = self.write_initializer(tensor, constant)
            if proto is not None:
                result.initializer.append(proto)

    def _value_info(self, result: GraphProto, graph: Graph) -> None:
        """What the file said of inner tensors, for those that are still there."""
        for info, tensor in graph.claims:
            if tensor is None:
                result.value_info.append(info)
            elif tensor.producer is not None or tensor.is_input or tensor in graph.initializers:
                result.value_info.append(_renamed(info, tensor.name))

    def restore_listed_initializers(self, result: ModelProto) -> None:
        """Before IR 4 initializers are listed as inputs too; one that a rewrite made moves the model to IR 4."""
        if result.ir_version >= _OPTIONAL_DEFAULTS_IR:
            return
        listed = {i.name: i for i in self.model.proto.graph.input}
        constants = self.model.graph.initializers
        initializers = [t.name for t in constants if not isinstance(t.constant, SparseConstant)]
        if any(name not in listed for name in initializers):
            result.ir_version = _OPTIONAL_DEFAULTS_IR
            return
        names = set(initializers) | {t.name for t in self.model.graph.inputs}
        del result.graph.input[:]
        result.graph.input.extend(info for name, info in listed.items() if name in names)


def _named(tensor: Tensor) -> ValueInfoProto:
    assert tensor.info is not None
    return _renamed(tensor.info, tensor.name)


def _renamed(info: ValueInfoProto, name: str) -> ValueInfoProto:
    if info.name == name:
        return info
    result = ValueInfoProto()
    result.CopyFrom(info)
    result.name = name
    return result


def as_dim(value: Any) -> Dim:
    """One dimension of a TensorShapeProto: a number, a symbol, or None when unknown."""
    kind = value.WhichOneof("value")
    if kind == "dim_value":
        return int(value.dim_value) if value.dim_value >= 0 else None
    return str(value.dim_param) or None if kind == "dim_param" else None
