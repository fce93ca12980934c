"""Copies of nodes and bodies: for a control-flow node with another body, and for a body that is written out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from onnx import GraphProto

from graphopt.graph.graph import Graph
from graphopt.graph.node import Node, Tensor


class Copier:
    """Copies nodes, tensors renamed by `name`; what they read is looked up in `mapping`, then left as it is.

    `mapping` grows: it holds the copy of every tensor. Copies are not linked: tensors do not know them as consumers
    until `Journal.attach` puts the node that holds them into a graph.
    """

    def __init__(self, mapping: dict[Tensor, Tensor], name: Callable[[str], str]) -> None:
        self.mapping = mapping
        self.name = name

    def read(self, tensor: Tensor) -> Tensor:
        """The tensor that a copy reads where the original reads `tensor`."""
        return self.mapping.get(tensor, tensor)

    def tensor(self, tensor: Tensor, graph: Graph) -> Tensor:
        """A copy of a tensor that `graph` defines."""
        made = Tensor(self.name(tensor.name), graph)
        made.is_input, made.constant, made.info = tensor.is_input, tensor.constant, tensor.info
        made.dtype, made.shape = tensor.dtype, tensor.shape
        self.mapping[tensor] = made
        return made

    def bare(self, node: Node) -> Node:
        """The operator, name and attributes of `node`, without inputs, outputs and bodies."""
        made = Node(node.op_type, node.domain, name=node.name, attrs=node.attrs, proto=node.proto)
        made.op = node.op
        return made

    def node(self, node: Node, graph: Graph) -> Node:
        """A copy of `node` for `graph`, in no graph yet; its bodies are copied too."""
        made = self.bare(node)
        made.position, made.metadata = node.position, node.metadata
        made.origins, made.rule = node.origins, node.rule
        made.inputs = tuple([self.read(t) if t is not None else None for t in node.inputs])
        made.outputs = tuple([self.tensor(t, graph) if t is not None else None for t in node.outputs])
        made.bodies = {
            name: tuple(self.body(b, made, b.inputs, range(len(b.outputs)), b.sorted_nodes()) for b in bodies)
            for name, bodies in node.bodies.items()
        }
        return made

    def body(
        self, body: Graph, parent: Node, inputs: Iterable[Tensor], outputs: Sequence[int], nodes: Iterable[Node]
    ) -> Graph:
        """A copy of `body` for `parent` with these of its `inputs`, the outputs with these indices, and these `nodes`.

        `nodes` are in topological order and make what the outputs need. Initializers come along where they are read.
        """
        made = Graph(body.model, _header(body, outputs), parent, body.opsets)
        made.inputs = [self.tensor(t, made) for t in inputs]
        made.defaults = {self.mapping[t]: c for t, c in body.defaults.items() if t in self.mapping}
        constants = {t: self.tensor(t, made) for t in body.initializers}
        for node in nodes:
            copy = self.node(node, made)
            copy.graph = made
            made.nodes[copy] = None
            if copy.bodies:
                made.holders[copy] = None
            for tensor in copy.outputs:
                if tensor is not None:
                    tensor.producer = copy
        made.outputs = [self.read(body.outputs[i]) for i in outputs]
        read = {t for node in made.nodes for t in tensors_read(node)} | set(made.outputs)
        made.initializers = {copy: None for copy in constants.values() if copy in read}
        made.ranks = {self.mapping[t]: rank for t, rank in body.ranks.items() if self.mapping.get(t) in read}
        made.claims = [(info, self.mapping[t]) for info, t in body.claims if t is not None and t in self.mapping]
        return made


def _header(body: Graph, outputs: Sequence[int]) -> GraphProto:
    """What the file said of the body, nodes and weights aside."""
    source, result = body.proto, GraphProto()
    for field in ("name", "doc_string"):
        if source.HasField(field):
            setattr(result, field, getattr(source, field))
    result.metadata_props.extend(source.metadata_props)
    result.quantization_annotation.extend(source.quantization_annotation)
    result.output.extend(source.output[i] for i in outputs)
    return result


def tensors_read(node: Node) -> list[Tensor]:
    """What a node, bodies included, reads."""
    tensors = [t for t in node.inputs if t is not None]
    for body in node.subgraphs():
        tensors += body.outputs
        for inner in body.nodes:
            tensors += tensors_read(inner)
    return tensors
