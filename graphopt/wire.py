"""A ModelProto written piece by piece: no weight but the one being written is in memory twice.

A protobuf message is its fields one after the other, in any order, each a tag and a value; a message inside a message
is a tag, its length and its bytes. So the initializers can follow the rest of the graph. Source: Protocol Buffers,
"Encoding".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

from onnx import GraphProto, ModelProto, TensorProto

from graphopt.graph import Constant, FileConstant, raw_bytes

_GRAPH = ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER = GraphProto.INITIALIZER_FIELD_NUMBER
_RAW_DATA = TensorProto.RAW_DATA_FIELD_NUMBER
# told how many bytes were written
Advance = Callable[[int], None]

LENGTH_DELIMITED = 2  # wire type of messages and bytes


class Initializer:
    """An initializer of the main graph: `head` is all of it, or all but the values, which are those of `constant`.

    `size` is the number of bytes of the TensorProto; neither may change any more.
    """

    __slots__ = ("constant", "head", "size")

    def __init__(self, head: TensorProto, constant: Constant | None = None) -> None:
        self.head = head
        self.constant = constant
        self.size = head.ByteSize()
        if constant is not None:
            self.size += len(prefix(_RAW_DATA, constant.nbytes)) + constant.nbytes

    def write(self, file: BinaryIO, advance: Advance) -> None:
        """Writes the TensorProto; computes the values for it. `advance` is told how many bytes of them were written."""
        file.write(self.head.SerializeToString())
        if self.constant is not None:
            file.write(prefix(_RAW_DATA, self.constant.nbytes))
            for piece in _pieces(self.constant):
                file.write(piece)
                advance(len(piece))


def _pieces(constant: Constant) -> Iterable[bytes | memoryview]:
    return constant.stretch.pieces() if isinstance(constant, FileConstant) else (raw_bytes(constant),)


def message_size(thin: ModelProto, initializers: Sequence[Initializer]) -> int:
    """Bytes of the whole message at most."""
    return thin.ByteSize() + 32 + sum(i.size + len(prefix(_INITIALIZER, i.size)) for i in initializers)


def write_message(thin: ModelProto, initializers: Sequence[Initializer], file: BinaryIO, advance: Advance) -> None:
    """Writes `thin`, whose main graph gets `initializers`; `thin` loses its graph by it.

    `advance` is told how many bytes of values were written.
    """
    graph = thin.graph.SerializeToString()
    thin.ClearField("graph")
    file.write(thin.SerializeToString())
    prefixes = [prefix(_INITIALIZER, i.size) for i in initializers]
    length = len(graph) + sum(len(p) + i.size for p, i in zip(prefixes, initializers, strict=True))
    file.write(prefix(_GRAPH, length))
    file.write(graph)
    for head, initializer in zip(prefixes, initializers, strict=True):
        file.write(head)
        initializer.write(file, advance)


def prefix(field: int, length: int) -> bytes:
    """Tag and length of a field that holds a message or bytes."""
    return varint(field << 3 | LENGTH_DELIMITED) + varint(length)


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have their highest bit set."""
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)
