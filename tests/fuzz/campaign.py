"""A campaign: worker processes under a clock, what they found, and which rules they reached."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import onnx

from tests.fuzz import found
from tests.fuzz.inputs import Feeds
from tests.fuzz.oracle import Failure, Setting
from tests.fuzz.worker import SHRINK_SECONDS, work

MOST_MODELS = 2_000  # that one process examines
MODEL_SECONDS = 90.0  # wall time, on a machine that others may use too


@dataclass
class Tally:
    """What a campaign has seen so far."""

    models: int = 0
    compared: int = 0
    uncomparable: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)  # models in which each rule fired
    snippets: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)  # by key, every occurrence
    kinds: Counter[str] = field(default_factory=Counter)  # the same by kind
    less_accurate: Counter[str] = field(default_factory=Counter)  # by rule, what the proof took back for that alone
    saved: dict[str, Path] = field(default_factory=dict)
    first: dict[str, Failure] = field(default_factory=dict)

    def count(self, failure: Failure) -> None:
        """Takes one more failure into account."""
        self.failures[failure.key] += 1
        self.kinds[failure.kind] += 1
        self.first.setdefault(failure.key, failure)

    def rare(self, known: list[str], share: float = 0.01) -> list[str]:
        """Rules that fired in less than that share of the models."""
        return sorted((name for name in known if self.rules[name] < share * self.models), key=lambda n: self.rules[n])


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    scratch: Path
    number: int
    since: float
    limit: float = MODEL_SECONDS
    shrinking: bool = False
    models: int = 0


@dataclass
class Campaign:
    """Runs until the time is over or enough models are examined; what fails goes to `folder`, `graphs` is harvested."""

    seed: int
    jobs: int
    seconds: float
    models: int | None
    folder: Path
    graphs: Path
    show: Callable[[Tally], None]
    quick: bool = False
    ignored: frozenset[str] = frozenset()  # kinds of failures

    def run(self) -> Tally:
        tally, base = Tally(), Path(tempfile.mkdtemp(prefix="fuzz-"))
        end = time.monotonic() + self.seconds
        workers = [self._start(base, slot, slot) for slot in range(self.jobs)]
        try:
            while time.monotonic() < end and (self.models is None or tally.models < self.models):
                ready = wait([w.connection for w in workers], timeout=1.0)
                for slot, worker in enumerate(workers):
                    alive = worker.connection not in ready or self._receive(worker, tally)
                    if not alive or time.monotonic() - worker.since > worker.limit:
                        workers[slot] = self._replace(worker, tally, base, slot)
                    elif worker.models >= MOST_MODELS and not worker.shrinking:
                        workers[slot] = self._renew(worker, base, slot)
                self.show(tally)
            self._last_words(workers, tally)
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.join()
            shutil.rmtree(base, ignore_errors=True)
        return tally

    def _start(self, base: Path, slot: int, first: int) -> _Worker:
        scratch = Path(tempfile.mkdtemp(dir=base))
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=work,
            args=(theirs, self.seed, first, self.jobs, scratch, self.graphs, self.quick, self.ignored),
            daemon=True,
        )
        process.start()
        theirs.close()
        return _Worker(process, ours, scratch, first, time.monotonic(), 2 * MODEL_SECONDS)

    def _receive(self, worker: _Worker, tally: Tally) -> bool:
        """Takes one message; False when the process is gone."""
        try:
            kind, number, *rest = worker.connection.recv()
        except (EOFError, OSError):
            return False
        worker.number, worker.since = number, time.monotonic()
        worker.shrinking = kind == "shrinking"
        worker.limit = MODEL_SECONDS + (20 * SHRINK_SECONDS if worker.shrinking else 0)
        if kind == "done":
            outcome, snippets = rest
            tally.models += 1
            worker.models += 1
            tally.compared += outcome.compared
            tally.rules.update(set(outcome.fired))
            tally.snippets.update(snippets)
            tally.less_accurate.update(outcome.less_accurate)
            if outcome.uncomparable:
                tally.uncomparable[outcome.uncomparable[:120]] += 1
            for failure in outcome.failures:
                tally.count(failure)
        elif kind == "failure":
            failure, model, inputs, theme = rest
            origin = f"case {number}" + (f" around {theme}" if theme else "")
            self._save(tally, failure, onnx.load_model_from_string(model), inputs, origin)
        return True

    def _renew(self, worker: _Worker, base: Path, slot: int) -> _Worker:
        """Another process goes on: runtimes keep memory, and the process would meet its limit in the end."""
        worker.process.kill()
        worker.process.join()
        return self._start(base, slot, worker.number + self.jobs)

    def _replace(self, worker: _Worker, tally: Tally, base: Path, slot: int) -> _Worker:
        """After a death or a time-out: the model that did it is saved as it is, and another process goes on."""
        slow = time.monotonic() - worker.since > worker.limit
        worker.process.kill()
        worker.process.join()
        left = list(worker.scratch.glob("*.json"))
        case = f"case {worker.number} of seed {self.seed}"
        if left:
            saved = found.load(left[0])
            kind = "time-out" if slow else "died"
            failure = Failure(kind, Setting("every", "target"), case, kind)
            tally.count(failure)
            tally.models += 1
            self._save(tally, failure, saved.model, saved.feeds, f"case {worker.number}")
        elif not worker.shrinking:  # no model was drawn, and none can be saved
            tally.count(
                Failure("fuzzer", Setting("?", "?"), f"the process died or did not end in {case}", "drawing died")
            )
        return self._start(base, slot, worker.number + self.jobs)

    def _save(self, tally: Tally, failure: Failure, model: onnx.ModelProto, inputs: list[Feeds], origin: str) -> None:
        path = found.save(self.folder, model, inputs, failure, f"seed {self.seed}, {origin}")
        tally.saved[f"{failure.key} [{path.stem}]"] = path
        tally.first.setdefault(failure.key, failure)

    def _last_words(self, workers: list[_Worker], tally: Tally) -> None:
        """Failures that are being shrunk when the time is over are waited for."""
        for worker in workers:
            while worker.shrinking and time.monotonic() - worker.since < worker.limit:
                if worker.connection.poll(1.0) and not self._receive(worker, tally):
                    break
