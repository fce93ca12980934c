"""Where each node came from: written into the node's `metadata_props`, read back by `graphopt explain`.

`graphopt.from` is a JSON list of the original nodes' names (a node without a name is called by its first output),
`graphopt.rules` the rules that made the node, the last one first. A node without these entries is the model's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from onnx import GraphProto, ModelProto, NodeProto

from graphopt.graph import Model, Node

FROM, RULES = "graphopt.from", "graphopt.rules"


def stamp(model: Model) -> None:
    """Notes on every node that a rewrite made which nodes it was made of."""
    for graph in model.graphs():
        for node in graph.nodes:
            if node.rule:
                names, rules = _history(node)
                node.metadata = {**node.metadata, FROM: json.dumps(names, ensure_ascii=False), RULES: ", ".join(rules)}


def rules_of(node: Node) -> tuple[str, ...]:
    """The rules that made a node, in this run and in earlier ones; the last one first."""
    return tuple(_history(node)[1])


def _history(node: Node) -> tuple[list[str], list[str]]:
    """The original nodes and the rules in `node`'s past, found by walking back through what each rewrite consumed."""
    names: dict[str, None] = {}
    rules: dict[str, None] = {}
    seen: set[Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.rule:
            rules[current.rule] = None
            stack.extend(reversed(current.origins))
        else:
            earlier = _read(current.proto) if current.proto is not None else None
            names.update(dict.fromkeys(earlier.originals if earlier else (current.label,)))
            rules.update(dict.fromkeys(earlier.rules if earlier else ()))
    return list(names), list(rules)


@dataclass(frozen=True)
class Origin:
    """One node of an optimized model: what it was made of, and by which rules."""

    node: str
    op_type: str
    originals: tuple[str, ...]
    rules: tuple[str, ...]


def origins(model: ModelProto) -> list[Origin]:
    """The origin of every node of an optimized model; a node that no rewrite made is its own original."""
    result = []
    for node in _nodes(model.graph):
        name = node.name or next(iter(node.output), node.op_type)
        result.append(_read(node) or Origin(name, node.op_type, (name,), ()))
    return result


def _read(node: NodeProto) -> Origin | None:
    """What the node's metadata says; None when it says nothing, or nothing that can be read."""
    entries = {entry.key: entry.value for entry in node.metadata_props}
    try:
        originals = json.loads(entries[FROM])
    except (KeyError, ValueError):
        return None
    if not isinstance(originals, list):
        return None
    name = node.name or next(iter(node.output), node.op_type)
    rules = tuple(rule for rule in entries.get(RULES, "").split(", ") if rule)
    return Origin(name, node.op_type, tuple(str(o) for o in originals), rules)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of all bodies in it."""
    stack = [graph]
    while stack:
        current = stack.pop()
        for node in current.node:
            yield node
            for attribute in node.attribute:
                stack.extend([attribute.g] if attribute.HasField("g") else attribute.graphs)
