"""When two sets of outputs are the same: exactly, within rounding, or as far as the model itself is stable."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Of the largest magnitude in the tensor: some ten roundings of the type. What passes this is equal without a question;
# what does not is doubtful, and is judged by how much the original moves when its own roundings are shaken.
USUAL = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 4e-6, "float64": 1e-14}
FACTOR = 16.0


class Exact(Enum):
    """How equal two tensors have to be at first sight: bit for bit, up to the sign of zeros, or up to rounding."""

    BITS = "bits"
    VALUES = "values"
    NO = "no"


def differs(expected: Sequence[Array], given: Sequence[Array], names: Sequence[str], exact: Exact) -> str | None:
    """What is different, in words; None when all outputs are equal up to the usual rounding (or bit for bit)."""
    for name, one, other in zip(names, expected, given, strict=True):
        if one.dtype != other.dtype or one.shape != other.shape:
            return f"{name!r}: {one.dtype}{one.shape} became {other.dtype}{other.shape}"
        wrong = _wrong(one, other, np.zeros_like(one, dtype=np.float64), exact)
        if wrong.any():
            return f"{name!r}: {_words(one, other, wrong)}"
    return None


def differs_beyond(
    expected: Sequence[Array], given: Sequence[Array], names: Sequence[str], shaken: Sequence[Sequence[Array]]
) -> str | None:
    """The same, with room for each element to move FACTOR times as far as it did in the shaken runs of the original.

    An element that is no float, or that changed between finite, infinite and NaN in one of these runs, may be anything
    that it was in them or lie between.
    """
    for at, (name, one, other) in enumerate(zip(names, expected, given, strict=True)):
        if one.dtype != other.dtype or one.shape != other.shape:
            return f"{name!r}: {one.dtype}{one.shape} became {other.dtype}{other.shape}"
        room, unstable = np.zeros(one.shape), np.zeros(one.shape, bool)
        for run in shaken:
            if run[at].shape != one.shape:  # the shape itself depends on rounding
                unstable[...] = True
                continue
            moved, jumped = _moved(one, run[at])
            room, unstable = np.maximum(room, moved), unstable | jumped
        wrong = _wrong(one, other, room * FACTOR, Exact.NO) & ~unstable
        if wrong.any():
            return f"{name!r}: {_words(one, other, wrong)}; shaken by rounding it moves {room[wrong].max():.3g} at most"
    return None


def _is_float(array: Array) -> bool:
    return array.dtype.kind in "fV" or array.dtype.name in USUAL


def _moved(one: Array, other: Array) -> tuple[Array, Array]:
    """How far each element moved, and where it jumped between kinds."""
    if not _is_float(one):
        return np.zeros(one.shape), one != other
    a, b = one.astype(np.float64), other.astype(np.float64)
    jumped = (np.isnan(a) != np.isnan(b)) | (np.isinf(a) != np.isinf(b)) | (np.isinf(a) & np.isinf(b) & (a != b))
    with np.errstate(invalid="ignore"):
        moved = np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), 0.0)
    return moved, jumped


def _wrong(one: Array, other: Array, room: Array, exact: Exact) -> Array:
    if not _is_float(one):
        return np.asarray(one != other)
    a, b = one.astype(np.float64), other.astype(np.float64)
    moved, jumped = _moved(one, other)
    if exact is not Exact.NO:  # the payload of a NaN does not count
        signs = (np.signbit(a) != np.signbit(b)) & ~np.isnan(a) & (exact is Exact.BITS)
        return jumped | (moved > 0) | signs
    finite = np.abs(a[np.isfinite(a)])
    usual = USUAL[one.dtype.name] * (finite.max() if finite.size else 1.0)
    return np.asarray(jumped | (moved > usual + room))


def _words(one: Array, other: Array, wrong: Array) -> str:
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    return f"{int(wrong.sum())} of {wrong.size} elements; at {list(where)} {one[where]!s} became {other[where]!s}"


def is_finite(value: Any) -> bool:
    """Whether an input, of whatever type, holds neither infinity nor NaN."""
    arrays = value if isinstance(value, list) else [value]
    return all(a is None or a.dtype.kind in "OSUb" or bool(np.isfinite(a.astype(np.float64)).all()) for a in arrays)
