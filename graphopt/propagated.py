"""What onnx makes of the values that it propagates from Shape to Reshape and the like, and where it is wrong.

Compared with the specification and with ONNX Runtime, for onnx 1.23 (`defs/data_propagators.h`):

- Cast is taken for an identity, though 300 is 44 as uint8, and any number 1 as bool.
- A matrix is taken for the vector of its elements: its first row is its first element.
- A Reshape to [n, ...] is taken for [n, ...] though a 0 copies the input's dimension, as n may be at run time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from onnx import GraphProto, NodeProto, TensorProto, TypeProto

from graphopt.graph import Shape
from graphopt.hiding import shape_of
from graphopt.pieces import bodies_of

_SOURCES = ("Shape", "Size")
_OF_ALL = frozenset(("Add", "Concat", "Gather", "Mul", "Sub"))  # followed where all their inputs are
_OF_FIRST = frozenset(("Cast", "Slice", "Squeeze", "Unsqueeze"))
INTEGERS = (TensorProto.INT64, TensorProto.INT32)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_OF_FLOATS = frozenset(("OneHot", "Range", "Resize", "Upsample"))  # which may take floats as sizes or scales
_STANDARD = ("", "ai.onnx")


def has_shapes(graph: GraphProto) -> bool:
    """Whether the graph, or a body in it, asks for a shape, so that there is something to propagate."""
    return any(node.op_type in _SOURCES or any(has_shapes(body) for body in bodies_of(node)) for node in graph.node)


class Propagation:
    """Follows onnx through the nodes of a graph, in their order. `trusted` are shapes that are known to be right."""

    def __init__(self, trusted: Mapping[str, Shape | None]) -> None:
        self.trusted = trusted
        # tensors whose values onnx may propagate, those of floats, and the names of the dimensions so far
        self.carried: set[str] = set()
        self.floats: set[str] = set()
        self.names: set[str] = set()

    def enter(self, graph: GraphProto) -> None:
        """Before the nodes of a graph, or of a body."""
        self.carried.update(t.name for t in graph.initializer if t.data_type in INTEGERS)
        self.names.update(*(names_in(info.type) for info in graph.input))

    def follow(self, node: NodeProto, types: Mapping[str, TypeProto]) -> dict[str, Shape | None] | None:
        """What is sure of the shapes of the node's results where onnx may be wrong there; None where it is not."""
        wrong = self._wrong(node, types) if node.domain in _STANDARD else None
        self.names.update(*(names_in(types.get(name)) for name in node.output))
        return wrong

    def _wrong(self, node: NodeProto, types: Mapping[str, TypeProto]) -> dict[str, Shape | None] | None:
        if node.op_type == "Reshape" and len(node.input) > 1:
            return self._reshape(node, types)
        if node.op_type in _OF_FLOATS and not self.floats.isdisjoint(node.input):
            return dict.fromkeys(node.output)
        if not self._is_carried(node):
            return None
        if node.op_type == "Cast" and _to(node) in _FLOATS:
            self.floats.update(node.output)  # of harm only where it is read as a shape, or cast back
            return None
        if is_misread(node, types) or not self.floats.isdisjoint(node.input):
            return {name: shape_of(types.get(name)) for name in node.output}
        self.carried.update(node.output)
        return None

    def _is_carried(self, node: NodeProto) -> bool:
        if node.op_type in _OF_ALL:
            return all(name in self.carried or name in self.floats for name in node.input)
        if node.op_type in _OF_FIRST:
            return node.input[0] in self.carried or node.input[0] in self.floats
        return node.op_type in (*_SOURCES, "Constant")

    def _reshape(self, node: NodeProto, types: Mapping[str, TypeProto]) -> dict[str, Shape | None] | None:
        name = node.output[0]
        shape, known = shape_of(types.get(name)), self.trusted.get(name)
        if shape is None:
            return None
        sure = without_copies(node, shape_of(types.get(node.input[0])), shape, self.names)
        if known is not None and len(known) == len(sure):
            sure = tuple([old if told == old else dim for dim, told, old in zip(sure, known, shape, strict=True)])
        return {name: sure} if sure != shape else None


def is_misread(node: NodeProto, types: Mapping[str, TypeProto]) -> bool:
    """Whether a node that onnx propagates a value through may make another one of it; unknown ranks mean yes."""
    if node.op_type in (*_SOURCES, "Constant"):
        return False
    if node.op_type == "Cast" and _to(node) not in INTEGERS:
        return True
    read = node.input if node.op_type in _OF_ALL else node.input[:1]
    return any(_rank(types.get(name)) not in (0, 1) for name in (*read, node.output[0]))


def _to(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "to"), 0)


def _rank(kind: TypeProto | None) -> int | None:
    return len(kind.tensor_type.shape.dim) if kind is not None and kind.tensor_type.HasField("shape") else None


def without_copies(node: NodeProto, data: Shape | None, found: Shape, older: Collection[str]) -> Shape:
    """The shape `found` of a Reshape's result without the dimensions that may be another's, copied for a 0.

    `older` are the names of dimensions before the node: a new one says nothing. A dimension is sure where the one that
    would be copied is the same, or there is none; or where the input has it elsewhere and all others are above 0, so
    that a 0 must be copied. Heads that are repeated are taken for sure as in the analysis of the constants pass.

    Source: ONNX, Reshape.
    """
    if any(a.name == "allowzero" and a.i for a in node.attribute):
        return found
    return tuple(
        [
            dim if not isinstance(dim, str) or dim not in older or _is_sure(place, data, found) else None
            for place, dim in enumerate(found)
        ]
    )


def _is_sure(place: int, data: Shape | None, found: Shape) -> bool:
    if data is None:
        return False
    if place >= len(data) or data[place] == found[place]:
        return True
    copied = data[place]
    is_repeated = isinstance(copied, int) and copied > 1
    others = [(dim, i < len(data) and data[i] == dim) for i, dim in enumerate(found) if i != place]
    is_safe = [dim > 0 if isinstance(dim, int) else dim is not None and is_repeated and own for dim, own in others]
    return found[place] in data and all(is_safe)


def names_in(kind: TypeProto | None) -> set[str]:
    """The names of the dimensions, those included that inference made up."""
    return {dim.dim_param for dim in kind.tensor_type.shape.dim if dim.dim_param} if kind is not None else set()
