"""Nothing leaves unproved: the optimized model is compared with the original, and a wrong rewrite is taken back.

When the outputs differ, the guilty application is found by bisection on the rewrite numbers (a run that stops after n
applications is right or wrong), excluded by its place, and the pipeline runs again. The method is LLVM's OptBisect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphopt.change import Application
from graphopt.engine import Run
from graphopt.errors import VerificationError
from graphopt.verification import Verification

# After so many guilty rewrites the model is left as it came: something is wrong that no exclusion mends.
MOST_WITHDRAWN = 16
# A rule that is guilty at so many places is not applied at all any more.
MOST_PLACES = 4

Optimize = Callable[[int | None, frozenset[str]], Run]
Check = Callable[[Run], Verification]
# (limit, excluded) of the run that ends with the guilty rewrite -> the path of its reproducer
Reproduce = Callable[[int, frozenset[str]], str | None]


@dataclass(frozen=True)
class Withdrawn:
    """A rewrite whose result was wrong and that is therefore not in the result."""

    rule: str
    at: str
    number: int
    problem: str
    reproducer: str | None = None


@dataclass(frozen=True)
class Proved:
    """A run whose result was compared with the original and matched."""

    run: Run
    verification: Verification
    withdrawn: tuple[Withdrawn, ...]


def prove(optimize: Optimize, check: Check, reproduce: Reproduce) -> Proved:
    """Runs `optimize` and takes guilty rewrites back until `check` passes.

    `optimize(limit, excluded)` runs the pipeline over a fresh import; limit 0 gives the untouched model, which `check`
    accepts. Raises what `check` raises (ExecutionError when the model cannot be executed), and VerificationError when
    the untouched model does not match itself.
    """
    withdrawn: list[Withdrawn] = []
    excluded: frozenset[str] = frozenset()
    while True:
        run = optimize(None, excluded)
        verification = check(run)
        if verification.passed:
            return Proved(run, verification, tuple(withdrawn))
        problem = verification.problems[0] if verification.problems else "the outputs differ"
        count = len(run.log.applications)
        if not count or len(withdrawn) >= MOST_WITHDRAWN:
            untouched = optimize(0, excluded)
            verification = check(untouched)
            if not verification.passed:
                raise VerificationError(
                    f"even the untouched model does not match itself ({problem}); optimize it with --no-verify, "
                    "or give inputs on which it is stable with --inputs."
                )
            return Proved(untouched, verification, tuple(withdrawn))
        guilty = find_guilty(optimize, check, excluded, run.log.applications)
        saved = reproduce(guilty.number, excluded)
        withdrawn.append(Withdrawn(guilty.rule, guilty.at, guilty.number, problem, saved))
        places = sum(w.rule == guilty.rule for w in withdrawn)
        excluded |= {guilty.key if places < MOST_PLACES else f"{guilty.rule}@*"}


def find_guilty(
    optimize: Optimize, check: Check, excluded: frozenset[str], applications: list[Application]
) -> Application:
    """The first application with which the result is wrong; `applications` are those of a run that is wrong."""
    right, wrong = 0, len(applications)
    while wrong - right > 1:
        middle = (right + wrong) // 2
        if check(optimize(middle, excluded)).passed:
            right = middle
        else:
            wrong = middle
    return applications[wrong - 1]
