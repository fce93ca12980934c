"""Which trades win when they are measured: whole rules first, then parts of them, within a bounded number of trials."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from onnx import ModelProto

from graphopt.cost import Decision
from graphopt.errors import GraphoptError
from graphopt.pipeline import Verdict
from graphopt.tune.meters import Meter

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Budget:
    """How much may be tried: `trials` models measured, `seconds` in all (a trial that has begun ends)."""

    trials: int = 24
    seconds: float = 300.0


@dataclass(frozen=True)
class Made:
    """What one run of the pipeline made, and what the cost model decided in it."""

    model: ModelProto
    decisions: list[Decision]

    @property
    def taken(self) -> dict[str, bool]:
        """Each trade's key, and whether it was made."""
        return {d.key: d.taken for d in self.decisions}


@dataclass(frozen=True)
class Trial:
    """One trial: the trades of `rule` at `keys` were made (`take`) or not, against the best so far.

    `ratio` is the measured cost of the trial over the best so far's; None where it could not be measured.
    """

    rule: str
    keys: tuple[str, ...]
    take: bool
    ratio: float | None
    kept: bool

    @property
    def is_idle(self) -> bool:
        """Whether it made no difference at all, so that no part of it will."""
        return self.ratio == 1.0


@dataclass(frozen=True)
class Tuning:
    """What was found: a verdict for each trade that was measured to win, all trials, and why the search ended."""

    meter: str
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    stop: str = "done"
    from_cache: bool = False


@dataclass(frozen=True)
class Group:
    """Trades of one rule to be turned round together."""

    rule: str
    keys: tuple[str, ...]
    take: bool

    def halves(self) -> tuple[Group, ...]:
        """Two parts, places next to each other staying together; none of a single place."""
        if len(self.keys) < 2:
            return ()
        middle = len(self.keys) // 2
        return tuple(Group(self.rule, keys, self.take) for keys in (self.keys[:middle], self.keys[middle:]))


def search(
    make: Callable[[Mapping[str, Verdict]], Made],
    meter: Meter,
    budget: Budget,
    progress: Progress = lambda done, total, text: None,
    fixed: frozenset[str] = frozenset(),
) -> Tuning:
    """Turns round what the cost model decided, a group at a time, and keeps what `meter` says wins.

    `make` runs the pipeline with the given verdicts. `fixed` names rules that are not to be tried. A group that does
    not win is tried by halves after all other groups; trades that come up on the way are tried too.
    """
    return _Search(make, meter, budget, progress, fixed).run()


@dataclass
class _Search:
    make: Callable[[Mapping[str, Verdict]], Made]
    meter: Meter
    budget: Budget
    progress: Progress
    fixed: frozenset[str]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def run(self) -> Tuning:
        started = time.monotonic()
        best = self.make({})
        queue = deque(self._groups(best.decisions))
        stop = "done"
        handle = self.meter.prepare(best.model) if queue else None
        while queue:
            if len(self.trials) >= self.budget.trials:
                stop = "trials"
                break
            if time.monotonic() - started >= self.budget.seconds:
                stop = "seconds"
                break
            group = queue.popleft()
            total = min(self.budget.trials, len(self.trials) + len(queue) + 1)
            self.progress(len(self.trials), total, f"{'with' if group.take else 'without'} {group.rule}")
            wanted = {**self.verdicts, **{key: Verdict(group.take, 1.0) for key in group.keys}}
            made = self.make(wanted)
            if made.taken == best.taken:
                continue
            kept = self._measure(group, made, handle)
            if kept is None:
                queue.extend(() if self.trials[-1].is_idle else group.halves())
            else:
                best, handle = made, kept
                queue.extend(self._groups(made.decisions))
        return Tuning(self.meter.name, self.verdicts, tuple(self.trials), stop)

    def _measure(self, group: Group, made: Made, best: object) -> object | None:
        """The candidate, prepared, when it wins; else None."""
        try:
            handle: object = self.meter.prepare(made.model)
            found = self.meter.compare(best, handle)
        except GraphoptError:  # the runtime does not take this candidate
            self.trials.append(Trial(group.rule, group.keys, group.take, None, False))
            return None
        self.trials.append(Trial(group.rule, group.keys, group.take, found.ratio, found.wins))
        if not found.wins:
            return None
        self.verdicts.update({key: Verdict(group.take, found.ratio) for key in group.keys})
        return handle

    def _groups(self, decisions: Iterable[Decision]) -> list[Group]:
        """Decisions not yet looked at, by rule and answer; those with the most time at stake first."""
        found: dict[tuple[str, bool], list[Decision]] = {}
        for decision in decisions:
            if decision.key not in self.seen and decision.rule not in self.fixed:
                self.seen.add(decision.key)
                found.setdefault((decision.rule, decision.taken), []).append(decision)
        ranked = sorted(found.items(), key=lambda item: -sum(abs(d.after - d.before) for d in item[1]))
        return [Group(rule, tuple(d.key for d in listed), not taken) for (rule, taken), listed in ranked]
