"""What a verification found: one value, for reports and JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OutputCheck:
    """What was found for one output over all samples.

    `type` is its type and shape in the first sample, `how` how it was compared: "equal" (bit for bit),
    "nearly equal" (within a few units in the last place), "float64" (its error against a float64 run of the
    original), "perturbed" (as that, with what rounding errors do to the original), "plain" (rtol and atol),
    "unmeasured" (a tolerance usual for the type, no float64 run being possible), "structure" (type and shape only).
    `worst`: the largest absolute difference. The errors are the largest absolute ones against the float64 run, None
    where it was not needed. `uncompared`: elements that rounding alone can flip, which were not compared.
    """

    name: str
    type: str
    passed: bool
    how: str
    worst: float = 0.0
    original_error: float | None = None
    candidate_error: float | None = None
    uncompared: int = 0


@dataclass(frozen=True)
class Verification:
    """What was proved, what was found wrong, and what was not checked. `dataclasses.asdict` of it is JSON.

    `checks`: the checks that ran ("checker", "interface", "outputs"). `how`: how, in one sentence. `problems`: what
    is wrong, one sentence each; empty if and only if `passed`. `not_checked`: what the proof leaves open, likewise.
    """

    passed: bool
    checks: tuple[str, ...]
    outputs: tuple[OutputCheck, ...]
    samples: int
    how: str
    problems: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()
