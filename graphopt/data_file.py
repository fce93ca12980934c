"""The data file beside a model: weights one after the other, unchanged ones copied from file to file."""

from __future__ import annotations

import os
from typing import BinaryIO

from graphopt.external import Place
from graphopt.graph import Constant, raw_bytes
from graphopt.wire import Advance

# Pages of memory and blocks of file systems start at multiples of this: large weights can be mapped, and shared by
# file systems that share blocks.
PAGE = 1 << 12
LEAST_ALIGNED = 1 << 16
SMALL_ALIGNMENT = 1 << 6
CHUNK = 1 << 24  # bytes that are copied at once where the system cannot copy by itself


class DataFile:
    """Appends weights to `file`; `advance` is told of the bytes that were written."""

    def __init__(self, file: BinaryIO, advance: Advance) -> None:
        self._file = file
        self._advance = advance
        self._end = 0
        self._copied: dict[tuple[str, int, int], int] = {}

    def copy(self, place: Place, length: int) -> int:
        """Copies `length` bytes from `place`; returns their offset. The same place is copied once."""
        key = (str(place.path), place.offset, length)
        if key not in self._copied:
            self._copied[key] = offset = self._next(length)
            self._file.flush()
            with place.path.open("rb") as source:
                self._copy(source, place.offset, offset, length)
        return self._copied[key]

    def append(self, constant: Constant) -> int:
        """Writes the values of `constant`, computed or read for it; returns their offset."""
        offset = self._next(constant.nbytes)
        self._file.seek(offset)
        self._file.write(raw_bytes(constant))
        self._advance(constant.nbytes)
        return offset

    def _next(self, length: int) -> int:
        alignment = PAGE if length >= LEAST_ALIGNED else SMALL_ALIGNMENT
        offset = -(-self._end // alignment) * alignment
        self._end = offset + length
        return offset

    def _copy(self, source: BinaryIO, start: int, offset: int, length: int) -> None:
        while length:
            done = _copy_in_kernel(source, self._file, start, offset, length)
            if done == 0:
                self._file.seek(offset)
                done = self._file.write(os.pread(source.fileno(), min(length, CHUNK), start))
                self._file.flush()
            if done == 0:
                raise OSError(f"{source.name} became shorter")
            start, offset, length = start + done, offset + done, length - done
            self._advance(done)


def _copy_in_kernel(source: BinaryIO, target: BinaryIO, start: int, offset: int, length: int) -> int:
    """Copies within the system, by sharing blocks where it can; returns the bytes copied, 0 where it cannot."""
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(source.fileno(), target.fileno(), min(length, CHUNK << 4), start, offset)
    except OSError:  # another file system, or one that does not do this; a full disk shows when we write ourselves
        return 0
