"""The judgement of float arrays by their errors against a float64 run.

Errors are compared element by element with the error level of the original among elements of like size, not with
its error at the very element, which may be 0 by chance; and over the whole array by their root mean square.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from graphopt.verification.tolerance import Doubles, Evidence, Tolerance, Verdict, largest, until_explained
from graphopt.verification.values import as_double, epsilon, smallest_normal

_POOL = 64  # the smallest elements pooled at least: this many, or an eighth of those that are not 0
_SHARE = 8
_REACH = 16.0  # elements up to this many times as large share one error level

# A relative error of the original (root mean square) beyond which the "float64 run" may compute something else, so that
# rounding errors have to explain it.
_DOUBTFUL_ULPS = 2.0**8
_DOUBTFUL = 0.05


def judge_floats(
    before: Doubles, after: Doubles, dtype: np.dtype[Any], tolerance: Tolerance, evidence: Evidence
) -> Verdict:
    """Whether `after` is as good as `before`: both the numbers of arrays of `dtype`, NaN and Inf in the same places."""
    finite = np.isfinite(before)
    before, after = before[finite], after[finite]
    apart = np.abs(after - before)
    worst = largest(apart)
    floor = tolerance.ulps * epsilon(dtype) * np.abs(before) + smallest_normal(dtype)
    if (apart <= floor).all():
        return Verdict(True, "nearly equal", worst)
    exact = _same_numbers(evidence.exact(), finite)
    if exact is None:
        return _without_measure(before, apart, dtype, worst)
    known = np.isfinite(exact)
    own = np.where(known, np.abs(before - exact), 0.0)
    others = np.where(known, np.abs(after - exact), apart)
    pools = Pools(before)
    verdict = partial(Verdict, worst=worst, original_error=largest(own), candidate_error=largest(others))
    is_doubtful = _is_doubtful(before, exact, dtype)
    if not is_doubtful and not _violations(others, own, pools, tolerance, floor):
        return verdict(True, "float64")
    spread = _Spread(exact, finite)

    def unexplained(run: npt.NDArray[Any]) -> int:
        spread.widen(run)
        if is_doubtful and _rms(own) > tolerance.factor * _rms(spread.apart):
            return len(own) + 1
        return _violations(others, np.maximum(own, spread.apart), pools, tolerance, floor)

    if until_explained(evidence.perturbed(), unexplained):
        return verdict(True, "perturbed")
    if is_doubtful and _rms(own) > tolerance.factor * _rms(spread.apart):
        return _without_measure(before, apart, dtype, worst)
    reason = (
        f"its error against a float64 run is {largest(others):.3g}, the original's {largest(own):.3g}, "
        f"and somewhere it is more than {tolerance.factor:g} times what rounding explains"
    )
    return verdict(False, "float64", reason=reason)


class Pools:
    """The elements of an array ordered by size, so that errors of elements of like size can be pooled.

    An element's pool has all elements up to 16 times as large as itself, and at least the smallest eighth of those
    that are not 0 (at least 64): sums that cancel are small while their errors are not, and a 0 that ReLU made has the
    errors of the numbers that it cut off.
    """

    def __init__(self, numbers: Doubles) -> None:
        self._sizes = np.abs(numbers)
        self._order = np.argsort(self._sizes)
        self._sorted = self._sizes[self._order]
        count = len(self._sorted)
        zeros = int(np.searchsorted(self._sorted, 0.0, side="right"))
        self._least = min(count, zeros + max(_POOL, (count - zeros) // _SHARE))

    def levels(self, errors: Doubles) -> Doubles:
        """For each element the largest error in its pool."""
        if not len(errors):
            return errors
        highest = np.maximum.accumulate(errors[self._order])
        reach = np.searchsorted(self._sorted, _REACH * self._sizes, side="right")
        level: Doubles = highest[np.maximum(reach, self._least) - 1]
        return level


def _violations(others: Doubles, own: Doubles, pools: Pools, tolerance: Tolerance, floor: Doubles) -> int:
    """In how many elements the error is too large, and one more where it is over the whole array."""
    count = int((others > tolerance.factor * pools.levels(own) + floor).sum())
    return count + int(_rms(others) > tolerance.factor * _rms(own) + _rms(floor))


def _rms(numbers: Doubles) -> float:
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return 0.0
    scale = float(np.abs(finite).max())
    return scale * float(np.sqrt(np.mean((finite / scale) ** 2))) if scale else 0.0


def _same_numbers(array: npt.NDArray[Any] | None, finite: npt.NDArray[np.bool_]) -> Doubles | None:
    if array is None:
        return None
    numbers = as_double(array)
    return numbers[finite] if numbers.shape == finite.shape else None


def _is_doubtful(before: Doubles, exact: Doubles, dtype: np.dtype[Any]) -> bool:
    known = np.isfinite(exact)
    limit = min(_DOUBTFUL_ULPS * epsilon(dtype), _DOUBTFUL)
    return not known.any() or _rms((before - exact)[known]) > limit * _rms(exact[known]) + smallest_normal(dtype)


class _Spread:
    """How far rounding errors move each element: the largest distance of a perturbed run from the exact one."""

    def __init__(self, exact: Doubles, finite: npt.NDArray[np.bool_]) -> None:
        self._exact = exact
        self._finite = finite
        self.apart: Doubles = np.zeros_like(exact)

    def widen(self, run: npt.NDArray[Any]) -> None:
        """Takes one more run into account; one of another shape says nothing about elements."""
        numbers = _same_numbers(run, self._finite)
        if numbers is not None:
            apart = np.nan_to_num(np.abs(numbers - self._exact), nan=0.0, posinf=0.0)
            np.maximum(self.apart, apart, out=self.apart)


def _without_measure(before: Doubles, apart: Doubles, dtype: np.dtype[Any], worst: float) -> Verdict:
    """The comparison where no float64 run can be had: relative to each element, and a tenth of that to all."""
    rtol = usual_rtol(dtype)
    count = int((apart > rtol * (np.abs(before) + 0.1 * _rms(before))).sum())
    reason = f"{count} of {before.size} numbers differ by more than {rtol:g} of their size, by up to {worst:.3g}"
    return Verdict(count == 0, "unmeasured", worst, reason=reason if count else "")


def usual_rtol(dtype: np.dtype[Any]) -> float:
    """The relative tolerance that is usual for a float dtype, for where its own error cannot be measured."""
    eps = epsilon(dtype)
    return 1e-9 if eps < 1e-12 else 1e-4 if eps < 1e-5 else min(8 * eps, 0.25)
