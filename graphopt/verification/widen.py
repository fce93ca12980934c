"""A copy of a model that computes in float64, as a measure for rounding errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import TensorProto, helper

from graphopt.verification import source
from graphopt.verification.ranges import with_shapes
from graphopt.verification.source import Located

NARROW = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_FLOATS = NARROW | {TensorProto.DOUBLE}
MOST_NUMBERS = 2**28  # floats among the weights, 2 GiB in float64

# Attributes that name a float type for the output, and the type that their absence means.
_TYPE_ATTRIBUTES: dict[str, tuple[str, int | None]] = {
    "Cast": ("to", None),
    "BlackmanWindow": ("output_datatype", TensorProto.FLOAT),
    "Bernoulli": ("dtype", None),
    "EyeLike": ("dtype", None),
    "HammingWindow": ("output_datatype", TensorProto.FLOAT),
    "HannWindow": ("output_datatype", TensorProto.FLOAT),
    "MelWeightMatrix": ("output_datatype", TensorProto.FLOAT),
    "RandomNormal": ("dtype", TensorProto.FLOAT),
    "RandomNormalLike": ("dtype", None),
    "RandomUniform": ("dtype", TensorProto.FLOAT),
    "RandomUniformLike": ("dtype", None),
    "SequenceEmpty": ("dtype", TensorProto.FLOAT),
}


class CannotWiden(Exception):
    """The model cannot be computed in float64: too large, or the type of some tensor is not known."""


# What to put behind an output: given the names of the raw output and of the result, and the original's type.
Behind = Callable[[str, str, int], Sequence[onnx.NodeProto]]
# What to put before an input of a node: likewise.
Before = Callable[[str, str, int], Sequence[onnx.NodeProto]]


@dataclass(frozen=True)
class Hooks:
    """Nodes that a caller adds to the widened copy: behind the outputs of some operators, before the inputs of others.

    Both are asked for a node's operator first; None adds nothing.
    """

    behind: Callable[[str], Behind | None] = lambda _: None
    before: Callable[[str], Before | None] = lambda _: None


def widen(model: Located, hooks: Hooks | None = None) -> onnx.ModelProto:
    """The model with float64 in place of float32, float16 and bfloat16, in the main graph and in all bodies.

    Inputs and outputs are float64 too. What an operator has no float64 form of is computed in its own type between
    Casts. Functions are inlined. Raises `CannotWiden`.
    """
    count = sum(int(np.prod(t.dims, dtype=np.int64)) for t in model.proto.graph.initializer if t.data_type in NARROW)
    if count > MOST_NUMBERS:
        raise CannotWiden("its weights are too large")
    thin = with_shapes(model.proto)
    present = source.initializer_names(thin.graph)
    weights = [tensor for tensor in model.proto.graph.initializer if tensor.name not in present]
    own_inputs = {value.name for value in model.proto.graph.input}
    types = {tensor.name: tensor.data_type for tensor in weights} | known_types(thin)
    versions = {_domain(entry.domain): entry.version for entry in thin.opset_import}
    _Widening(types, versions, hooks or Hooks()).graph(thin.graph)
    for index in reversed(range(len(thin.graph.input))):
        if thin.graph.input[index].name not in own_inputs:
            del thin.graph.input[index]
    thin.graph.initializer.extend(_wide_tensor(tensor, model) for tensor in weights)
    return thin


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def known_types(proto: onnx.ModelProto) -> dict[str, int]:
    """The element types of all tensors that are declared or stored."""
    types: dict[str, int] = {}
    for graph in source.graphs(proto):
        for value in (*graph.value_info, *graph.input, *graph.output):
            if value.type.HasField("tensor_type"):
                types[value.name] = value.type.tensor_type.elem_type
        types.update((tensor.name, tensor.data_type) for tensor in graph.initializer)
        types.update((sparse.values.name, sparse.values.data_type) for sparse in graph.sparse_initializer)
    return types


def _wide_tensor(tensor: onnx.TensorProto, model: Located | None = None) -> onnx.TensorProto:
    if tensor.data_type not in NARROW and not source.is_external(tensor):
        return tensor
    folder = str(model.folder) if model is not None and model.folder is not None else ""
    array = onnx.numpy_helper.to_array(tensor, base_dir=folder)
    if tensor.data_type in NARROW:
        array = array.astype(np.float64)
    return onnx.numpy_helper.from_array(array, tensor.name)


def _widen_type(type_: onnx.TypeProto) -> None:
    kind = type_.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(type_, kind)
        if tensor.elem_type in NARROW:
            tensor.elem_type = TensorProto.DOUBLE
    elif kind in ("sequence_type", "optional_type"):
        _widen_type(getattr(type_, kind).elem_type)


@dataclass
class _Widening:
    types: dict[str, int]
    versions: dict[str, int]
    hooks: Hooks
    fresh: int = 0
    made: list[onnx.NodeProto] = field(default_factory=list)

    def graph(self, graph: onnx.GraphProto) -> None:
        """Widens a graph and its bodies in place."""
        for value in (*graph.input, *graph.output):
            _widen_type(value.type)
        del graph.value_info[:]
        for tensor in graph.initializer:
            if tensor.data_type in NARROW:
                tensor.CopyFrom(_wide_tensor(tensor))
        for sparse in graph.sparse_initializer:
            if sparse.values.data_type in NARROW:
                sparse.values.CopyFrom(_wide_tensor(sparse.values))
        outer, self.made = self.made, []
        for node in graph.node:
            for body in source.bodies(node):
                self.graph(body)
            self.node(node)
        wide, self.made = self.made, outer
        del graph.node[:]
        graph.node.extend(wide)

    def node(self, node: onnx.NodeProto) -> None:
        """Appends the widened node, with the Casts and the caller's nodes that it needs."""
        _widen_attributes(node)
        accepts_inputs, gives_outputs = self.wide_slots(node)
        before = self.hooks.before(node.op_type)
        for slot, name in enumerate(node.input):
            kind = self.types.get(name)
            if name and not accepts_inputs[slot]:
                self.narrow_input(node, slot, kind)
            elif before is not None and kind in _FLOATS:
                node.input[slot] = self.name(name)
                self.made.extend(before(name, node.input[slot], kind))
        self.made.append(node)
        behind = self.hooks.behind(node.op_type)
        for slot, name in enumerate(node.output):
            kind = self.types.get(name)
            if not name:
                continue
            if not gives_outputs[slot]:
                self.widen_output(node, slot, kind)
            elif behind is not None and kind in _FLOATS:
                node.output[slot] = self.name(name)
                self.made.extend(behind(node.output[slot], name, kind))

    def name(self, stem: str) -> str:
        """A new name; the separator is no letter that exporters use."""
        self.fresh += 1
        return f"{stem}\x1f{self.fresh}"

    def wide_slots(self, node: onnx.NodeProto) -> tuple[list[bool], list[bool]]:
        """For each input and output whether the operator takes or gives float64 there."""
        try:
            domain = _domain(node.domain)
            schema = onnx.defs.get_schema(node.op_type, self.versions.get(domain, 1), domain)
        except onnx.defs.SchemaError:
            return [False] * len(node.input), [False] * len(node.output)
        return _wide(schema.inputs, len(node.input)), _wide(schema.outputs, len(node.output))

    def narrow_input(self, node: onnx.NodeProto, slot: int, kind: int | None) -> None:
        """Casts a float64 input back to its own type, for an operator that takes no float64."""
        if kind is None:
            raise CannotWiden(f"the type of {node.input[slot]!r} is not known")
        if kind in NARROW:
            narrow = self.name(node.input[slot])
            self.made.append(helper.make_node("Cast", [node.input[slot]], [narrow], to=kind))
            node.input[slot] = narrow

    def widen_output(self, node: onnx.NodeProto, slot: int, kind: int | None) -> None:
        """Casts what such an operator gives to float64."""
        if kind is None:
            raise CannotWiden(f"the type of {node.output[slot]!r} is not known")
        if kind in NARROW:
            narrow = self.name(node.output[slot])
            self.made.append(helper.make_node("Cast", [narrow], [node.output[slot]], to=TensorProto.DOUBLE))
            node.output[slot] = narrow


def _wide(formals: Sequence[Any], count: int) -> list[bool]:
    last = len(formals) - 1
    wide = []
    for slot in range(count):
        formal = formals[min(slot, last)]
        wide.append(any("(double" in kind or "tensor(double)" in kind for kind in formal.types) or not _floats(formal))
    return wide


def _floats(formal: Any) -> bool:
    """Whether the parameter may be of a type that is widened."""
    return any(f"tensor({kind})" in text for text in formal.types for kind in ("float", "float16", "bfloat16"))


def _widen_attributes(node: onnx.NodeProto) -> None:
    if node.op_type in _TYPE_ATTRIBUTES:
        name, default = _TYPE_ATTRIBUTES[node.op_type]
        given = [attribute for attribute in node.attribute if attribute.name == name]
        if not given and default is not None:
            node.attribute.append(helper.make_attribute(name, int(TensorProto.DOUBLE)))
        for attribute in given:
            if attribute.i in NARROW:
                attribute.i = TensorProto.DOUBLE
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(
            helper.make_attribute("value", helper.make_tensor("value", TensorProto.DOUBLE, [1], [0.0]))
        )
    if node.op_type in ("Constant", "ConstantOfShape"):
        for attribute in node.attribute:
            _widen_constant(attribute)


def _widen_constant(attribute: onnx.AttributeProto) -> None:
    if attribute.name == "value" and attribute.t.data_type in NARROW:
        attribute.t.CopyFrom(_wide_tensor(attribute.t))
    elif attribute.name == "sparse_value" and attribute.sparse_tensor.values.data_type in NARROW:
        attribute.sparse_tensor.values.CopyFrom(_wide_tensor(attribute.sparse_tensor.values))
    elif attribute.name in ("value_float", "value_floats"):
        numbers = np.asarray(helper.get_attribute_value(attribute), dtype=np.float64)
        attribute.CopyFrom(helper.make_attribute("value", onnx.numpy_helper.from_array(numbers)))
