"""Graphs, functions and the model: containers with identity semantics."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnx import FunctionProto, GraphProto, ModelProto, TensorProto, ValueInfoProto

from graphopt.errors import ModelError
from graphopt.external import printable
from graphopt.graph.constant import Constant
from graphopt.graph.node import Node, Shape, Tensor


class Graph:
    """A graph: the model's main one, a body of a control-flow node, or a function's.

    `nodes` and `initializers` are dicts used as ordered sets. `inputs` and `outputs` are in the interface's order;
    an output may be a captured tensor of an outer graph.
    """

    __slots__ = (
        "claims",
        "declared",
        "defaults",
        "holders",
        "initializers",
        "inputs",
        "model",
        "nodes",
        "opsets",
        "order",
        "outputs",
        "parent",
        "proto",
        "ranks",
    )

    def __init__(self, model: Model, proto: GraphProto, parent: Node | None, opsets: dict[str, int]) -> None:
        self.model = model
        self.proto = proto  # what the file said; its lists are stale, its name and documentation are not
        self.parent = parent
        self.opsets = opsets
        self.nodes: dict[Node, None] = {}
        self.holders: dict[Node, None] = {}  # those of the nodes that have bodies
        self.order: list[Node] | None = None  # the nodes sorted; None when a link changed since
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.declared: list[ValueInfoProto] = list(proto.output)  # what the file says of each of the outputs
        self.initializers: dict[Tensor, None] = {}
        # inputs that an initializer gives a default value: a caller may override it, so it is no constant
        self.defaults: dict[Tensor, Constant] = {}
        # where the file listed each initializer, and what it said of inner tensors' types: both come out as they were
        self.ranks: dict[Tensor, int] = {}
        self.claims: list[tuple[ValueInfoProto, Tensor | None]] = []

    @property
    def opset(self) -> int:
        """The version of the standard operators in this graph; 0 when the graph imports none."""
        return self.opsets.get("", 0)

    def sorted_nodes(self) -> list[Node]:
        """The nodes in topological order, the model's own order kept wherever it is one; not to be changed.

        Raises ModelError when the graph has a cycle.
        """
        if self.order is None:
            order = sorted(self.nodes, key=_position)
            self.order = order if self._is_sorted(order) else self._repair(order)
        return self.order

    def _is_sorted(self, order: list[Node]) -> bool:
        seen: set[Node] = set()
        for node in order:
            for tensor in node.inputs:
                producer = tensor.producer if tensor is not None and tensor.graph is self else None
                if producer is not None and producer not in seen:
                    return False
            if node.bodies and not self._waits_for(node) <= seen:
                return False
            seen.add(node)
        return True

    def forget_order(self) -> None:
        """To be called when a link of this graph changed; what its nodes read decides about outer graphs' order too."""
        for graph in self.scopes():
            graph.order = None

    def _repair(self, order: list[Node]) -> list[Node]:
        """Kahn's algorithm with a heap: of all nodes that are ready, the earliest of `order` comes first."""
        rank = {node: i for i, node in enumerate(order)}
        waiting: dict[Node, int] = {}
        followers: dict[Node, list[Node]] = {}
        for node in order:
            producers = self._waits_for(node)
            waiting[node] = len(producers)
            for producer in producers:
                followers.setdefault(producer, []).append(node)
        ready = [rank[node] for node in order if not waiting[node]]
        heapq.heapify(ready)
        result = []
        while ready:
            node = order[heapq.heappop(ready)]
            result.append(node)
            for follower in followers.get(node, ()):
                waiting[follower] -= 1
                if not waiting[follower]:
                    heapq.heappush(ready, rank[follower])
        if len(result) != len(order):
            stuck = next(n for n in order if waiting[n])
            raise ModelError(f"the graph has a cycle through node '{printable(stuck.label)}'; export the model again.")
        return result

    def _waits_for(self, node: Node) -> set[Node]:
        """Nodes of this graph that `node`, bodies included, reads from."""
        found = {t.producer for t in node.inputs if t is not None and t.producer is not None and t.graph is self}
        for body in node.subgraphs():
            found |= body.captured_producers(self)
        return found

    def captured_producers(self, outer: Graph) -> set[Node]:
        """Nodes of `outer` whose results this body, or one inside it, reads."""
        found: set[Node] = set()
        for graph in (self, *self.bodies()):
            tensors = [t for node in graph.nodes for t in node.inputs if t is not None]
            found.update(t.producer for t in (*tensors, *graph.outputs) if t.graph is outer and t.producer is not None)
        return found

    def bodies(self) -> Iterator[Graph]:
        """All bodies of this graph's nodes, at any depth."""
        stack = [body for node in self.holders for body in node.subgraphs()]
        while stack:
            graph = stack.pop()
            yield graph
            stack.extend(body for node in graph.holders for body in node.subgraphs())

    def is_inside(self, other: Graph) -> bool:
        """Whether this graph is `other` or a body in it: whether it sees `other`'s tensors."""
        return other in self.scopes()

    def scopes(self) -> Iterator[Graph]:
        """This graph and those around it, from the inside out: the graphs whose tensors its nodes may read."""
        graph: Graph | None = self
        while graph is not None:
            yield graph
            graph = graph.parent.graph if graph.parent is not None else None


def _position(node: Node) -> int:
    return node.position


class Function:
    """A model-local function: its body as a graph, and the protobuf that keeps its attributes and documentation."""

    __slots__ = ("body", "proto")

    def __init__(self, proto: FunctionProto, body: Graph) -> None:
        self.proto = proto
        self.body = body

    @property
    def key(self) -> tuple[str, str, str]:
        """Domain, name and overload: what a call names."""
        return (self.proto.domain, self.proto.name, self.proto.overload)


@dataclass(frozen=True)
class Upgraded:
    """That a model was brought from one opset to another: how many nodes changed, and how many there were and are."""

    before: int
    after: int
    rewritten: int
    nodes_before: int
    nodes_after: int
    seconds: float


class Model:
    """A model: the main graph, the functions, and everything else that the file said.

    `folder` is the folder of the model's file, to which external data is relative. `reserved` are the tensor names in
    use anywhere in the model, so that a new name never meets an old one.
    """

    def __init__(self, proto: ModelProto, folder: Path | None) -> None:
        self.proto = proto
        self.folder = folder
        self.graph: Graph
        self.functions: dict[tuple[str, str, str], Function] = {}
        self.opsets: dict[str, int] = {}
        self.ir_version: int = proto.ir_version
        # sentences: what was wrong with the file and is mended here, and what is wrong and stays as it is
        self.tidied: list[str] = []
        self.tolerated: list[str] = []
        self.upgraded: Upgraded | None = None
        self.idle: list[str] = []  # nodes without outputs, which were not imported
        self.external: list[TensorProto] = []  # what the file keeps in other files
        self.reserved: set[str] = set()
        self.inferences = 0  # how often types were inferred
        self.proven: dict[Tensor, Shape] = {}  # shapes that an analysis is sure of and inference cannot tell
        self.has_shadows = False  # whether a body defines a name that an outer graph has, too
        self._counters: dict[str, int] = {}

    def graphs(self) -> Iterator[Graph]:
        """The main graph, the functions' bodies, and all bodies inside them."""
        for top in (self.graph, *(f.body for f in self.functions.values())):
            yield top
            yield from top.bodies()

    def node_count(self) -> int:
        """Number of nodes in all graphs, Constant nodes not counted."""
        return sum(1 for graph in self.graphs() for node in graph.nodes if node.op != "Constant")

    def fresh_name(self, base: str) -> str:
        """A tensor name that nothing in the model has: `base` itself where it is free, else `base` and a number."""
        name = base
        while not name or name in self.reserved:
            self._counters[base] = self._counters.get(base, 0) + 1
            name = f"{base}_{self._counters[base]}"
        self.reserved.add(name)
        return name
