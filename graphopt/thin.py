"""Reading a model's file without its large weights, which stay in the file.

The file is walked field by field, and protobuf gets all of it but the `raw_data` of large initializers of the main
graph. A file that is laid out in any other way than writers lay it out is left to protobuf as a whole, and so is the
error for one that is broken. Source: Protocol Buffers, "Encoding".
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto
from onnx.checker import MAXIMUM_PROTOBUF

from graphopt.graph import bits_of
from graphopt.weight_file import Stretch, WeightFile
from graphopt.wire import LENGTH_DELIMITED, prefix

# Smaller initializers are read with the graph, and so are files in which there can be no larger one.
LEAST_LEFT = 1 << 14

_GRAPH = ModelProto.GRAPH_FIELD_NUMBER << 3 | LENGTH_DELIMITED
_INITIALIZER = GraphProto.INITIALIZER_FIELD_NUMBER << 3 | LENGTH_DELIMITED
_RAW_DATA = TensorProto.RAW_DATA_FIELD_NUMBER << 3 | LENGTH_DELIMITED
_BYTES_BY_WIRE_TYPE = {1: 8, 5: 4}
_MORE = 0x80  # the bit that says that a number goes on in the next byte


class _Unusual(Exception):
    """The file is not laid out as writers lay it out."""


@dataclass(frozen=True)
class ThinModel:
    """A model as its file says, but for the values of large initializers.

    `stretches` says where those are, by the initializer's index in the main graph; in `proto` they hold no data.
    """

    proto: ModelProto
    stretches: Mapping[int, Stretch] = field(default_factory=dict)

    def whole(self) -> ModelProto:
        """The model with all its values in memory. Raises ModelError when the file was written to since."""
        if not self.stretches:
            return self.proto
        file = next(iter(self.stretches.values())).file
        return ModelProto.FromString(file.read(0, file.size))


def read_thin(path: Path) -> ThinModel | None:
    """The model in a binary file; None where there is nothing to leave out, or that is not for us to read."""
    try:
        if path.suffix != ".onnx" or not LEAST_LEFT <= path.stat().st_size <= MAXIMUM_PROTOBUF:
            return None
        file = WeightFile(path)
        with mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ) as data:
            message, stretches = _Walk(data, file).thin()
        return ThinModel(ModelProto.FromString(message), stretches) if stretches else None
    except (OSError, ValueError, IndexError, DecodeError, _Unusual):
        return None


class _Walk:
    def __init__(self, data: mmap.mmap, file: WeightFile) -> None:
        self.data = data
        self.file = file
        self.stretches: dict[int, Stretch] = {}

    def thin(self) -> tuple[bytes, dict[int, Stretch]]:
        """The file without large weights, and where those are."""
        data, size = self.data, len(self.data)
        graph: tuple[int, int, int] | None = None
        at = 0
        while at < size:
            start = at
            tag, content, at = self._field(at)
            if at > size or (tag == _GRAPH and graph is not None):
                raise _Unusual
            if tag == _GRAPH:
                graph = (start, content, at)
        if graph is None:
            raise _Unusual
        start, content, end = graph
        thinned = self._graph(content, end)
        return b"".join((data[:start], prefix(_GRAPH >> 3, len(thinned)), thinned, data[end:])), self.stretches

    def _graph(self, at: int, end: int) -> bytes:
        """The message of the graph. Its fields, of which there are as many as nodes, all say their lengths."""
        data = self.data
        pieces = []
        kept, index = at, -1
        while at < end:
            start = at
            tag, length = data[at], data[at + 1]
            if tag & _MORE:
                at = self._field(at)[2]
                continue
            if tag & 7 != LENGTH_DELIMITED:
                raise _Unusual
            at += 2
            if length & _MORE:
                length, at = self._number(at - 1)
            if tag == _INITIALIZER:
                index += 1
                if length >= LEAST_LEFT and (thinned := self._initializer(index, at, at + length)) is not None:
                    pieces += [data[kept:start], prefix(tag >> 3, len(thinned)), thinned]
                    kept = at + length
            at += length
        if at != end:
            raise _Unusual
        pieces.append(data[kept:end])
        return b"".join(pieces)

    def _initializer(self, index: int, at: int, end: int) -> bytes | None:
        """The TensorProto without its `raw_data`, whose place is noted; None where it has to stay whole."""
        raw: tuple[int, int, int] | None = None
        begin = at
        while at < end:
            start = at
            tag, content, at = self._field(at)
            if tag == _RAW_DATA:
                if raw is not None:
                    raise _Unusual
                raw = (start, content, at)
        if at != end:
            raise _Unusual
        if raw is None or raw[2] - raw[1] < LEAST_LEFT:
            return None
        message = self.data[begin : raw[0]] + self.data[raw[2] : end]
        length = raw[2] - raw[1]
        if not _has_plain_values(TensorProto.FromString(message), length):
            return None
        self.stretches[index] = Stretch(self.file, raw[1], length)
        return message

    def _field(self, at: int) -> tuple[int, int, int]:
        """The tag of the field at `at`, where its content begins, and where it ends."""
        tag, at = self._number(at)
        kind = tag & 7
        if kind == LENGTH_DELIMITED:
            length, at = self._number(at)
            return tag, at, at + length
        if kind == 0:
            return tag, at, self._number(at)[1]
        if kind not in _BYTES_BY_WIRE_TYPE:
            raise _Unusual
        return tag, at, at + _BYTES_BY_WIRE_TYPE[kind]

    def _number(self, at: int) -> tuple[int, int]:
        """The number at `at`, and where it ends: seven bits a byte, the lowest first."""
        value = shift = 0
        while True:
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if not byte & _MORE:
                return value, at
            shift += 7
            if shift > 63:
                raise _Unusual


def _has_plain_values(tensor: TensorProto, length: int) -> bool:
    """Whether `length` bytes are exactly the values of the tensor, a whole number of bytes an element, and all of it.

    What is odd stays in the message, where the checks of a model find it.
    """
    bits = bits_of(tensor.data_type)
    if bits is None or bits < 8 or tensor.data_location == TensorProto.EXTERNAL or tensor.HasField("segment"):
        return False
    if any(d < 0 for d in tensor.dims):
        return False
    size = bits // 8
    for dim in tensor.dims:
        size *= dim
    fields = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data", "external_data")
    return size == length and not any(len(getattr(tensor, name)) for name in fields)
