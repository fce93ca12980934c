"""onnx's inference of a model, put right where `graphopt.distrust` says that onnx is wrong.

Where the shape of a node's result is another than onnx says, the node gets a name that onnx does not know and its
result the right type, and the model is inferred anew: so what depends on the result is right too.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorProto,
    TypeProto,
    helper,
)
from onnx import numpy_helper as arrays

from graphopt import pieces
from graphopt.distrust import CALLER, LIST, MAKERS, PASSERS, SUSPECTS, is_suspect, true_shape
from graphopt.graph import Array, Shape
from graphopt.graph.importer import CONSTANT_NUMBERS
from graphopt.hiding import HIDDEN, hide, shape_of, types_of
from graphopt.pieces import bodies_of
from graphopt.propagated import Propagation, has_shapes

# In so many rounds wrong shapes are put right; then what may be wrong is unknown.
ROUNDS = 8
# A value of more elements is no list of scales or axes.
_FEW = 64

_Types = ChainMap[str, TypeProto]
_Values = ChainMap[str, TensorProto]


def infer(proto: ModelProto, holders: int, propagates: bool) -> ModelProto:
    """The model with the types that onnx infers, the wrong ones put right; `proto` stays as it is.

    `propagates` says that onnx may follow values from Shape to Reshape (`data_prop`); in models with functions, of
    whose tensors nothing is known, it does not. `holders` is the number of nodes that have bodies. Raises what onnx
    raises.
    """
    propagates = propagates and not proto.functions and has_shapes(proto.graph)
    if not propagates and not _has_suspects(proto.graph) and not any(_any_suspect(f.node) for f in proto.functions):
        return pieces.infer(proto, holders, strict=False, data_prop=False)
    work = ModelProto()
    work.CopyFrom(proto)
    for function in work.functions:
        _hide_all(function)
    trusted = {info.name: shape_of(info.type) for info in (*proto.graph.value_info, *proto.graph.output)}
    for _ in range(ROUNDS):
        found = pieces.infer(work, holders, strict=False, data_prop=propagates)
        if not _Round(work, Propagation(trusted) if propagates else None).correct(work.graph, found.graph):
            return found
    found = pieces.infer(work, holders, strict=False, data_prop=False)
    _Round(work, last=True).correct(work.graph, found.graph)
    return pieces.infer(work, holders, strict=False, data_prop=False)


def _has_suspects(graph: GraphProto) -> bool:
    return _any_suspect(graph.node) or any(_has_suspects(body) for node in graph.node for body in bodies_of(node))


def _any_suspect(nodes: Iterable[NodeProto]) -> bool:
    return any(node.op_type in SUSPECTS for node in nodes)


def _version(imports: Iterable[OperatorSetIdProto]) -> int:
    return next((o.version for o in imports if o.domain in ("", "ai.onnx")), 1)


def _hide_all(function: FunctionProto) -> None:
    """Hides the suspects of a function, whose inputs' types differ from call to call."""
    version = _version(function.opset_import)
    for node in function.node:
        if is_suspect(node, version) and node.op_type != "Squeeze":
            node.op_type = HIDDEN + node.op_type


class _Round:
    """One pass over what was inferred, in the order of the nodes.

    What depends on a corrected result is left for the next round, since its own inputs were inferred wrongly. In the
    `last` round it is hidden, and nothing is said of it.
    """

    def __init__(self, model: ModelProto, propagation: Propagation | None = None, *, last: bool = False) -> None:
        self.version = _version(model.opset_import)
        self.propagation = propagation
        self.last = last
        self.stale: set[str] = set()
        self.changed = False
        self.makers: ChainMap[str, NodeProto | None] = ChainMap()

    def correct(
        self, graph: GraphProto, found: GraphProto, outer: tuple[_Types, _Values] | None = None, inner: bool = False
    ) -> bool:
        """Writes into `graph` what is wrong in `found`, the same graph with inferred types; whether anything is."""
        types, values = outer if outer is not None else (ChainMap(), ChainMap())
        types, values = types.new_child(types_of(found)), values.new_child(_constants(found))
        if self.propagation is not None:
            self.propagation.enter(graph)
        self.makers = self.makers.new_child(_makers(graph, inner))
        for node, twin in zip(graph.node, found.node, strict=True):
            if not self.stale.isdisjoint(node.input):
                self.stale.update(node.output)
            before = self.changed
            for body, twin_body in zip(bodies_of(node), bodies_of(twin), strict=True):
                self.correct(body, twin_body, (types, values), True)
            if self.changed and not before:
                self.stale.update(node.output)
            # what enters a body is not followed
            waits = self.changed if inner else not self.stale.isdisjoint(node.input)
            blind = self.last and waits  # what is known of its inputs may be wrong
            if is_suspect(node, self.version) and (blind or not waits) and self._is_wrong(node, types, values, blind):
                self._hide(node, graph, types, self._right(node, types, values, blind))
            if self.propagation is not None:
                misread = self.propagation.follow(node, types)
                if misread is not None and (not waits or node.op_type == "Reshape"):
                    self._hide(node, graph, types, _numbers(misread) if waits else misread)
        self.makers = self.makers.parents
        return self.changed

    def _is_wrong(
        self, node: NodeProto, types: Mapping[str, TypeProto], values: Mapping[str, TensorProto], blind: bool
    ) -> bool:
        known = [shape for name in node.output if (shape := shape_of(types.get(name))) is not None]
        return any(blind or self._true(node, shape, types, values) != shape for shape in known)

    def _true(
        self, node: NodeProto, found: Shape, types: Mapping[str, TypeProto], values: Mapping[str, TensorProto]
    ) -> Shape | None:
        shapes = [shape_of(types.get(name)) for name in node.input]

        def value(index: int) -> Array | None:
            constant = values.get(node.input[index]) if index < len(node.input) else None
            return arrays.to_array(constant) if constant is not None else None

        return true_shape(node, self.version, shapes, value, found, self._maker(node))

    def _maker(self, node: NodeProto) -> NodeProto | None:
        """What made the sequence or optional that a node reads, if it is made of tensors in this graph or around it."""
        maker = self.makers.get(node.input[0]) if node.input else None
        grows = False
        while maker is not None and maker.op_type in PASSERS and maker.input:
            grows = grows or maker.op_type == "SequenceInsert"
            maker = self.makers.get(maker.input[0])
        if maker is not None and grows and maker is not CALLER:
            return LIST if maker.op_type in MAKERS else None
        return maker if maker is not None and (maker.op_type in MAKERS or maker is CALLER) else None

    def _right(
        self, node: NodeProto, types: Mapping[str, TypeProto], values: Mapping[str, TensorProto], blind: bool
    ) -> dict[str, Shape | None]:
        """What is sure of the results' shapes."""
        shapes = {name: shape_of(types.get(name)) for name in node.output}
        return {n: self._true(node, s, types, values) if s and not blind else None for n, s in shapes.items()}

    def _hide(
        self, node: NodeProto, graph: GraphProto, types: Mapping[str, TypeProto], right: Mapping[str, Shape | None]
    ) -> None:
        """Gives the results their right shapes, and the node a name that onnx does not know."""
        hide(node, graph, types, right)
        self.stale.update(node.output)
        self.changed = True


def _numbers(shapes: Mapping[str, Shape | None]) -> dict[str, Shape | None]:
    """The shapes with their numbers only: where a name may be wrong, no number is for that."""
    return {
        name: tuple([dim if isinstance(dim, int) else None for dim in shape]) if shape is not None else None
        for name, shape in shapes.items()
    }


def _makers(graph: GraphProto, inner: bool) -> dict[str, NodeProto | None]:
    """What makes each tensor of a graph: a node, the caller, None for what enters a body."""
    made: dict[str, NodeProto | None] = {info.name: None if inner else CALLER for info in graph.input}
    made.update((name, node) for node in graph.node for name in node.output)
    return made


def _tensor(attribute: AttributeProto) -> TensorProto | None:
    """What a Constant with this attribute makes; None of texts and sparse tensors."""
    if attribute.name == "value":
        return attribute.t
    number = CONSTANT_NUMBERS.get(attribute.name)
    if number is None or attribute.ref_attr_name:
        return None
    return arrays.from_array(np.asarray(helper.get_attribute_value(attribute), number))


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    """The small constants that are no inputs, which a caller could override."""
    given = {info.name for info in graph.input}
    found = {t.name: t for t in graph.initializer if t.name not in given}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            found.update((node.output[0], tensor) for a in node.attribute if (tensor := _tensor(a)) is not None)
    return {name: t for name, t in found.items() if len(t.dims) < 2 and sum(t.dims) <= _FEW}
