"""Three ways to prove a result: the whole model compared, each rewrite compared as well, or validity alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from graphopt.change import Change, Judge
from graphopt.engine import Run, Source, run_pipeline
from graphopt.errors import ExecutionError
from graphopt.graph import export_model
from graphopt.instruments import Instrument
from graphopt.memory import check_executable
from graphopt.model import strict_problem, tolerant_problem
from graphopt.pipeline import Options, Pipeline
from graphopt.proof import Proved, Withdrawn, prove
from graphopt.rewrite_check import RewriteChecker
from graphopt.upgrade import UPGRADE
from graphopt.verification import Located, Tolerance, Verification, Verifier


class Mode(str, Enum):
    """What is proved: `model` compares the whole model, `each` every rewrite too, `none` checks validity only."""

    MODEL = "model"
    EACH = "each"
    NONE = "none"


@dataclass(frozen=True)
class Proving:
    """How outputs are compared; see `graphopt.verification.verify`.

    `reproducers` is the folder for what is found wrong, None for nowhere.
    """

    inputs: Any = None
    samples: int = 3
    seed: int = 0
    tolerance: Tolerance = field(default_factory=Tolerance)
    custom_op_libraries: Sequence[str] = ()
    reproducers: Path | None = None


@dataclass(frozen=True)
class Prover:
    """One job of `optimize`: a source, what is to be done with it, and how the result is compared."""

    source: Source
    pipeline: Pipeline
    options: Options
    how: Proving
    instruments: Sequence[Instrument] = ()

    def prove(self, mode: Mode) -> Proved:
        """Optimizes and proves. Raises ExecutionError when the outputs are to be compared and cannot be."""
        problem = self._problem_of_upgrade(mode) if self.source.opset is not None else None
        if problem is not None:
            proved = replace(self, source=self._own_opset).prove(mode)
            guilty = Withdrawn(UPGRADE, f"opset {self.source.opset}", 0, problem)
            return replace(proved, withdrawn=(guilty, *proved.withdrawn))
        return {Mode.MODEL: self.whole, Mode.EACH: self.each, Mode.NONE: self.valid}[mode]()

    @property
    def _own_opset(self) -> Source:
        """The model as it came, at its own opset."""
        return replace(self.source, opset=None)

    def _problem_of_upgrade(self, mode: Mode) -> str | None:
        """What is wrong with the model at the opset asked for, before any other rewrite; None when it is right."""
        upgraded = self._run(0, frozenset())
        if upgraded.model.upgraded is None:
            return None
        try:
            found = self._validity(upgraded) if mode is Mode.NONE else self._compare(upgraded)
        except ExecutionError:
            if mode is Mode.EACH:
                return "the whole model cannot be executed, so that its upgrade cannot be compared"
            raise
        return None if found.passed else found.problems[0]

    def whole(self) -> Proved:
        """The outputs of the whole model are compared."""
        return prove(self._run, self._compare, self._reproduce)

    def valid(self) -> Proved:
        """Only the result's validity is checked."""
        return prove(self._run, self._validity, lambda number, excluded: None)

    def each(self) -> Proved:
        """Every rewrite is compared where it happens, then the whole model.

        Where the whole cannot be executed, the proof of each rewrite stands for it, and a rewrite that cannot be
        checked on its own is taken back.
        """
        try:
            return self._each_and_whole()
        except ExecutionError as error:
            return self._each_alone(error)

    def _each_and_whole(self) -> Proved:
        checkers: list[RewriteChecker] = []

        def run(limit: int | None, excluded: frozenset[str]) -> Run:
            checkers.append(RewriteChecker(self.how.reproducers, seed=self.how.seed))
            return self._run(limit, excluded, [checkers[-1]])

        proved = prove(run, self._compare, self._reproduce)
        checker = checkers[-1]
        how = f"{proved.verification.how}; {_counted(checker)} before"
        return Proved(proved.run, replace(proved.verification, how=how), (*checker.withdrawn, *proved.withdrawn))

    def _each_alone(self, error: ExecutionError) -> Proved:
        checker = RewriteChecker(self.how.reproducers, strict=True, seed=self.how.seed)
        run = self._run(None, frozenset(), [checker])
        verification = self._validity(run)
        verification = replace(
            verification,
            checks=(*verification.checks, "rewrites"),
            how=f"{_counted(checker)}, which stands for the whole model",
            not_checked=(f"the whole model was not executed: {error}",),
        )
        return Proved(run, verification, tuple(checker.withdrawn))

    def _run(self, limit: int | None, excluded: frozenset[str], judges: Sequence[Judge] = ()) -> Run:
        return run_pipeline(
            self.source,
            self.pipeline,
            self.options,
            limit=limit,
            excluded=excluded,
            instruments=self.instruments,
            judges=judges,
        )

    @cached_property
    def _verifier(self) -> Verifier:
        """Runs the original once, however many candidates are compared with it."""
        return Verifier(
            Located(self.source.whole(), self.source.folder),
            inputs=self.how.inputs,
            samples=self.how.samples,
            seed=self.how.seed,
            tolerance=self.how.tolerance,
            custom_op_libraries=self.how.custom_op_libraries,
            shapes=self.source.shapes or None,
        )

    def _compare(self, made: Run) -> Verification:
        check_executable(made.model)
        try:
            return self._verified(made)
        except MemoryError:
            raise ExecutionError(
                "there is not enough memory to compare the outputs of the whole model; use --verify each, which "
                "compares every rewrite on its own, or --no-verify."
            ) from None

    def _verified(self, made: Run) -> Verification:
        return self._verifier.verify(Located(export_model(made.model), made.model.folder))

    def _validity(self, made: Run) -> Verification:
        """Whether the result is valid, shapes included if the model's were."""
        problem = strict_problem(made.model)
        if problem is not None and strict_problem(self._own_opset.open()) is not None:
            problem = tolerant_problem(made.model)  # its shapes contradicted each other before, or it has other flaws
        return Verification(
            passed=problem is None,
            checks=("checker",),
            outputs=(),
            samples=0,
            how="the ONNX checker only",
            problems=(problem,) if problem is not None else (),
            not_checked=("the outputs were not compared (verification was switched off)", *made.model.tolerated),
        )

    def _reproduce(self, number: int, excluded: frozenset[str]) -> str | None:
        """Saves what the guilty rewrite `number` consumed and made, where the two differ on their own."""
        if self.how.reproducers is None:
            return None
        checker = RewriteChecker(self.how.reproducers, seed=self.how.seed)
        seen = 0

        def only_last(change: Change) -> str | None:
            nonlocal seen
            seen += 1
            return checker(change) if seen == number else None

        self._run(number, excluded, [only_last])
        return next((w.reproducer for w in checker.withdrawn), None)


def _counted(checker: RewriteChecker) -> str:
    left = f", {len(checker.unchecked)} could not be checked on their own" if checker.unchecked else ""
    return f"{checker.checked} rewrites compared each on its own{left}"
