"""Scopes: a body's name hides an outer one, which must not happen to a tensor that the body reads.

ONNX forbids shadowing (IR.md, "Names Within a Graph"), yet files have it. It is harmless until a rewrite makes a body
read an outer tensor whose name the body uses for its own.
"""

from __future__ import annotations

from graphopt.graph.graph import Graph, Model
from graphopt.graph.node import Tensor


def unshadow(model: Model) -> None:
    """Renames tensors of bodies that hide an outer tensor which is read in there. Others keep their names."""
    for graph in model.graphs():
        for tensor in _read_in(graph):
            inner: Graph | None = graph
            while inner is not None and inner is not tensor.graph:
                for own in _defined(inner):
                    if own.name == tensor.name:
                        own.name = model.fresh_name(own.name)
                inner = inner.parent.graph if inner.parent is not None else None


def _read_in(graph: Graph) -> list[Tensor]:
    """Tensors of outer graphs that this graph's own nodes and outputs read."""
    read = [t for node in graph.nodes for t in node.inputs if t is not None and t.graph is not graph]
    return read + [t for t in graph.outputs if t.graph is not graph]


def _defined(graph: Graph) -> list[Tensor]:
    made = [t for node in graph.nodes for t in node.outputs if t is not None]
    return [*graph.inputs, *graph.initializers, *made]
