"""When two results count as the same: the tolerance, and the judgement of one output.

The measure is a run of the original in float64. Where the original is off by some error, the candidate may be off by
a stated factor of it. Where the original is right by luck or by construction, what rounding alone may do is found by
repeating the float64 run with every intermediate result perturbed by its own rounding error (stochastic arithmetic:
D. S. Parker, "Monte Carlo Arithmetic", 1997; J. Vignes, "Discrete stochastic arithmetic", 2004). The same runs show
which integers and booleans rounding can flip (ArgMax of nearly equal numbers, comparisons, quantization).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import numpy.typing as npt

from graphopt.verification.values import Array, as_double, is_float

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tolerance:
    """How far a candidate's floats may be from the original's.

    `factor`: how many times the original's own error against a float64 run the candidate's error may be.
    `ulps`: what is always allowed, in units in the last place of the element. With `rtol` or `atol` given, these
    replace all that:
    |candidate - original| <= atol + rtol * |original|, the other being 0.
    """

    factor: float = 4.0
    ulps: float = 2.0
    rtol: float | None = None
    atol: float | None = None

    @property
    def is_plain(self) -> bool:
        """Whether rtol and atol decide."""
        return self.rtol is not None or self.atol is not None

    def words(self) -> str:
        """The tolerance in words, for the report."""
        if self.is_plain:
            return f"rtol {self.rtol or 0:g}, atol {self.atol or 0:g}"
        return f"an error of at most {self.factor:g} times the original's own against a float64 run"


@dataclass(frozen=True)
class Exact:
    """Array equality: the same numbers, NaN where NaN is. 0 equals -0."""

    def words(self) -> str:
        """The comparison in words, for the report."""
        return "array equality"


Criterion = Tolerance | Exact

# How many runs in a row may explain nothing more: what is half explained is worth more patience.
_PATIENCE = 6
_MORE_PATIENCE = 12


class Evidence(Protocol):
    """What is known of an output beyond the two results: float64 runs of the original, made when first asked for."""

    @property
    def has_loops(self) -> bool:
        """Whether the original has a loop, which may collect nothing."""

    def exact(self) -> Array | None:
        """The output in a float64 run; None where there is none."""

    def perturbed(self) -> Iterable[Array]:
        """The output in float64 runs with rounding errors put in at random, made one by one as they are asked for.

        As many as are worth looking at: few where results are smooth in their inputs, so that the first ones show
        what rounding can do, more where they jump, so that each may show another jump.
        """


@dataclass(frozen=True)
class Verdict:
    """What was found for one array.

    `how`: "equal", "nearly equal", "float64", "perturbed", "plain", "unmeasured" or "structure". `worst`: the
    largest absolute difference. `original_error`, `candidate_error`: the largest absolute errors against the
    float64 run. `uncompared`: elements that rounding alone can flip.
    """

    passed: bool
    how: str
    worst: float = 0.0
    original_error: float | None = None
    candidate_error: float | None = None
    uncompared: int = 0
    reason: str = ""

    def __bool__(self) -> bool:
        """Whether it passed, as Polygraphy's comparator asks."""
        return self.passed


def judge(original: Array, candidate: Array, criterion: Criterion, evidence: Evidence) -> Verdict:
    """Whether the candidate's array counts as the original's."""
    if original.dtype != candidate.dtype and not (original.dtype.kind in "OSU" and candidate.dtype.kind in "OSU"):
        return Verdict(False, "structure", reason=f"it is {candidate.dtype.name} instead of {original.dtype.name}")
    if original.shape != candidate.shape:
        return _judge_shapes(original, candidate, criterion, evidence)
    if _equal(original, candidate):
        return Verdict(True, "equal")
    if not is_float(original.dtype):
        return _judge_discrete(original, candidate, criterion, evidence)
    before, after = as_double(original), as_double(candidate)
    worst = largest(np.abs(before - after))
    misplaced = _misplaced(before, after)
    if misplaced:
        return Verdict(False, "equal", worst, reason=f"NaN or Inf in {misplaced} places where the other has none")
    if isinstance(criterion, Exact):
        count = int((before != after).sum() - (np.isnan(before) & np.isnan(after)).sum())
        return Verdict(False, "equal", worst, reason=f"{count} of {before.size} numbers differ, by up to {worst:.3g}")
    if criterion.is_plain:
        return _judge_plain(before, after, criterion.rtol or 0.0, criterion.atol or 0.0, worst)
    from graphopt.verification.floats import judge_floats

    return judge_floats(before, after, original.dtype, criterion, evidence)


def _equal(one: Array, other: Array) -> bool:
    if is_float(one.dtype):
        same = (one == other) | ((one != one) & (other != other))
        return bool(np.all(same))
    return bool(np.array_equal(one, other))


def _misplaced(before: Doubles, after: Doubles) -> int:
    """In how many places only one side is NaN, or they are not infinite alike."""
    special = ~(np.isfinite(before) & np.isfinite(after))
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    return int((special & ~same).sum())


def largest(values: Doubles) -> float:
    """The largest finite number; 0 where there is none."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0


def _judge_shapes(original: Array, candidate: Array, criterion: Criterion, evidence: Evidence) -> Verdict:
    """A shape that depends on the data (NonZero, NonMaxSuppression) may change with a rounding error too.

    What a loop without an iteration collects is empty, and ONNX Runtime takes 0 for dimensions that it cannot infer.
    """
    are_empty = original.size == candidate.size == 0 and original.ndim == candidate.ndim
    if are_empty and evidence.has_loops:
        known = [(one, other) for one, other in zip(original.shape, candidate.shape, strict=True) if one != 0]
        if all(one == other for one, other in known):
            return Verdict(True, "equal")
    reason = f"its shape is {list(candidate.shape)} instead of {list(original.shape)}"
    is_measured = isinstance(criterion, Tolerance) and not criterion.is_plain and original.ndim == candidate.ndim
    if is_measured and until_explained(_runs(evidence), lambda run: int(run.shape == original.shape)):
        return Verdict(True, "perturbed", uncompared=candidate.size)
    return Verdict(False, "structure", reason=reason)


def _judge_discrete(original: Array, candidate: Array, criterion: Criterion, evidence: Evidence) -> Verdict:
    different = np.asarray(original != candidate)
    count = int(different.sum())
    worst = 0.0
    if original.dtype.kind not in "OSU":
        worst = largest(np.abs(original.astype(np.float64) - candidate.astype(np.float64)))
    reason = f"{count} of {different.size} values differ"
    if isinstance(criterion, Tolerance) and not criterion.is_plain:
        unsteady = np.zeros(different.shape, dtype=bool)

        def unexplained(run: Array) -> int:
            np.logical_or(unsteady, run != original if run.shape == original.shape else True, out=unsteady)
            return int((different & ~unsteady).sum())

        if until_explained(_runs(evidence), unexplained):
            return Verdict(True, "perturbed", worst, uncompared=int(unsteady.sum()))
        reason += ", and rounding alone does not explain it"
    return Verdict(False, "equal", worst, reason=reason)


def _runs(evidence: Evidence) -> Iterable[Array]:
    exact = evidence.exact()
    return chain([] if exact is None else [exact], evidence.perturbed())


def until_explained(runs: Iterable[Array], unexplained: Callable[[Array], int]) -> bool:
    """Whether runs with rounding errors explain all differences.

    `unexplained` takes one more run and says how many differences are left. Runs are asked for as long as they help: a
    real difference is given up after a few, while a tie, which each run breaks one way or the other, takes more.
    """
    first = fewest = None
    idle = 0
    for run in runs:
        left = unexplained(run)
        if left == 0:
            return True
        first = left if first is None else first
        idle = 0 if fewest is None or left < fewest else idle + 1
        fewest = left if fewest is None else min(left, fewest)
        if idle >= (_PATIENCE if 2 * left > first else _MORE_PATIENCE):
            return False
    return False


def _judge_plain(before: Doubles, after: Doubles, rtol: float, atol: float, worst: float) -> Verdict:
    finite = np.isfinite(before)
    excess = np.abs(before - after)[finite] - (atol + rtol * np.abs(before[finite]))
    count = int((excess > 0).sum())
    if count == 0:
        return Verdict(True, "plain", worst)
    return Verdict(
        False,
        "plain",
        worst,
        reason=f"{count} of {before.size} numbers differ by more than rtol {rtol:g} and atol {atol:g}, "
        f"by up to {worst:.3g}",
    )
