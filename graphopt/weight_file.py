"""Weights that stay in the model's own file until they are asked for.

The file is kept open, so that it may be moved, deleted or replaced by another one while the model is in use; whoever
writes into it is found out and told.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graphopt.errors import ModelError
from graphopt.external import printable

PIECE = 1 << 22  # bytes that are read at once where a weight is copied


class WeightFile:
    """A model's file, open for reading by position."""

    def __init__(self, path: Path) -> None:
        """Opens the file. Raises OSError."""
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self.descriptor)
        self.size, self._written = self._state()

    def _state(self) -> tuple[int, int]:
        found = os.fstat(self.descriptor)
        return found.st_size, found.st_mtime_ns

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on. Raises ModelError when the file was written to since it was opened."""
        pieces = []
        end = offset + length
        while offset < end and (piece := os.pread(self.descriptor, end - offset, offset)):
            pieces.append(piece)
            offset += len(piece)
        if offset < end or self._state() != (self.size, self._written):
            raise ModelError(f"'{printable(str(self.path))}' changed while it was in use; start again.")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@dataclass(frozen=True)
class Stretch:
    """Some bytes of a weight file, `length` from `offset` on."""

    file: WeightFile
    offset: int
    length: int

    def read(self) -> bytes:
        """The bytes. Raises ModelError when the file was written to since it was opened."""
        return self.file.read(self.offset, self.length)

    def pieces(self) -> Iterator[bytes]:
        """The bytes, a piece at a time. Raises ModelError as `read` does."""
        end = self.offset + self.length
        for offset in range(self.offset, end, PIECE):
            yield self.file.read(offset, min(PIECE, end - offset))
