"""ModelProto -> Model. Nothing is copied that need not be: nodes and weights keep their protobufs.

Names are resolved as ONNX scopes them: a body sees its own tensors first, then the outer graphs' (IR.md, "Names Within
a Graph").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from graphopt.errors import ModelError
from graphopt.external import printable
from graphopt.graph.constant import ArrayConstant, Constant, FileConstant, ProtoConstant, SparseConstant
from graphopt.graph.graph import Function, Graph, Model
from graphopt.graph.node import Node, Tensor
from graphopt.graph.standard import STANDARD, UNKNOWN, is_unknown
from graphopt.limits import check_depth, check_head
from graphopt.weight_file import Stretch

Scope = dict[str, Tensor]

# Before this IR version every initializer had to be listed as an input too, and none was meant to be overridden.
_OPTIONAL_DEFAULTS_IR = 4


def import_model(
    proto: ModelProto, folder: Path | None = None, stretches: Mapping[int, Stretch] = MappingProxyType({})
) -> Model:
    """The model as a graph of objects; `proto` is kept and never changed.

    `stretches` says, by the initializer's index in the main graph, which values were left in the model's file.

    Raises ModelError when names do not resolve: a tensor that two nodes make, or that nothing makes; or when the model
    is beyond the limits of `graphopt.limits`.
    """
    check_head(proto)
    model = Model(proto, folder)
    model.opsets = _opsets(proto.opset_import)
    local = {(f.domain, f.name) for f in proto.functions}
    model.graph = _Importer(model, local, stretches).graph(proto.graph, [], None, model.opsets)
    for function in proto.functions:
        opsets = {**model.opsets, **_opsets(function.opset_import)}
        body = _Importer(model, local).function(function, opsets)
        entry = Function(function, body)
        model.functions[entry.key] = entry
    return model


def import_function(model: Model, proto: FunctionProto) -> Function:
    """A function for `model`, not yet in it."""
    opsets = {**model.opsets, **_opsets(proto.opset_import)}
    return Function(proto, _Importer(model, set()).function(proto, opsets))


def _opsets(imports: Sequence[object]) -> dict[str, int]:
    return {"" if o.domain == "ai.onnx" else o.domain: o.version for o in imports}  # type: ignore[attr-defined]


class _Importer:
    def __init__(
        self,
        model: Model,
        local_functions: set[tuple[str, str]],
        stretches: Mapping[int, Stretch] = MappingProxyType({}),
    ) -> None:
        self.model = model
        self.stretches = stretches
        self.local_functions = local_functions

    def graph(self, proto: GraphProto, outer: list[Scope], parent: Node | None, opsets: dict[str, int]) -> Graph:
        check_depth(len(outer))
        graph = Graph(self.model, proto, parent, opsets)
        scope: Scope = {}
        scopes = [*outer, scope]
        for info in proto.input:
            if parent is None and self._is_listed_again(info, scope):
                continue
            tensor = self._define(graph, scope, info.name, outer)
            tensor.is_input, tensor.info = True, info
            graph.inputs.append(tensor)
        self._initializers(graph, proto, scope, outer)
        self._nodes(graph, proto.node, scopes)
        for info in proto.output:
            tensor = self._resolve(info.name, scopes, "the graph's output")
            tensor.listings[graph, len(graph.outputs)] = None
            if tensor.info is None and tensor.graph is graph:
                tensor.info = info
            graph.outputs.append(tensor)
        for info in proto.value_info:
            known = scope.get(info.name)
            self.model.reserved.add(info.name)
            graph.claims.append((info, known))
            if known is not None and known.info is None:
                known.info = info
        return graph

    def function(self, proto: FunctionProto, opsets: dict[str, int]) -> Graph:
        graph = Graph(self.model, GraphProto(), None, opsets)
        scope: Scope = {}
        for name in proto.input:
            tensor = self._define(graph, scope, name, [])
            tensor.is_input = True
            graph.inputs.append(tensor)
        self._nodes(graph, proto.node, [scope])
        for name in proto.output:
            tensor = scope.get(name) or self._define(graph, scope, name, [])  # one that nothing makes may go unread
            tensor.listings[graph, len(graph.outputs)] = None
            graph.outputs.append(tensor)
        return graph

    def _initializers(self, graph: Graph, proto: GraphProto, scope: Scope, outer: list[Scope]) -> None:
        constants: list[tuple[str, Constant]] = [
            (t.name, self._constant(t, index, graph)) for index, t in enumerate(proto.initializer)
        ]
        self.model.external += [t for t in proto.initializer if t.data_location == TensorProto.EXTERNAL]
        constants += [(t.values.name, SparseConstant(t)) for t in proto.sparse_initializer]
        overridable = self.model.proto.ir_version >= _OPTIONAL_DEFAULTS_IR or graph.parent is not None
        for rank, (name, constant) in enumerate(constants):
            tensor = scope.get(name)
            if tensor is None:
                tensor = self._define(graph, scope, name, outer)
            elif not tensor.is_input or tensor in graph.defaults:
                raise ModelError(f"initializer '{printable(name)}' is defined twice; export the model again.")
            elif overridable:
                graph.defaults[tensor] = constant
                graph.ranks[tensor] = rank
                continue
            else:  # an initializer of IR 3: an input in name only
                tensor.is_input = False
                graph.inputs.remove(tensor)
            tensor.constant = constant
            graph.initializers[tensor] = None
            graph.ranks[tensor] = rank
            tensor.dtype, tensor.shape = constant.dtype, constant.shape

    def _constant(self, proto: TensorProto, index: int, graph: Graph) -> Constant:
        stretch = self.stretches.get(index) if graph.parent is None else None
        return ProtoConstant(proto, self.model.folder) if stretch is None else FileConstant(proto, stretch)

    def _nodes(self, graph: Graph, protos: Sequence[NodeProto], scopes: list[Scope]) -> None:
        """Outputs are defined first, so that nodes may come in any order."""
        scope, outer = scopes[-1], scopes[:-1]
        nodes = []
        for position, given in enumerate(protos):
            if not given.output and self._is_idle(given, graph):
                self.model.idle.append(given.name or given.op_type)
                continue
            proto = self._in_short(given)
            if not isinstance(proto.op_type, str) or not isinstance(proto.domain, str):
                raise _no_text()
            node = Node(proto.op_type, proto.domain, name=proto.name, proto=proto)
            node.graph, node.position = graph, position
            node.outputs = tuple([self._define(graph, scope, n, outer) if n else None for n in proto.output])
            for tensor in node.outputs:
                if tensor is not None:
                    tensor.producer = node
            graph.nodes[node] = None
            nodes.append((node, proto))
        for node, proto in nodes:
            inputs = [self._resolve(n, scopes, f"node '{proto.name}'") if n else None for n in proto.input]
            node.inputs = tuple(inputs)
            for tensor in inputs:
                if tensor is not None:
                    tensor.consumers[node] = tensor.consumers.get(node, 0) + 1
            if proto.attribute:
                self._attributes(node, proto, graph, scopes)
                if node.bodies:
                    graph.holders[node] = None
            if (proto.domain, proto.op_type) in self.local_functions:
                node.op = f"function::{proto.domain}::{proto.op_type}"
            elif is_unknown(proto.op_type, proto.domain, graph.opset):
                node.op = f"{UNKNOWN}::{proto.op_type}"

    def _is_listed_again(self, info: ValueInfoProto, scope: Scope) -> bool:
        """Whether an input is listed once more in the very same words, which says nothing new."""
        known = scope.get(info.name)
        if known is None or known.info != info:
            return False
        self.model.tidied.append(f"input '{printable(info.name)}' was listed twice; it is listed once")
        return True

    def _in_short(self, proto: NodeProto) -> NodeProto:
        """The node with "" for "ai.onnx": both name the standard's domain (IR.md), the checker takes the short one."""
        if proto.domain != "ai.onnx":
            return proto
        result = NodeProto()
        result.CopyFrom(proto)
        result.domain = ""
        said = "nodes of the domain 'ai.onnx' are written without it, which means the same"
        if said not in self.model.tidied:
            self.model.tidied.append(said)
        return result

    def _is_idle(self, proto: NodeProto, graph: Graph) -> bool:
        """Whether a node without outputs does nothing at all: the standard's operators have no other effect."""
        is_local = (proto.domain, proto.op_type) in self.local_functions
        unknown = is_unknown(proto.op_type, proto.domain, graph.opset)
        return proto.domain in STANDARD and graph.opset > 0 and not is_local and not unknown

    def _attributes(self, node: Node, proto: NodeProto, graph: Graph, scopes: list[Scope]) -> None:
        for attribute in proto.attribute:
            if attribute.ref_attr_name:
                node.op = f"attr-ref::{node.op}"
            elif attribute.type == AttributeProto.GRAPH:
                node.bodies[attribute.name] = (self.graph(attribute.g, scopes, node, graph.opsets),)
            elif attribute.type == AttributeProto.GRAPHS:
                bodies = tuple(self.graph(g, scopes, node, graph.opsets) for g in attribute.graphs)
                node.bodies[attribute.name] = bodies
        if node.op == "Constant":
            constant = constant_of(node, self.model.folder)
            output = node.output(0)
            if isinstance(constant, ProtoConstant) and constant.is_external:
                self.model.external.append(constant.proto)
            if constant is not None and output is not None:
                output.constant = constant
                output.dtype, output.shape = constant.dtype, constant.shape

    def _define(self, graph: Graph, scope: Scope, name: str, outer: list[Scope]) -> Tensor:
        if not isinstance(name, str):
            raise _no_text()
        if name in scope:
            raise ModelError(f"tensor '{printable(name)}' is made twice; export the model again.")
        self.model.has_shadows = self.model.has_shadows or any(name in s for s in outer)
        tensor = Tensor(name, graph)
        self.model.reserved.add(name)
        scope[name] = tensor
        return tensor

    def _resolve(self, name: str, scopes: list[Scope], reader: str) -> Tensor:
        for scope in reversed(scopes):
            tensor = scope.get(name)
            if tensor is not None:
                return tensor
        raise ModelError(f"{printable(reader)} reads '{printable(name)}', which nothing makes; export the model again.")


def _no_text() -> ModelError:
    """protobuf hands out strings that are not UTF-8 as bytes."""
    return ModelError("a name in the model is no text in UTF-8; export the model again.")


# The types of what a Constant makes of attributes that are numbers (ONNX, operator Constant).
CONSTANT_NUMBERS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def constant_of(node: Node, folder: Path | None) -> Constant | None:
    """The value of a Constant node (all its attribute forms), None when the form is unknown."""
    attrs = node.attrs
    if "value" in attrs:
        return ProtoConstant(attrs["value"], folder)
    if "sparse_value" in attrs:
        return SparseConstant(attrs["sparse_value"])
    for name, dtype in CONSTANT_NUMBERS.items():
        if name in attrs:
            return ArrayConstant(np.asarray(attrs[name], dtype))
    for name in ("value_string", "value_strings"):
        if name in attrs:
            return ArrayConstant(np.asarray(attrs[name], object))
    return None
