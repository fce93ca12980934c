"""The proof that a candidate may take the original's place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from graphopt.errors import InputsError
from graphopt.verify import checks
from graphopt.verify.comparison import compare
from graphopt.verify.execution import Execution, execute
from graphopt.verify.interface import declaration_problems, dims, interface_problems, overridable_inputs
from graphopt.verify.measure import Measure
from graphopt.verify.randomness import random_outputs
from graphopt.verify.ranges import infer_ranges
from graphopt.verify.samples import Inputs, Run, Sample, draw_samples, given_feeds
from graphopt.verify.source import AnyModel, Located, locate
from graphopt.verify.tolerance import Criterion, Tolerance
from graphopt.verify.values import names
from graphopt.verify.verification import OutputCheck, Verification


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
    if samples < 1:
        raise InputsError(f"At least one sample is needed to compare outputs, not {samples}.")
    before, after = locate(original), locate(candidate)
    proof = _Proof(before, after, tolerance)
    proof.check()
    proof.check_interface(fixed=shapes or {})
    if proof.problems:
        return proof.result("not run, since the candidate is not of the original's kind")
    given = None if inputs is None else given_feeds(before.proto, inputs)

    def make_samples(run: Run) -> list[Sample]:
        if given is not None:
            return [Sample(feeds, run(feeds)) for feeds in given]
        return draw_samples(run, before.proto, infer_ranges(before.proto), samples, seed, shapes or {})

    proof.check_outputs(make_samples, custom_op_libraries)
    return proof.result(proof.words("given" if given is not None else "random"))


@dataclass
class _Proof:
    before: Located
    after: Located
    tolerance: Criterion
    checks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    outputs: tuple[OutputCheck, ...] = ()
    execution: Execution | None = None

    def check(self) -> None:
        """The checker: at the level that the original passes."""
        strict = checks.passes_strictly(self.before)
        problem = checks.checker_problem(self.after, strict=strict)
        if problem is not None:
            own = checks.checker_problem(self.before, strict=False)
            if own is None:
                self.problems.append(f"The ONNX checker rejects the candidate: {problem}.")
            else:
                self.not_checked.append(f"The ONNX checker rejects the original itself: {own}.")
                return
        self.checks.append("checker")

    def check_interface(self, fixed: Mapping[str, Sequence[int]]) -> None:
        """The inputs and outputs, as declared."""
        self.checks.append("interface")
        self.problems.extend(interface_problems(self.before.proto, self.after.proto, fixed))

    def check_outputs(self, make_samples: Callable[[Run], list[Sample]], libraries: Sequence[str]) -> None:
        """The outputs, as computed."""
        self.execution = execute(self.before, self.after, make_samples, libraries)
        self.checks.append("outputs")
        if self.execution.failure:
            said = self.execution.failure.rstrip(".")
            self.problems.append(f"The candidate does not run on inputs that the original runs on: {said}.")
            return
        random = random_outputs(self.before.proto)
        comparison = compare(self.execution, self.tolerance, random, Measure(self.before))
        self.outputs = comparison.outputs
        self.problems.extend(comparison.problems)
        self.not_checked.extend(comparison.not_checked)
        self._check_declarations(self.execution)
        self._note_defaults(self.execution)

    def _check_declarations(self, execution: Execution) -> None:
        """A shape declared anew must be the computed one; a false one that the original declares too is its own."""
        for mine, their in zip(self.before.proto.graph.output, self.after.proto.graph.output, strict=True):
            if dims(mine) != dims(their):
                found = [
                    problem for run in execution.outputs for problem in declaration_problems(their, run[their.name])
                ]
                self.problems.extend(found[:1])

    def _note_defaults(self, execution: Execution) -> None:
        given = {name for sample in execution.samples for name in sample.feeds}
        kept = [value.name for value in overridable_inputs(self.before.proto) if value.name not in given]
        if kept:
            self.not_checked.append(f"Other values than the default were not tried for {names(kept)}.")

    def words(self, kind: str) -> str:
        """How the outputs were compared."""
        assert self.execution is not None
        count = len(self.execution.samples)
        return (
            f"{count} {kind} input{'s' if count > 1 else ''}, both models run by {self.execution.engine}, "
            f"{self.tolerance.words()}"
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
