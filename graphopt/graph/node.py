"""Nodes and tensors: compared by identity, linked both ways, nothing here knows an operator's meaning.

A tensor knows its producer and its consumers; a consumer may live in a body (If, Loop, Scan) that captures the tensor.
Only `graphopt.rewrite` changes the links, through the primitives of `graphopt.graph.edits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from onnx import AttributeProto, NodeProto, ValueInfoProto

if TYPE_CHECKING:
    from graphopt.graph.constant import Constant
    from graphopt.graph.graph import Graph

Dim = int | str | None
Shape = tuple[Dim, ...]


class Tensor:
    """A value of the graph.

    `dtype` is an ONNX data type or None when unknown (or no tensor: a sequence, a map, an optional). `shape` is None
    when the rank is unknown, else one entry a dimension: an int, a symbol (a str: equal symbols are equal numbers), or
    None. `constant` is set for initializers that no caller can override and for what a Constant node makes.
    """

    __slots__ = ("constant", "consumers", "dtype", "graph", "info", "is_input", "listings", "name", "producer", "shape")

    def __init__(self, name: str, graph: Graph) -> None:
        self.name = name
        self.graph = graph
        self.producer: Node | None = None
        # consumer -> how many of its inputs read this tensor; insertion-ordered, O(1) to add and remove
        self.consumers: dict[Node, int] = {}
        # (graph, index): where a graph lists this tensor as its output; a dict used as an ordered set
        self.listings: dict[tuple[Graph, int], None] = {}
        self.is_input = False
        self.constant: Constant | None = None
        self.dtype: int | None = None
        self.shape: Shape | None = None
        self.info: ValueInfoProto | None = None

    @property
    def is_output(self) -> bool:
        """Whether a graph (its own, or a body that captures it) lists this tensor as an output."""
        return bool(self.listings)

    @property
    def is_used(self) -> bool:
        """Whether anything reads this tensor."""
        return bool(self.consumers) or bool(self.listings)

    @property
    def uses(self) -> int:
        """Number of node inputs and graph outputs that read this tensor."""
        return sum(self.consumers.values()) + len(self.listings)

    @property
    def sole_consumer(self) -> Node | None:
        """The one node that reads this tensor, through one input; None when anything else reads it too."""
        if self.listings or len(self.consumers) != 1:
            return None
        (node, times), *_ = self.consumers.items()
        return node if times == 1 else None

    def __repr__(self) -> str:
        return f"<Tensor {self.name} {self.dtype} {self.shape}>"


class AttributeRef:
    """An attribute whose value the caller of the function gives: `name` is the function's attribute."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def decode_attribute(proto: AttributeProto) -> Any:
    """The Python value of an attribute: int, float, str, their tuples, or the protobuf of tensors and types.

    Strings that are not UTF-8 stay bytes. Graphs are not decoded here: see `Node.bodies`.
    """
    if proto.ref_attr_name:
        return AttributeRef(proto.ref_attr_name)
    kind = proto.type
    if kind == AttributeProto.INT:
        return proto.i
    if kind == AttributeProto.INTS:
        return tuple(proto.ints)
    if kind == AttributeProto.FLOAT:
        return proto.f
    if kind == AttributeProto.FLOATS:
        return tuple(proto.floats)
    if kind == AttributeProto.STRING:
        return _text(proto.s)
    if kind == AttributeProto.STRINGS:
        return tuple(_text(s) for s in proto.strings)
    if kind == AttributeProto.TENSOR:
        return proto.t
    if kind == AttributeProto.SPARSE_TENSOR:
        return proto.sparse_tensor
    return proto


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


class Node:
    """An operator applied: `op` is "Conv" for the standard domain, "domain::Type" for others.

    A node whose attributes refer to a function's attributes, and a call of a model-local function, carry an `op` that
    no rule looks for (`attr-ref::...`, `function::...`), so that rules leave them alone. Absent optional inputs and
    outputs are None. `bodies` holds the subgraphs by attribute name.
    """

    __slots__ = (
        "_attrs",
        "bodies",
        "domain",
        "graph",
        "inputs",
        "metadata",
        "name",
        "op",
        "op_type",
        "origins",
        "outputs",
        "position",
        "proto",
        "rule",
    )

    def __init__(
        self,
        op_type: str,
        domain: str = "",
        *,
        name: str = "",
        attrs: dict[str, Any] | None = None,
        proto: NodeProto | None = None,
    ) -> None:
        self.op_type = op_type
        self.domain = "" if domain == "ai.onnx" else domain
        self.op = f"{self.domain}::{op_type}" if self.domain else op_type
        self.name = name
        self.inputs: tuple[Tensor | None, ...] = ()
        self.outputs: tuple[Tensor | None, ...] = ()
        self.bodies: dict[str, tuple[Graph, ...]] = {}
        self.graph: Graph | None = None
        self.proto = proto
        self._attrs = attrs
        self.position = 0  # rank in the graph's order; a new node takes the rank of what it replaces
        self.metadata: dict[str, str] = {}  # entries to add to metadata_props
        self.origins: tuple[Node, ...] = ()  # the nodes that a rewrite consumed to make this one
        self.rule = ""  # the rule that made this node; "" for the model's own

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes by name, decoded when first asked for; not to be changed. Bodies are not among them."""
        if self._attrs is None:
            protos = self.proto.attribute if self.proto is not None else ()
            self._attrs = {
                p.name: decode_attribute(p)
                for p in protos
                if p.type not in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or p.ref_attr_name
            }
        return self._attrs

    def int_attr(self, name: str, default: int) -> int:
        """The integer attribute `name`, or `default` when it is not given."""
        return int(self.attrs.get(name, default))

    def float_attr(self, name: str, default: float) -> float:
        """The float attribute `name`, or `default` when it is not given."""
        return float(self.attrs.get(name, default))

    def ints_attr(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        """The attribute `name` of integers, or `default` when it is not given."""
        value = self.attrs.get(name)
        return default if value is None else tuple(int(v) for v in value)

    def str_attr(self, name: str, default: str) -> str:
        """The text attribute `name`, or `default` when it is not given."""
        value = self.attrs.get(name, default)
        return value if isinstance(value, str) else default

    def input(self, index: int) -> Tensor | None:
        """Input `index`, None when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def output(self, index: int) -> Tensor | None:
        """Output `index`, None when it is left out."""
        return self.outputs[index] if index < len(self.outputs) else None

    @property
    def result(self) -> Tensor:
        """The first output, of a node that has one."""
        first = self.outputs[0] if self.outputs else None
        if first is None:
            raise ValueError(f"{self.label} has no first output")
        return first

    @property
    def owner(self) -> Graph:
        """The graph that holds this node."""
        if self.graph is None:
            raise ValueError(f"{self.label} is in no graph")
        return self.graph

    @property
    def is_erased(self) -> bool:
        """Whether a rewrite took this node, or a node whose body holds it, out of its graph."""
        graph = self.graph
        while graph is not None and graph.parent is not None:
            graph = graph.parent.graph
        return graph is None

    @property
    def label(self) -> str:
        """What the report calls this node: its name, else the name of the first tensor that it makes."""
        if self.name:
            return self.name
        return next((t.name for t in self.outputs if t is not None), "") or self.op

    def subgraphs(self) -> Iterator[Graph]:
        """The bodies of this node (not theirs)."""
        for graphs in self.bodies.values():
            yield from graphs

    def __repr__(self) -> str:
        ins = ", ".join(t.name if t is not None else "" for t in self.inputs)
        outs = ", ".join(t.name if t is not None else "" for t in self.outputs)
        return f"<Node {outs} = {self.op}({ins})>"
