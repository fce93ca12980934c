"""How many nodes a model has, and whether all of them are ONNX's own: the same yardstick for every tool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

STANDARD = ("", "ai.onnx", "ai.onnx.ml")

Functions = Mapping[tuple[str, str, str], FunctionProto]


def count_nodes(model: ModelProto) -> int:
    """Nodes of the graph, its bodies, and of functions once for each call. Constant nodes are not counted."""
    functions = _functions(model)
    sizes: dict[tuple[str, str, str], int] = {}

    def size(nodes: Iterable[NodeProto]) -> int:
        return sum(weight(node) for node in nodes)

    def weight(node: NodeProto) -> int:
        key = (node.domain, node.op_type, node.overload)
        if key in functions:
            if key not in sizes:
                sizes[key] = size(functions[key].node)
            return sizes[key]
        own = 0 if node.op_type == "Constant" and node.domain in STANDARD else 1
        return own + sum(size(body.node) for body in _bodies(node))

    return size(model.graph.node)


def foreign_operators(model: ModelProto) -> list[str]:
    """The operators, `domain::name`, that neither the ONNX standard nor a function of the model defines, sorted."""
    functions = _functions(model)
    versions = {each.domain: each.version for each in model.opset_import}
    found = set()
    for node in all_nodes(model):
        key = (node.domain, node.op_type, node.overload)
        domain = "" if node.domain == "ai.onnx" else node.domain
        version = versions.get(domain, versions.get("ai.onnx", 1)) if domain == "" else versions.get(domain, 1)
        known = domain in STANDARD and onnx.defs.has(node.op_type, version, domain)
        if key not in functions and not known:
            found.add(f"{domain or 'ai.onnx'}::{node.op_type}")
    return sorted(found)


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of the graph, of bodies at any depth, and of functions (once each)."""
    waiting = [model.graph.node, *(function.node for function in model.functions)]
    while waiting:
        for node in waiting.pop():
            yield node
            waiting.extend(body.node for body in _bodies(node))


def _functions(model: ModelProto) -> Functions:
    return {(each.domain, each.name, each.overload): each for each in model.functions}


def _bodies(node: NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs
