"""Slices on dimensions of known size, as Slice-13 defines them: negative positions, clamping, steps."""

from __future__ import annotations


def as_slice(start: int, end: int, step: int, size: int) -> slice:
    """The Python slice of ONNX's `start`, `end` (as given: negative, or beyond the end) and `step`, not 0.

    `range(*as_slice(...).indices(size))` are the positions that are taken.
    """
    start += size if start < 0 else 0
    end += size if end < 0 else 0
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
    return slice(start, end if end >= 0 else None, step)
