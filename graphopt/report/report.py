"""The report as one JSON-able value. It computes nothing; `graphopt.report.build` fills it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from graphopt.cost import Decision
from graphopt.proof import Withdrawn


@dataclass(frozen=True)
class RuleCount:
    """How often a rule was applied in one pass."""

    rule: str
    count: int


@dataclass(frozen=True)
class PassSummary:
    """One pass: nodes before and after (Constant nodes not counted), seconds, rules applied."""

    name: str
    nodes_before: int
    nodes_after: int
    seconds: float
    stop: str
    rules: tuple[RuleCount, ...]


@dataclass(frozen=True)
class Refusal:
    """A pattern that was found but not rewritten: how often, why, and the first places.

    Where a newer opset has one operator for it, `operator` and `opset` say which, and since when.
    """

    rule: str
    reason: str
    count: int
    places: tuple[str, ...]
    operator: str = ""
    opset: int | None = None


@dataclass(frozen=True)
class Size:
    """How large a model is, and the time predicted for it. `flops` counts a multiply-add as two."""

    nodes: int
    parameters: int
    weight_bytes: int
    flops: int
    predicted_seconds: float
    peak_activation_bytes: int
    operators: dict[str, int]


@dataclass(frozen=True)
class Report:
    """What `optimize` did. `verification` says what was checked, and what was not."""

    model: str
    version: str
    target: str
    device: str
    pipeline: str
    before: Size
    after: Size
    passes: tuple[PassSummary, ...]
    refusals: tuple[Refusal, ...]
    decisions: tuple[Decision, ...]
    withdrawn: tuple[Withdrawn, ...]
    verification: dict[str, Any]
    # what was wrong with the file: mended, or left as it is
    tidied: tuple[str, ...] = ()
    tolerated: tuple[str, ...] = ()
    engine: dict[str, Any] | None = None
    tuning: dict[str, Any] | None = None

    @property
    def applied(self) -> dict[str, int]:
        """How often each rule was applied, over all passes."""
        counts: dict[str, int] = {}
        for step in self.passes:
            for rule in step.rules:
                counts[rule.rule] = counts.get(rule.rule, 0) + rule.count
        return counts

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, default=str)
