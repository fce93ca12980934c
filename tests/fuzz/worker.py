"""A process that draws models, examines them and shrinks what fails; whoever started it watches the clock."""

from __future__ import annotations

import contextlib
import resource
import time
import traceback
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hypothesis import Phase, Verbosity, given, settings
from hypothesis.database import InMemoryExampleDatabase

from tests.fuzz import found, generate
from tests.fuzz.inputs import Feeds, feeds
from tests.fuzz.models import Case, cases
from tests.fuzz.oracle import Failure, Outcome, Setting, examine, guilty, homes, settings_for
from tests.fuzz.reduce import reduce
from tests.fuzz.registry import SNIPPETS
from tests.fuzz.seeds import register

SHRINK_SECONDS = 8.0  # of processor time, for each of two ways
MEMORY = 6 << 30  # bytes of address space; what asks for more fails, and the machine lives on
_FREE = 4  # one model in so many is drawn around no rule in any case
_GOAL = 0.015  # the share of models in which each rule is to fire, with some room above 1 in 100
_A_TRY = 0.1  # what a model drawn around a rule counts, beside the models in which it fired
_MOST_OF_A_KEY = 2  # failures of one key that are shrunk by one worker; the others are counted


class _FoundError(Exception):
    pass


class Themes:
    """The rules to draw models around: the one that fired in the fewest models so far, as long as these are too few.

    Every fourth model is drawn without. A rule that does not fire although models are drawn around it loses its turn
    bit by bit.
    """

    def __init__(self, rules: Iterable[str]) -> None:
        self._fired = dict.fromkeys(sorted(rules), 0.0)
        self._models = 0

    def next(self) -> str:
        """The theme of the next model; "" for none."""
        self._models += 1
        if self._models % _FREE == 0 or not self._fired:
            return ""
        theme = min(self._fired, key=self._fired.__getitem__)
        if self._fired[theme] >= _GOAL * self._models:
            return ""
        self._fired[theme] += _A_TRY
        return theme

    def count(self, fired: Iterable[str]) -> None:
        """Takes the rules that fired in a model into account."""
        for rule in set(fired) & self._fired.keys():
            self._fired[rule] += 1


def work(
    connection: Connection,
    seed: int,
    first: int,
    step: int,
    scratch: Path,
    graphs: Path,
    quick: bool,
    ignored: frozenset[str],
) -> None:
    """Examines the cases first, first + step, ... until the connection closes.

    Sends ("begin", number), then ("done", number, outcome, names of snippets), and ("shrinking", number) before and
    ("failure", number, failure, model bytes, inputs, theme) after each shrinking.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    register(graphs)
    seen: dict[str, int] = {}
    latest: list[tuple[Case, Outcome]] = []

    def visit(case: Case) -> None:
        inputs = feeds(case)
        unknown = Failure("died", Setting("?", "?"), "the process died or did not end", "died")
        found.save(scratch, case.model, inputs, unknown, "")
        try:
            outcome = examine(case.model, inputs, case.seed, settings_for(case.seed, quick, case.theme))
        except Exception:  # a fault of the fuzzer itself must not pass for a model that is fine
            broken = Failure("fuzzer", Setting("?", "?"), traceback.format_exc()[-3000:], "a fault of the fuzzer")
            outcome = Outcome(failures=[broken])
        outcome.failures = [failure for failure in outcome.failures if failure.kind not in ignored]
        latest.append((case, outcome))
        for file in scratch.iterdir():
            file.unlink()

    draw = generate.stream(seed, visit)
    themes = Themes(rule for entry in SNIPPETS.values() for rule in entry.rules if rule in homes())
    number = first
    with contextlib.suppress(BrokenPipeError, EOFError):
        while True:
            connection.send(("begin", number))
            latest.clear()
            draw(number, themes.next())
            for case, outcome in latest:
                themes.count(outcome.fired)
                connection.send(("done", number, outcome, case.snippets))
                for failure in {f.key: f for f in reversed(outcome.failures)}.values():
                    _report(connection, seed, number, case, failure, seen)
            number += step


def _report(connection: Connection, seed: int, number: int, case: Case, failure: Failure, seen: dict[str, int]) -> None:
    if seen.get(failure.key, 0) >= _MOST_OF_A_KEY:
        return
    if failure.kind == "fuzzer":
        data = case.model.SerializeToString(deterministic=True)
        connection.send(("failure", number, failure, data, feeds(case), case.theme))
        return
    connection.send(("shrinking", number))
    inputs, key = feeds(case), failure.key
    failure = blamed(case.model, inputs, failure)
    for each in {key, failure.key}:
        seen[each] = seen.get(each, 0) + 1
    if seen[failure.key] > _MOST_OF_A_KEY:
        return
    model, inputs = shrink(seed, number, case, failure)
    connection.send(("failure", number, failure, model, inputs, case.theme))


def blamed(model: Any, inputs: list[Feeds], failure: Failure) -> Failure:
    """The failure with the guilty rules in its key, where single rules can be told guilty."""
    if failure.kind == "crash":
        return failure
    applied = examine(model, inputs, 0, [failure.setting], False).fired
    rules = guilty(model, inputs, failure, applied)
    if not rules:
        return failure
    detail = f"guilty: {', '.join(rules)}. {failure.detail}"
    return Failure(failure.kind, failure.setting, detail, f"{failure.kind}: {'+'.join(rules)}")


def same(failure: Failure, model: Any, inputs: list[Feeds]) -> bool:
    """Whether a smaller model still fails in the same way."""
    failures = examine(model, inputs, 0, [failure.setting], failure.needs_repetition).failures
    crash = failure.kind == "crash"
    return any(f.key == failure.key if crash else f.kind == failure.kind for f in failures)


def shrink(seed: int, number: int, case: Case, failure: Failure) -> tuple[bytes, list[Feeds]]:
    """First hypothesis draws simpler models, then nodes are cut off."""
    best = [case]
    end = time.process_time() + SHRINK_SECONDS

    @settings(
        database=InMemoryExampleDatabase(), verbosity=Verbosity.quiet, phases=(Phase.reuse, Phase.shrink), deadline=None
    )
    @given(cases(theme=case.theme))
    def take(candidate: Case) -> None:
        if time.process_time() > end:
            return
        if same(failure, candidate.model, feeds(candidate)):
            best[0] = candidate
            raise _FoundError

    with contextlib.suppress(Exception):  # what it raises in the end is the failure, or that time made it flaky
        take.hypothesis.fuzz_one_input(generate.buffer(seed, number))
    with contextlib.suppress(BaseException):
        take()
    smallest = best[0]
    model, inputs = reduce(smallest.model, feeds(smallest), lambda m, given: same(failure, m, given), SHRINK_SECONDS)
    return model.SerializeToString(deterministic=True), inputs
