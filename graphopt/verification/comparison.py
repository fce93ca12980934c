"""The comparison of all outputs on all samples, led by Polygraphy's comparator where it knows the types."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.errors import VerificationError
from graphopt.verification.execution import Execution
from graphopt.verification.measure import Measure, Measured
from graphopt.verification.tolerance import Criterion, Verdict, judge
from graphopt.verification.values import Array, Value, describe, is_custom, is_float, leaves, structure
from graphopt.verification.verification import OutputCheck

# Polygraphy's comparator takes statistics of what it compares, quantiles included, whether anybody reads them or not.
_MOST_ELEMENTS = 2**18

# From the strongest statement to the weakest: an output is as well compared as its worst sample.
_STRENGTH = ("equal", "nearly equal", "float64", "perturbed", "plain", "unmeasured", "structure")


@dataclass(frozen=True)
class Comparison:
    """The outputs one by one, what is wrong and what was left open."""

    outputs: tuple[OutputCheck, ...]
    problems: tuple[str, ...]
    not_checked: tuple[str, ...]


@dataclass
class _Finding:
    """What is known of one output so far."""

    type: str
    verdicts: list[Verdict] = field(default_factory=list)
    problem: str = ""
    sizes: list[int] = field(default_factory=list)
    finite: int = 0


def compare(execution: Execution, criterion: Criterion, random: Iterable[str], measure: Measure) -> Comparison:
    """Compares what both models gave, up to the first sample that differs; outputs in `random` by type and shape only.

    Raises `VerificationError` when there is nothing to compare, which must not pass for agreement.
    """
    if not execution.samples or len(execution.outputs) != len(execution.samples):
        raise VerificationError("No outputs were compared; run the verification with at least one sample.")
    by_shape = set(random)
    first = execution.samples[0].outputs
    findings = {name: _Finding(describe(value)) for name, value in first.items()}
    for sample, theirs in zip(execution.samples, execution.outputs, strict=True):
        judged = _judge_sample(sample.outputs, theirs, criterion, by_shape, measure.on(sample.feeds))
        for name, verdict in judged.items():
            findings[name].verdicts.append(verdict)
            _note(findings[name], sample.outputs[name])
        if not all(judged.values()):  # more samples would only cost more float64 runs
            break
    return Comparison(
        tuple(_check(name, finding) for name, finding in findings.items()),
        tuple(
            f"The output {name} differs: {next(v.reason for v in finding.verdicts if not v)}."
            for name, finding in findings.items()
            if not all(finding.verdicts)
        ),
        tuple(sentence for name, finding in findings.items() for sentence in _left_open(name, finding, by_shape)),
    )


def _judge_sample(
    mine: Mapping[str, Value], theirs: Mapping[str, Value], criterion: Criterion, random: set[str], evidence: Measured
) -> dict[str, Verdict]:
    def one(name: str, before: Value, after: Value) -> Verdict:
        if name in random:
            same = structure(before) == structure(after)
            return Verdict(same, "structure", reason="" if same else f"it is {describe(after)}, not {describe(before)}")
        return _judge_value(name, before, after, criterion, evidence)

    if list(mine) != list(theirs):
        raise VerificationError("The two models gave outputs of different names; compare their interfaces first.")
    if mine and all(_is_ordinary(value) for value in (*mine.values(), *theirs.values())):
        return _by_polygraphy(mine, theirs, one)
    return {name: one(name, mine[name], theirs[name]) for name in mine}


def _is_ordinary(value: Value) -> bool:
    """Whether Polygraphy's comparator can handle the value: an array of numbers, not empty and not too large."""
    if not isinstance(value, np.ndarray) or not 0 < value.size <= _MOST_ELEMENTS:
        return False
    return value.dtype.kind in "fiub" and not is_custom(value.dtype)


def _by_polygraphy(mine: Mapping[str, Any], theirs: Mapping[str, Any], one: Any) -> dict[str, Verdict]:
    """Polygraphy's comparator with our judgement as its comparison function.

    Its own verdict is True where one side lacks an output or nothing was compared, so that both are looked at here.
    """
    from polygraphy.comparator import Comparator, RunResults

    from graphopt.verification.runners import quiet

    def compare_func(left: Mapping[str, Array], right: Mapping[str, Array]) -> OrderedDict[str, Verdict]:
        return OrderedDict((name, one(name, left[name], right[name])) for name in left.keys() & right.keys())

    results = RunResults()
    results.add([dict(mine)], runner_name="original")
    results.add([dict(theirs)], runner_name="candidate")
    with quiet():
        (accuracy,) = Comparator.compare_accuracy(results, compare_func=compare_func)
    iterations = accuracy[("original", "candidate")]
    if len(iterations) != 1 or set(iterations[0]) != set(mine):
        raise VerificationError("Not every output was compared; this is a fault of graphopt, please report it.")
    return {name: iterations[0][name] for name in mine}


def _judge_value(name: str, before: Value, after: Value, criterion: Criterion, evidence: Measured) -> Verdict:
    mine, theirs = leaves({name: before}), leaves({name: after})
    if list(mine) != list(theirs):
        return Verdict(False, "structure", reason=f"it is {describe(after)} instead of {describe(before)}")
    verdicts = [judge(mine[leaf], theirs[leaf], criterion, evidence.of(leaf)) for leaf in mine]
    return _merged(verdicts)


def _merged(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict over several arrays: the worst of each."""
    if not verdicts:
        return Verdict(True, "equal")
    failed = [verdict for verdict in verdicts if not verdict]
    return Verdict(
        passed=not failed,
        how=max((verdict.how for verdict in failed or verdicts), key=_STRENGTH.index),
        worst=max(verdict.worst for verdict in verdicts),
        original_error=_greatest(verdict.original_error for verdict in verdicts),
        candidate_error=_greatest(verdict.candidate_error for verdict in verdicts),
        uncompared=sum(verdict.uncompared for verdict in verdicts),
        reason=failed[0].reason if failed else "",
    )


def _greatest(numbers: Iterable[float | None]) -> float | None:
    return max((number for number in numbers if number is not None), default=None)


def _note(finding: _Finding, value: Value) -> None:
    for array in leaves({"": value}).values():
        finding.sizes.append(array.size)
        numeric = is_float(array.dtype)
        finding.finite += int(np.isfinite(array).sum()) if numeric and array.dtype.kind in "fc" else array.size


def _check(name: str, finding: _Finding) -> OutputCheck:
    merged = _merged(finding.verdicts)
    return OutputCheck(
        name=name,
        type=finding.type,
        passed=merged.passed,
        how=merged.how,
        worst=merged.worst,
        original_error=merged.original_error,
        candidate_error=merged.candidate_error,
        uncompared=merged.uncompared,
    )


def _left_open(name: str, finding: _Finding, random: set[str]) -> Iterable[str]:
    merged = _merged(finding.verdicts)
    if name in random:
        yield f"The output {name} is drawn at random; only its type and shape were compared."
        return
    if sum(finding.sizes) == 0:
        yield f"The output {name} had no elements in any sample."
    elif finding.finite == 0:
        yield f"The output {name} had only NaN and Inf in every sample."
    if merged.uncompared:
        yield f"Rounding alone can change {merged.uncompared} elements of the output {name}; these were not compared."
    if merged.how == "unmeasured":
        yield f"The output {name} could not be computed in float64; the usual tolerance of its type was used."
