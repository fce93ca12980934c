"""Questions about the order of a graph's nodes, answered by networkx: levels, independent parts, what depends on what.

The passes do not need them (a rewrite looks at its neighbours only); people who inspect a model do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphopt.graph.graph import Graph
from graphopt.graph.node import Node, Tensor


def as_networkx(graph: Graph) -> Any:
    """The graph as a `networkx.DiGraph` of nodes, an edge from each producer to each consumer, bodies included.

    Constant nodes are left out: they compute nothing. Linear in nodes and edges.
    """
    import networkx as nx

    result = nx.DiGraph()
    nodes = [n for n in graph.sorted_nodes() if n.op != "Constant"]
    result.add_nodes_from(nodes)
    for node in nodes:
        for tensor in _read_by(node):
            producer = tensor.producer
            if producer is not None and producer in result and producer is not node:
                result.add_edge(producer, node)
    return result


def levels(graph: Graph) -> list[list[Node]]:
    """Nodes that could run at the same time, level by level: each reads earlier levels only."""
    import networkx as nx

    return [list(level) for level in nx.topological_generations(as_networkx(graph))]


def parts(graph: Graph) -> list[set[Node]]:
    """The parts of a graph that have no tensor in common but inputs and constants."""
    import networkx as nx

    return [set(part) for part in nx.weakly_connected_components(as_networkx(graph))]


def depends_on(later: Node, earlier: Node) -> bool:
    """Whether `later`, in the same graph, needs what `earlier` makes, directly or not."""
    import networkx as nx

    return bool(later is not earlier and nx.has_path(as_networkx(later.owner), earlier, later))


def _read_by(node: Node) -> Iterator[Tensor]:
    """What a node and the nodes in its bodies read."""
    yield from (t for t in node.inputs if t is not None)
    for body in node.subgraphs():
        yield from body.outputs
        for inner in body.nodes:
            yield from _read_by(inner)
