"""The proof that a candidate may take the original's place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from graphopt.errors import InputsError
from graphopt.verification.checks import checker_problem, passes_strictly, tolerant_problem
from graphopt.verification.comparison import Comparison, compare
from graphopt.verification.execution import Execution, Original, once_more
from graphopt.verification.interface import declaration_problems, dims, interface_problems, overridable_inputs
from graphopt.verification.measure import Measure
from graphopt.verification.randomness import random_outputs
from graphopt.verification.ranges import infer_ranges
from graphopt.verification.samples import Inputs, Run, Sample, draw_samples, given_feeds
from graphopt.verification.source import AnyModel, Located, locate
from graphopt.verification.tolerance import Criterion, Tolerance
from graphopt.verification.values import names
from graphopt.verification.verification import OutputCheck, Verification

_RERUNS = 2  # of an original that may differ from itself


def verify(
    original: AnyModel,
    candidate: AnyModel,
    *,
    inputs: Inputs | None = None,
    samples: int = 3,
    seed: int = 0,
    tolerance: Criterion = Tolerance(),  # noqa: B008 - frozen
    custom_op_libraries: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Verification:
    """Whether the candidate is valid, has the original's interface and gives the original's outputs.

    A model is a `ModelProto`, a path, or a `Located` (a `ModelProto` whose external data lies in a folder). Outputs
    are compared on `inputs` (a `.npz` file, a mapping of arrays by input name, or a list of mappings), else on
    `samples` random ones drawn by `seed` in the ranges that the original takes. `shapes` fixes the shapes of inputs
    by name; the candidate may be fixed to them. Neither model is changed.

    Raises `ModelError` when a path holds no model, `InputsError` or `ShapeError` when what is given does not fit the
    original, `ExecutionError` when the original cannot be run. That the candidate is wrong is never raised.
    """
    verifier = Verifier(
        original,
        inputs=inputs,
        samples=samples,
        seed=seed,
        tolerance=tolerance,
        custom_op_libraries=custom_op_libraries,
        shapes=shapes,
    )
    return verifier.verify(candidate)


class Verifier:
    """An original with which any number of candidates are compared; it is run once for all of them.

    The parameters are those of `verify`. Keep it only as long as the original does not change.
    """

    def __init__(
        self,
        original: AnyModel,
        *,
        inputs: Inputs | None = None,
        samples: int = 3,
        seed: int = 0,
        tolerance: Criterion = Tolerance(),  # noqa: B008 - frozen
        custom_op_libraries: Sequence[str] = (),
        shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        if samples < 1:
            raise InputsError(f"At least one sample is needed to compare outputs, not {samples}.")
        self.model = locate(original)
        self.tolerance = tolerance
        self.shapes = dict(shapes or {})
        self.given = None if inputs is None else given_feeds(self.model.proto, inputs)
        self._count, self._seed = samples, seed
        self.original = Original(self.model, self._make_samples, custom_op_libraries)
        self.measure = Measure(self.model, custom_op_libraries)

    def verify(self, candidate: AnyModel) -> Verification:
        """Whether the candidate may take the original's place; see `verify` for what is raised."""
        proof = _Proof(self, locate(candidate))
        proof.check()
        proof.check_interface()
        if proof.problems:
            return proof.result("not run, since the candidate is not of the original's kind")
        proof.check_outputs()
        return proof.result(proof.words())

    @cached_property
    def is_strict(self) -> bool:
        """Whether the original passes the checker's full check."""
        return passes_strictly(self.model)

    @cached_property
    def own_problem(self) -> str | None:
        """What the checker says against the original."""
        return checker_problem(self.model, strict=False)

    @cached_property
    def tolerant_problem(self) -> str | None:
        """What the checker says against the original, tolerated flaws apart."""
        return tolerant_problem(self.model)

    @cached_property
    def random(self) -> set[str]:
        """The outputs that are drawn at random."""
        return random_outputs(self.model.proto)

    def _make_samples(self, run: Run) -> list[Sample]:
        if self.given is not None:
            return [Sample(feeds, run(feeds)) for feeds in self.given]
        ranges = infer_ranges(self.model.proto)
        return draw_samples(run, self.model.proto, ranges, self._count, self._seed, self.shapes)


@dataclass
class _Proof:
    verifier: Verifier
    after: Located
    checks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    outputs: tuple[OutputCheck, ...] = ()
    execution: Execution | None = None

    @property
    def before(self) -> Located:
        return self.verifier.model

    def check(self) -> None:
        """The checker: at the level that the original passes."""
        problem = checker_problem(self.after, strict=self.verifier.is_strict)
        if problem is None:
            self.checks.append("checker")
        elif self.verifier.own_problem is None:
            self.checks.append("checker")
            self.problems.append(f"The ONNX checker rejects the candidate: {problem}.")
        else:
            self._check_flaws()

    def _check_flaws(self) -> None:
        """The checker rejects both: the candidate must have no flaw but those of the original."""
        problem = tolerant_problem(self.after)
        if problem is not None and self.verifier.tolerant_problem is None:
            self.checks.append("checker")
            self.problems.append(f"The ONNX checker rejects the candidate: {problem}.")
        else:
            said = (self.verifier.own_problem or "").rstrip(".")
            self.not_checked.append(f"The ONNX checker rejects the original itself: {said}.")

    def check_interface(self) -> None:
        """The inputs and outputs, as declared."""
        self.checks.append("interface")
        self.problems.extend(interface_problems(self.before.proto, self.after.proto, self.verifier.shapes))

    def check_outputs(self) -> None:
        """The outputs, as computed."""
        self.execution = self.verifier.original.run_with(self.after)
        self.checks.append("outputs")
        if self.execution.failure:
            said = self.execution.failure.rstrip(".")
            self.problems.append(f"The candidate does not run on inputs that the original runs on: {said}.")
            return
        comparison = self._compare(self.execution, self.verifier.random)
        if comparison.problems:
            unsteady = self._unsteady(self.execution)
            if unsteady:
                comparison = self._compare(self.execution, self.verifier.random | unsteady)
        self.outputs = comparison.outputs
        self.problems.extend(comparison.problems)
        self.not_checked.extend(comparison.not_checked)
        if not self.outputs:
            self.not_checked.append("The model has no outputs, so that there was nothing to compare.")
        self._check_declarations(self.execution)
        self._note_defaults(self.execution)

    def _compare(self, execution: Execution, random: set[str]) -> Comparison:
        return compare(execution, self.verifier.tolerance, random, self.verifier.measure)

    def _unsteady(self, execution: Execution) -> set[str]:
        """The outputs in which the original, run once more, differs from itself: random in a way unknown here."""
        unsteady: set[str] = set()
        for _ in range(_RERUNS):
            again = once_more(self.before, execution)
            if not again.failure:
                found = self._compare(again, self.verifier.random | unsteady)
                unsteady |= {output.name for output in found.outputs if not output.passed}
        return unsteady

    def _check_declarations(self, execution: Execution) -> None:
        """A shape declared anew must be the computed one; a false one that the original declares too is its own."""
        for mine, their in zip(self.before.proto.graph.output, self.after.proto.graph.output, strict=True):
            if dims(mine) != dims(their):
                found = [text for run in execution.outputs for text in declaration_problems(their, run[their.name])]
                self.problems.extend(found[:1])

    def _note_defaults(self, execution: Execution) -> None:
        given = {name for sample in execution.samples for name in sample.feeds}
        kept = [value.name for value in overridable_inputs(self.before.proto) if value.name not in given]
        if kept:
            self.not_checked.append(f"Other values than the default were not tried for {names(kept)}.")

    def words(self) -> str:
        """How the outputs were compared."""
        assert self.execution is not None
        count = len(self.execution.samples)
        kind = "random" if self.verifier.given is None else "given"
        return (
            f"{count} {kind} input{'s' if count > 1 else ''}, both models run by {self.execution.engine}, "
            f"{self.verifier.tolerance.words()}"
        )

    def result(self, how: str) -> Verification:
        """What was found."""
        return Verification(
            passed=not self.problems,
            checks=tuple(self.checks),
            outputs=self.outputs,
            samples=len(self.execution.samples) if self.execution else 0,
            how=how,
            problems=tuple(self.problems),
            not_checked=tuple(self.not_checked),
        )
