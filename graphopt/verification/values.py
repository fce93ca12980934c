"""The values that models take and give: arrays, and sequences, maps and optionals of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
# A tensor; a sequence (list); a map (dict, from ai.onnx.ml); an optional without a value (None).
Value: TypeAlias = "Array | list[Value] | dict[Any, Any] | None"
Feeds: TypeAlias = Mapping[str, Value]
Leaves: TypeAlias = dict[str, Array]

_CUSTOM_FLOATS = frozenset(
    np.dtype(getattr(ml_dtypes, name))
    for name in (
        "bfloat16",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float4_e2m1fn",
    )
    if hasattr(ml_dtypes, name)
)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether the dtype rounds: IEEE floats, bfloat16, float8, float4 and complex numbers."""
    return dtype.kind in "fc" or dtype in _CUSTOM_FLOATS


def is_custom(dtype: np.dtype[Any]) -> bool:
    """Whether the dtype is one of ml_dtypes' (bfloat16, float8, float4, int4, int2), unknown to plain numpy."""
    return dtype.kind == "V" or dtype.type.__module__ == "ml_dtypes"


def epsilon(dtype: np.dtype[Any]) -> float:
    """The distance from 1 to the next number of a float dtype; for complex dtypes that of their parts."""
    return float(_finfo(dtype).eps)


def smallest_normal(dtype: np.dtype[Any]) -> float:
    """The smallest positive number of a float dtype that has its full precision."""
    return float(_finfo(dtype).smallest_normal)


def _finfo(dtype: np.dtype[Any]) -> Any:
    finfo: Any = ml_dtypes.finfo if dtype in _CUSTOM_FLOATS else np.finfo
    return finfo(dtype)


def as_double(array: Array) -> npt.NDArray[np.float64]:
    """The array's numbers as float64; complex ones as pairs along a new last axis."""
    if array.dtype.kind == "c":
        wide = np.ascontiguousarray(array).astype(np.complex128)
        return wide.view(np.float64).reshape(*array.shape, 2)
    return array.astype(np.float64)


def leaves(outputs: Mapping[str, Value]) -> Leaves:
    """The arrays inside named values, under names that say where: `y`, `y[0]`, `y[1]['cat']`.

    An optional without a value has no leaf, a sequence of length zero neither, so that a different structure
    shows as a different set of names.
    """
    found: Leaves = {}
    for name, value in outputs.items():
        _collect(name, value, found)
    return found


def _collect(name: str, value: Value, found: Leaves) -> None:
    if value is None:
        return
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            _collect(f"{name}[{key!r}]", value[key], found)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _collect(f"{name}[{index}]", item, found)
    else:
        found[name] = np.asarray(value)


def describe(value: Value) -> str:
    """The value's type in short, for sentences: `float32[2,3]`, `a sequence of 2`, `no value`."""
    if value is None:
        return "no value"
    if isinstance(value, dict):
        return f"a map of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"a sequence of {len(value)}"
    array = np.asarray(value)
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}]"


def structure(value: Value) -> Any:
    """The value's shape without its numbers, comparable by `==`: what outputs drawn at random keep."""
    if value is None:
        return None
    if isinstance(value, dict):
        return {key: structure(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [structure(item) for item in value]
    array = np.asarray(value)
    return (str(array.dtype), array.shape)


def names(items: Sequence[str], limit: int = 5) -> str:
    """Names in a sentence: `a, b and 3 more`."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
