"""What no model that a file holds needs, and what would take all time or memory: refused before anything looks closer.

Functions are written out wherever they are called, by onnx's inference and by runtimes: forty that call each other
twice each make 2^40 nodes of a kilobyte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from graphopt.errors import ModelError, UnsafeModelError

# Graphs in each other: protobuf reads a hundred messages in each other, of which a graph in a graph takes three.
DEEPEST = 33
# Nodes of a model whose functions are written out.
MOST_NODES = 1 << 17

_Key = tuple[str, str]


def check_limits(proto: ModelProto) -> None:
    """Raises ModelError for an opset that onnx does not know, UnsafeModelError for graphs or functions out of bounds.

    Functions that call themselves are left to the ONNX checker, which names them.
    """
    check_head(proto)
    level = [proto.graph.node, *(function.node for function in proto.functions)]
    depth = 0
    while level:
        check_depth(depth)
        depth += 1
        level = [body.node for nodes in level for node in nodes if node.attribute for body in _bodies(node)]


def check_head(proto: ModelProto) -> None:
    """As `check_limits`, but for graphs in graphs."""
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise ModelError(f"the model uses opset {opset.version}, but the newest known is {newest}; update onnx.")
    if proto.functions:
        _check_functions(proto)


def check_depth(depth: int) -> None:
    """Raises UnsafeModelError for a graph that lies in so many others that no file holds it."""
    if depth >= DEEPEST:
        raise UnsafeModelError(
            f"the model's graphs lie more than {DEEPEST} deep in each other, which no file holds; flatten them."
        )


def _check_functions(proto: ModelProto) -> None:
    identities = Counter((f.domain, f.name, f.overload) for f in proto.functions)
    twice = next((f"{domain}::{name}" for (domain, name, _), times in identities.items() if times > 1), None)
    if twice is not None:
        raise ModelError(f"the function '{twice}' is defined twice; export the model again.")
    called = {(f.domain, f.name): _calls(f.node) for f in proto.functions}
    sizes: dict[_Key, int] = {}
    stack = [(key, False) for key in called]
    entered: set[_Key] = set()
    while stack:
        key, is_done = stack.pop()
        if is_done:
            sizes[key] = sum(times * sizes.get(other, 1) for other, times in called[key].items())
        elif key not in entered:
            entered.add(key)
            stack.append((key, True))
            stack += [(other, False) for other in called[key] if other in called]
    total = sum(times * sizes.get(other, 1) for other, times in _calls(proto.graph.node).items())
    if max([total, *sizes.values()]) > MOST_NODES:
        raise UnsafeModelError(
            f"the model has more than {MOST_NODES:,} nodes when its functions are written out, which no runtime takes; "
            "export it without functions."
        )


def _calls(nodes: Iterable[NodeProto]) -> dict[_Key, int]:
    """How often each operator comes among the nodes and those of their bodies."""
    found: dict[_Key, int] = {}
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            key = (node.domain, node.op_type)
            found[key] = found.get(key, 0) + 1
            if node.attribute:
                waiting += [body.node for body in _bodies(node)]
    return found


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs
