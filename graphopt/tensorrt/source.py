"""The model as the ONNX parser takes it: bytes, the file's place for external data, weights beyond protobuf's limit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx.external_data_helper import _get_all_tensors, uses_external_data

from graphopt import external
from graphopt.errors import ModelError
from graphopt.external import printable

PROTOBUF_LIMIT = 2**31 - 1  # bytes that one protobuf message may have
_BIG = 1024  # bytes from which an initializer of a model beyond the limit travels outside it


@dataclass(frozen=True)
class Source:
    """A model in memory, its external data still on disk beside `path` (None: it has none)."""

    proto: onnx.ModelProto
    path: Path | None = None

    def feed(self, parser: Any) -> tuple[bool, object]:
        """Lets TensorRT's parser parse the model.

        Returns whether it did, and what has to stay alive as long as the parser does.
        """
        path = None if self.path is None else str(self.path)
        data = self.to_bytes()
        if data is not None:
            return parser.parse(data, path), data
        thin, weights = _without_weights(self.proto)
        held = [np.frombuffer(tensor.raw_data, np.uint8) for tensor in weights]
        fed = parser.load_model_proto(thin.SerializeToString(), path) and all(
            parser.load_initializer(tensor.name, array.ctypes.data, array.nbytes)
            for tensor, array in zip(weights, held, strict=True)
        )
        return fed and parser.parse_model_proto(), held

    def unranked_inputs(self) -> list[str]:
        """The inputs (bar initializers that are inputs too) whose number of dimensions is not declared."""
        held = {tensor.name for tensor in self.proto.graph.initializer}
        return [
            value.name
            for value in self.proto.graph.input
            if value.name not in held and not value.type.tensor_type.HasField("shape")
        ]

    def to_bytes(self) -> bytes | None:
        """The model as one protobuf message, None when it is too large for one."""
        try:
            data = self.proto.SerializeToString()
        except (EncodeError, ValueError):
            return None
        return data if len(data) <= PROTOBUF_LIMIT else None


def open_source(model: onnx.ModelProto | str | os.PathLike[str]) -> Source:
    """Reads a model's graph, not its external data.

    Raises ModelError when the file is missing or no ONNX model, UnsafeModelError when external data lies elsewhere.
    """
    source = Source(model) if isinstance(model, onnx.ModelProto) else _read(Path(model))
    if not source.proto.HasField("graph"):
        raise ModelError("the model has no graph; give a model saved by onnx.save.")
    folder = None if source.path is None else source.path.parent
    for tensor in _get_all_tensors(source.proto):
        if uses_external_data(tensor):
            external.locate(tensor, folder)
    return source


def _read(path: Path) -> Source:
    name = printable(str(path))
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise ModelError(f"'{name}' cannot be read ({error.strerror or error}); check the path.") from None
    except (DecodeError, ValueError):
        raise ModelError(f"'{name}' is not an ONNX model; give a model saved by onnx.save.") from None
    return Source(proto, path)


def _without_weights(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.TensorProto]]:
    """A copy of the model whose big initializers have no values, and these initializers of the original."""
    thin = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _copy_field(thin, field.name, value)
    weights = []
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _copy_field(thin.graph, field.name, value)
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) < _BIG:
            thin.graph.initializer.append(tensor)
        else:
            thin.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=b"")
            weights.append(tensor)
    return thin, weights


def _copy_field(target: Any, name: str, value: Any) -> None:
    if hasattr(value, "CopyFrom"):
        getattr(target, name).CopyFrom(value)
    elif hasattr(value, "extend"):
        getattr(target, name).extend(value)
    else:
        setattr(target, name, value)
