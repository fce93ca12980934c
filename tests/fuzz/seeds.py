"""Harvested graphs as snippets: one for each rule, which puts one of the rule's graphs behind a tensor."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto

from tests.fuzz.builder import Builder, RejectedError, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.harvest import INDEX, OPSETS
from tests.fuzz.registry import ANY, SNIPPETS, Function, Made, Snippet

WEIGHT = 16
_FEW = 3
_UNKNOWN_SIZE = 2


def register(folder: Path) -> None:
    """A snippet for each rule and opset that has graphs in the folder: three in four fire the rule, one nearly does."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    protos = {name: onnx.load(folder / name) for name in index}
    for rule in sorted({rule for uses in index.values() for rule in uses["fired"]}):
        reach = {opset for uses in index.values() if rule in uses["fired"] for opset in uses["opsets"]}
        weight = WEIGHT * min(4, len(OPSETS) // max(1, len(reach)))  # rules of few opsets are drawn more in these
        if sum(rule in uses["fired"] for uses in index.values()) <= _FEW:
            weight *= 3  # no other rule's graphs help this one
        for opset in OPSETS:
            usable = {name: uses for name, uses in index.items() if opset in uses["opsets"]}
            firing = [protos[name] for name, uses in usable.items() if rule in uses["fired"]]
            nearly = [protos[n] for n, u in usable.items() if rule in u["tested"] and rule not in u["fired"]]
            if firing:
                name = f"graphs of {rule} ({opset})"
                function = _grafting(firing, nearly or firing)
                SNIPPETS[name] = Snippet(name, weight, ANY, opset, opset + 1, (rule,), function)


def _grafting(firing: list[ModelProto], nearly: list[ModelProto]) -> Function:
    def graft(d: Draw, b: Builder, x: Tensor) -> Made:
        if b.shared.ir_version < 4:
            return None
        return _graft(d, b, d.choice(nearly if d.chance(25) else firing))

    return graft


def _graft(d: Draw, b: Builder, proto: ModelProto) -> list[Tensor]:
    """The graph's nodes under fresh names; its inputs are tensors of the pool where type and shape fit."""
    names: dict[str, str] = {}
    given = {init.name for init in proto.graph.initializer}
    for info in proto.graph.input:
        if info.name not in given:
            names[info.name] = _source(d, b, info).name
    for init in proto.graph.initializer:
        names[init.name] = b.fresh(init.name)
        copy = onnx.TensorProto()
        copy.CopyFrom(init)
        copy.name = names[init.name]
        b.initializers.append(copy)
    for node in proto.graph.node:
        b.nodes.append(_renamed(b, node, names))
    types = {info.name: info for info in _inferred(proto).output}
    return [_tensor(names[output.name], [types[output.name], output]) for output in proto.graph.output]


def _inferred(proto: ModelProto) -> GraphProto:
    """Types with every unknown dimension of an input set to one number."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for info in copy.graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = _UNKNOWN_SIZE
    for info in copy.graph.output:
        info.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    except MemoryError as error:
        raise RejectedError("a graph that asks for too much") from error


def _source(d: Draw, b: Builder, info: onnx.ValueInfoProto) -> Tensor:
    kind = info.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else _UNKNOWN_SIZE for dim in kind.shape.dim)
    free = any(not dim.HasField("dim_value") for dim in kind.shape.dim)
    fitting = [t for t in b.pool if not free and t.dtype == kind.elem_type and t.shape == shape]
    if fitting and d.chance(60):
        return d.choice(fitting)
    if not kind.HasField("shape") or not kind.elem_type:
        raise RejectedError("an input without a type")
    tensor = b.input(kind.elem_type, shape, (0, 1))
    if free:
        named = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in kind.shape.dim]
        b.shared.symbols[tensor.name] = named
    b.pool.append(tensor)
    return tensor


def _tensor(name: str, infos: list[onnx.ValueInfoProto]) -> Tensor:
    """The tensor as the first of the descriptions that is complete has it."""
    for info in infos:
        kind = info.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            return Tensor(name, kind.elem_type, tuple(dim.dim_value for dim in kind.shape.dim))
    raise RejectedError("an output without a known shape")


def _renamed(b: Builder, node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for at, name in enumerate(node.input):
        copy.input[at] = names.get(name, name)
    for attribute in copy.attribute:
        if attribute.HasField("g"):
            _rename_body(b, attribute.g, dict(names))
    for at, name in enumerate(node.output):
        if name:
            names[name] = copy.output[at] = b.fresh(name)
    copy.name = b.shared.names.node(node.op_type, copy.output[0])
    return copy


def _rename_body(b: Builder, graph: GraphProto, names: dict[str, str]) -> None:
    for message in [*graph.input, *graph.initializer]:
        names[message.name] = message.name = b.fresh(message.name)
    nodes = [_renamed(b, node, names) for node in graph.node]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    for output in graph.output:
        output.name = names.get(output.name, output.name)
