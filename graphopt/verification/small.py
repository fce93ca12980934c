"""Comparing small models quickly: what one rewrite consumed with what it made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from graphopt.errors import ExecutionError
from graphopt.verification import source
from graphopt.verification.measure import Measure
from graphopt.verification.sessions import Engine, Failed, OnnxRuntime, Reference, Rejected, Unbounded
from graphopt.verification.source import Located
from graphopt.verification.tolerance import Criterion, Tolerance, judge
from graphopt.verification.values import Feeds, Value, describe, leaves

# Seconds that one run of a small model with loops may take.
MOST_SECONDS = 20.0


@dataclass(frozen=True)
class Mismatch:
    """Inputs on which two models differ, and how: a reproducer.

    `output` names the output of the first model, `expected` and `found` are what both gave; `found` is None where the
    second does not run. `reason` is a part of a sentence: "the output y differs: ...".
    """

    output: str
    reason: str
    feeds: Feeds
    expected: Value
    found: Value


def compare_small(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    feeds: Sequence[Mapping[str, Value]],
    criterion: Criterion = Tolerance(),  # noqa: B008 - frozen
) -> Mismatch | None:
    """The first difference between two models on these inputs; None where there is none.

    Outputs are compared by position, their names may differ. No input may be left out. Feeds that `before` itself
    refuses are passed over. Cheap enough for thousands of calls: plain sessions, one thread, no checker, float64 runs
    only where the results differ by more than a few units in the last place. Raises `ExecutionError` when no
    engine runs `before` on any of the inputs, which must not pass for agreement.
    """
    if not before.graph.output and not after.graph.output:
        return None  # nothing reads either; ONNX Runtime refuses a model without a single value
    first, second = Located(before), Located(after)
    refusals: list[Exception] = []
    for open_engine in _engines(first, second):
        try:
            one = open_engine(first)
        except Rejected as error:
            refusals.append(error)
            continue
        try:
            other = open_engine(second)
        except Rejected as error:
            if error.unimplemented:  # no fault of the rewrite's: another runtime has the kernel
                refusals.append(error)
                continue
            return Mismatch("", f"what was made of it does not run: {error}", feeds[0] if feeds else {}, None, None)
        try:
            return _compare(one, other, first, feeds, criterion)
        except Failed as error:  # these inputs do not fit the model: another engine would refuse them, too, and slower
            refusals.append(error)
            break
    raise ExecutionError(f"The nodes cannot be run on their own, so that they cannot be compared ({refusals[0]}).")


def _engines(first: Located, second: Located) -> Iterator[Callable[[Located], Engine]]:
    yield lambda model: OnnxRuntime(model, threads=1, seconds=MOST_SECONDS)
    if not source.foreign_operators(first.proto) and not source.foreign_operators(second.proto):
        yield Reference


def _compare(
    one: Engine, other: Engine, model: Located, feeds: Sequence[Feeds], criterion: Criterion
) -> Mismatch | None:
    measure = Measure(model, threads=1)
    ran = 0
    refusal: Failed | None = None
    for given in feeds:
        try:
            expected = one.run(given)
        except Unbounded:
            raise
        except Failed as error:
            refusal = error
            continue
        ran += 1
        try:
            found = other.run(given)
        except Failed as error:
            name = next(iter(expected), "")
            return Mismatch(name, f"what was made of it does not run: {error}", given, expected.get(name), None)
        mismatch = _difference(expected, found, given, criterion, measure)
        if mismatch is not None:
            return mismatch
    if not ran:
        raise refusal or Failed("there are no inputs to run them on")
    return None


def _difference(
    expected: Mapping[str, Value], found: Mapping[str, Value], feeds: Feeds, criterion: Criterion, measure: Measure
) -> Mismatch | None:
    if len(expected) != len(found):
        return Mismatch("", f"there are {len(found)} outputs instead of {len(expected)}", feeds, None, None)
    evidence = measure.on(feeds)
    for (name, mine), theirs in zip(expected.items(), found.values(), strict=True):
        before, after = leaves({name: mine}), leaves({name: theirs})
        if list(before) != list(after):
            reason = f"it is {describe(theirs)} instead of {describe(mine)}"
            return Mismatch(name, f"the output {name} differs: {reason}", feeds, mine, theirs)
        for leaf in before:
            verdict = judge(before[leaf], after[leaf], criterion, evidence.of(leaf))
            if not verdict:
                return Mismatch(name, f"the output {name} differs: {verdict.reason}", feeds, mine, theirs)
    return None
