"""What a rewrite did: applications, changes that await judgement, and the log of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from graphopt.graph import Node, Tensor
from graphopt.rule import Exactness, Rule


@dataclass(frozen=True)
class Application:
    """One rewrite that was applied: `number` counts from 1 and is stable as long as the ones before are the same."""

    number: int
    rule: str
    at: str  # label of the root node
    exactness: Exactness
    consumed: tuple[Node, ...]
    made: tuple[Node, ...]

    @property
    def key(self) -> str:
        """What excludes this application in another run: the rule and the place."""
        return f"{self.rule}@{self.at}"


@dataclass(frozen=True)
class Change:
    """A rewrite that is done but not yet accepted: what judges (the cost model, the checker) look at.

    `replaced` maps each tensor that was computed before to the one that its readers read now (often the same object
    with another producer). Consumed nodes still hold their inputs and outputs.
    """

    rule: Rule[Any]
    root: Node
    consumed: tuple[Node, ...]
    consumed_outputs: tuple[tuple[Tensor | None, ...], ...]  # of `consumed`, before their tensors moved
    made: tuple[Node, ...]
    replaced: dict[Tensor, Tensor]
    # nodes that stay but read other tensors now: what they read before
    rewired: dict[Node, tuple[Tensor | None, ...]]


# judges: None accepts; a sentence takes the change back and is the reason that the report gives
Judge = Callable[[Change], str | None]


@dataclass
class Log:
    """What one run did and did not do.

    Refusals map (rule, reason) to the nodes concerned, each once; of misses only that they were is noted.
    """

    applications: list[Application] = field(default_factory=list)
    refusals: dict[tuple[str, str], dict[Node, None]] = field(default_factory=dict)
    # of refusals that a newer opset would lift: the operator that it has, and since when
    newer: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    misses: dict[tuple[str, str], None] = field(default_factory=dict)
    stopped_at_limit: bool = False

    def refuse(self, rule: str, reason: str, node: Node) -> None:
        """Notes a refusal that the report shows."""
        self.refusals.setdefault((rule, reason), {})[node] = None
