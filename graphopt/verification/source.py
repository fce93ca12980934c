"""A model to verify: its graph in memory, its external data where it lies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError, Message

from graphopt.errors import ModelError
from graphopt.limits import check_limits

PROTOBUF_LIMIT = 2**31 - 1  # bytes that one protobuf message may have
_BIG = 1024  # bytes from which an initializer's numbers are weights, not shapes or axes


@dataclass(frozen=True)
class Located:
    """A model whose tensors may refer to external data in `folder`.

    For a `ModelProto` without external data `folder` does not matter and may be None.
    """

    proto: onnx.ModelProto
    folder: Path | None = None


AnyModel: TypeAlias = "onnx.ModelProto | Located | str | os.PathLike[str]"


def locate(model: AnyModel) -> Located:
    """The model with its graph in memory and its external data left on disk.

    Raises `ModelError` when there is no graph, when a path cannot be read as an ONNX model, or when it is too deep.
    """
    if isinstance(model, onnx.ModelProto):
        model = Located(model)
    if isinstance(model, Located):
        if not model.proto.HasField("graph"):
            raise ModelError("The model has no graph; give a model that was exported or loaded whole.")
        check_limits(model.proto)
        return model
    path = Path(model)
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"The model {path} cannot be read: {error.strerror or error}.") from error
    except (DecodeError, ValueError) as error:
        raise ModelError(f"The file {path} is not an ONNX model; give a model saved by onnx.save.") from error
    if not proto.HasField("graph"):  # an empty file is a valid message
        raise ModelError(f"The file {path} is not an ONNX model; give a model saved by onnx.save.")
    check_limits(proto)
    return Located(proto, path.resolve().parent)


def graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and the bodies of its control flow, outer ones first; model-local functions' bodies too."""
    pending = [proto.graph]
    for function in proto.functions:
        for node in function.node:
            pending.extend(bodies(node))
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            pending.extend(bodies(node))


def nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the main graph, of control-flow bodies, of model-local functions."""
    for graph in graphs(proto):
        yield from graph.node
    for function in proto.functions:
        yield from function.node


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node has as attributes."""
    found = []
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            found.append(attribute.g)
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            found.extend(attribute.graphs)
    return found


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in the model: initializers (the dense parts of sparse ones too) and attributes."""
    for graph in graphs(proto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
    for node in nodes(proto):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's numbers lie in another file."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL


def has_external(proto: onnx.ModelProto) -> bool:
    """Whether any tensor's numbers lie in another file."""
    return any(is_external(tensor) for tensor in tensors(proto))


def initializer_names(graph: onnx.GraphProto) -> set[str]:
    """The names of the graph's dense and sparse initializers."""
    return {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}


def is_standard(domain: str) -> bool:
    """Whether the operators of this domain are part of the ONNX standard."""
    return domain in ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training")


def foreign_operators(proto: onnx.ModelProto) -> list[str]:
    """Operators outside the ONNX standard and the model's own functions, as `domain:Name`, sorted."""
    own = {(function.domain, function.name) for function in proto.functions}
    return sorted(
        {
            f"{node.domain}:{node.op_type}"
            for node in nodes(proto)
            if not is_standard(node.domain) and (node.domain, node.op_type) not in own
        }
    )


def skeleton(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model without its weights: big or external initializers of the main graph become inputs.

    Shapes, axes and other small constants stay, so that shape inference and the checker see what they need.
    The weights are never copied. Takes time linear in the nodes.
    """
    thin = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name == "graph":
            _thin_graph(value, thin.graph)
        else:
            _copy_field(thin, field.name, value)
    thin.ir_version = max(thin.ir_version, 4)  # before 4 every initializer had to be an input
    return thin


def _thin_graph(graph: onnx.GraphProto, thin: onnx.GraphProto) -> None:
    inputs = {value.name for value in graph.input}
    for field, value in graph.ListFields():
        if field.name == "initializer":
            for tensor in value:
                if not is_external(tensor) and tensor.ByteSize() < _BIG:
                    thin.initializer.append(tensor)
                elif tensor.name not in inputs:
                    thin.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            _copy_field(thin, field.name, value)


def _copy_field(target: Message, name: str, value: Any) -> None:
    if isinstance(value, (str, bytes, int, float)):
        setattr(target, name, value)
    else:
        getattr(target, name).extend(value)


def to_bytes(model: Located) -> bytes | None:
    """The model as one protobuf message, external data left outside; None when it is too big for one."""
    if model.proto.ByteSize() > PROTOBUF_LIMIT:
        return None
    return model.proto.SerializeToString()


def spill(model: Located) -> tempfile.TemporaryDirectory[str]:
    """Writes a model too big for one protobuf message to a new temporary folder, as `model.onnx` with its data beside.

    The caller closes the folder.
    """
    folder = tempfile.TemporaryDirectory(prefix="graphopt-")
    onnx.save(
        _loaded(model),
        os.path.join(folder.name, "model.onnx"),
        save_as_external_data=True,
        location="model.data",
    )
    return folder


def _loaded(model: Located) -> onnx.ModelProto:
    """A copy of the model with all its numbers in memory."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto)
    if has_external(copy):
        onnx.external_data_helper.load_external_data_for_model(copy, str(model.folder or "."))
    return copy


def loaded(model: Located) -> onnx.ModelProto:
    """The model with all its numbers in memory: itself, or a copy when some lie outside."""
    return _loaded(model) if has_external(model.proto) else model.proto


def written_out(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its functions' bodies in the place of their calls; itself where it has none."""
    if not proto.functions:
        return proto
    return onnx.inliner.inline_local_functions(_in_one_opset(_with_defaults(proto)))


def with_definition(proto: onnx.ModelProto, op_type: str) -> onnx.ModelProto:
    """The model with the standard's definition by other operators in the place of each node of that operator.

    Itself where onnx cannot: the definition may depend on types that are not known.
    """
    try:
        return onnx.inliner.inline_selected_functions(proto, [("", op_type)], inline_schema_functions=True)
    except Exception:  # onnx raises what its C++ threw
        return proto


def opset(proto: onnx.ModelProto) -> int:
    """The version of the standard's operator set; 1 where the model imports none."""
    return next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)


def _in_one_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model whose functions import the model's opset where that means the same: onnx inlines no others."""
    copy, version = onnx.ModelProto(), opset(proto)
    copy.CopyFrom(proto)
    for function in copy.functions:
        operators = {node.op_type for node in _nodes_of(function) if node.domain in ("", "ai.onnx")}
        for entry in function.opset_import:
            if entry.domain in ("", "ai.onnx") and all(_is_same(op, entry.version, version) for op in operators):
                entry.version = version
    return copy


def _nodes_of(function: onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    pending = list(function.node)
    while pending:
        node = pending.pop()
        yield node
        pending.extend(inner for body in bodies(node) for inner in body.node)


def _is_same(op_type: str, one: int, other: int) -> bool:
    """Whether the standard's operator has one definition in both opsets."""
    try:
        since = {onnx.defs.get_schema(op_type, version, "").since_version for version in (one, other)}
    except onnx.defs.SchemaError:
        return False
    return len(since) == 1


def _with_defaults(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model whose calls give all attributes that have defaults: onnx's inliner forgets these."""
    defaults = {(f.domain, f.name, f.overload): f.attribute_proto for f in proto.functions if f.attribute_proto}
    if not defaults:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for node in nodes(copy):
        given = {attribute.name for attribute in node.attribute}
        wanted = defaults.get((node.domain, node.op_type, node.overload), ())
        node.attribute.extend(attribute for attribute in wanted if attribute.name not in given)
    return copy
