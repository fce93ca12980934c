"""Constants that a rewrite derives from weights: computed in float64, rounded once to the stored type, and only later.

A chain of folds (BatchNormalization, then a scale, then a sum of branches) starts each time from the float64 values of
the one before, so that 16-bit weights are rounded once, however many rewrites took part.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ml_dtypes import finfo
from onnx import TensorProto

from graphopt.facts import SMALL_BYTES
from graphopt.graph import Array, Constant, LazyConstant, Tensor, bits_of, numpy_dtype
from graphopt.rule import RewriteRefusedError

FLOATS = frozenset(
    {int(TensorProto.FLOAT), int(TensorProto.FLOAT16), int(TensorProto.BFLOAT16), int(TensorProto.DOUBLE)}
)

# A weight that other nodes read too is copied by a fold up to this many bytes.
MOST_COPIED_BYTES = 1 << 20


# Shifts from here on may be meant to round: in types of 32 bits and more, and by their grid in smaller ones.
_COARSE = 1024.0
_COARSE_GRID = 1 / 16

# Small values are kept in float64 once computed; so are those this deep in a chain of folds.
_KEPT_BYTES = 1 << 16
_DEEPEST = 16


class Folded(LazyConstant):
    """A derived constant: `exact()` gives its values in float64, `array()` rounded to `dtype`.

    `compute` may read other derived constants. However long such a chain is, computing takes no deep recursion: values
    are kept where the chain gets long, and what they were computed of is let go.
    """

    __slots__ = ("_compute_exact", "_kept")

    _level = 0  # how many `exact` are being computed

    def __init__(self, dtype: int, shape: tuple[int, ...], compute: Callable[[], Array]) -> None:
        super().__init__(dtype, shape, self._rounded)
        self._compute_exact: Callable[[], Array] | None = compute
        self._kept: Array | None = None

    def exact(self) -> Array:
        """The values in float64, not to be written to."""
        if self._kept is not None:
            return self._kept
        assert self._compute_exact is not None
        Folded._level += 1
        try:
            values = np.asarray(self._compute_exact())
            if values.nbytes <= _KEPT_BYTES or Folded._level >= _DEEPEST:
                self._kept, self._compute_exact = values, None
        finally:
            Folded._level -= 1
        return values

    def _rounded(self) -> Array:
        with np.errstate(over="ignore"):
            return np.asarray(self.exact()).astype(numpy_dtype(self.dtype))


def exact_values(constant: Constant) -> Array:
    """The constant in float64, of a derived one before its rounding."""
    if isinstance(constant, Folded):
        return constant.exact()
    return np.asarray(constant.array()).astype(np.float64)


def peak(constant: Constant) -> float:
    """The largest magnitude among the values; NaN when one of them is."""
    array = constant.array()
    if array.size == 0:
        return 0.0
    if array.dtype.kind == "f":  # no copy: a weight may be large
        return float(max(abs(float(array.max())), abs(float(array.min()))))
    return float(np.abs(array.astype(np.float64)).max())


def fold(constant: Folded, *, channel_axis: int | None = None, bounds: tuple[float, float] | None = None) -> Folded:
    """`constant`, once it is sure that its type holds it: no overflow, no precision lost to underflow.

    `bounds` are the least and the largest magnitude that a channel's peak may have; where the type is at least 32 bits
    wide and holds both with room to spare the values are not computed now. `channel_axis` is the axis along which the
    precision is judged channel by channel.

    Raises RewriteRefusedError.
    """
    limits = finfo(numpy_dtype(constant.dtype))  # type: ignore[no-untyped-call]
    if bounds is not None and (bits_of(constant.dtype) or 0) >= 32:
        low, high = bounds
        if high < float(limits.max) / 2 and low > float(limits.tiny) / float(limits.eps):
            return constant
    exact, rounded = constant.exact(), constant.array().astype(np.float64)
    if not np.isfinite(rounded).all():
        raise RewriteRefusedError(f"a folded weight does not fit {_type_name(constant.dtype)}")
    axes = tuple(a for a in range(exact.ndim) if a != channel_axis)
    with np.errstate(invalid="ignore"):
        error, size = np.abs(exact - rounded).max(axes, initial=0.0), np.abs(exact).max(axes, initial=0.0)
    if np.any(error > float(limits.eps) * size):
        raise RewriteRefusedError(f"a folded weight is too small to keep its precision in {_type_name(constant.dtype)}")
    return constant


def finite_vector(values: Array, what: str) -> Array:
    """`values`, when all of them are finite. Raises RewriteRefusedError that names `what`."""
    if not np.isfinite(values).all():
        raise RewriteRefusedError(f"{what} is not finite")
    return values


def rounds_at(dtype: int) -> float:
    """The magnitude from which on a number may be added to others of `dtype` in order to round them."""
    eps = float(finfo(numpy_dtype(dtype)).eps)  # type: ignore[no-untyped-call]
    return _COARSE if (bits_of(dtype) or 0) >= 32 else _COARSE_GRID / eps


def may_round(tensor: Tensor) -> bool:
    """Whether it is a constant that is so large that what it is added to is rounded, which may be meant."""
    constant = tensor.constant
    if constant is None or constant.nbytes > SMALL_BYTES or constant.dtype not in FLOATS:
        return False
    return bool((np.abs(exact_values(constant)) >= rounds_at(constant.dtype)).any())


def sum_of_shifts(dtype: int, *shifts: Array, unscaled: Array | None = None) -> Array:
    """The sum of what is added to one tensor of `dtype` in turn, in float64, unless large ones swallow the others.

    x + c − c rounds x to the grid of c's exponent, and is written to do so (1.5 · 2²³ rounds float32 to integers):
    where the grid of a type is coarse, and little is left of one of the numbers, one sum says something else.
    `unscaled` is what the first of them was when it was added, where it was scaled since.

    Raises RewriteRefusedError.
    """
    total = np.asarray(sum(shifts))
    sizes = np.abs(np.broadcast_arrays(*shifts))
    largest, smallest = sizes.max(0), sizes.min(0)
    added = largest if unscaled is None else np.maximum(largest, np.abs(unscaled))
    with np.errstate(over="ignore", invalid="ignore"):
        lost = np.abs(total.astype(numpy_dtype(dtype)).astype(np.float64) - total)
        vanishes = (np.abs(total) < largest / 8) | (np.isfinite(lost) & (lost > smallest / 64))
    if np.any((added >= rounds_at(dtype)) & vanishes):
        raise RewriteRefusedError("a shift is so large that what it is added to is rounded, which may be meant")
    return total


def moved_shift(dtype: int, shift: Array) -> Array:
    """t, where W·(x + t) may become W·x + W·t for numbers of `dtype`: where it is finite and not large.

    x + t is nearly exact where x is near −t, while W·x and W·t are rounded to the grid of their own size: little is
    right of what is left of both.

    Raises RewriteRefusedError.
    """
    finite_vector(shift, "a shift that would be multiplied")
    if (np.abs(shift) >= rounds_at(dtype)).any():
        raise RewriteRefusedError(
            "a shift is so large that products of it are rounded much, or that it rounds, which may be meant"
        )
    return shift


def copies_much(weight: Tensor) -> bool:
    """Whether a fold would leave the old weight, read by others too, beside a large new one."""
    constant = weight.constant
    return constant is not None and weight.sole_consumer is None and constant.nbytes > MOST_COPIED_BYTES


def _type_name(dtype: int) -> str:
    return TensorProto.DataType.Name(dtype).lower()
