"""Rules: one rewrite each, as algebra with its conditions."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from graphopt.facts import Facts
from graphopt.graph import Node

if TYPE_CHECKING:
    from graphopt.rewrite import Rewriter

ANY = "*"  # the root of a rule that looks at every operator


class Exactness(str, Enum):
    """How the numbers of a rewrite's result compare with the original's."""

    EXACT = "exact"  # bit for bit
    REASSOCIATES = "reassociates"  # float rounding only
    LOSSY = "lossy"  # precision changes; never on by default


@dataclass(slots=True)  # not frozen: most answers are this one, and freezing triples what it takes to make it
class NoMatch:
    """The pattern is not here: why not, and at which node. Not to be changed."""

    reason: str
    node: Node


@dataclass(slots=True)
class Refused(NoMatch):
    """The pattern is here, but a condition says no. The report shows these."""


@dataclass(slots=True)
class NeedsOpset(Refused):
    """The pattern is one `operator` that the standard has from `opset` on, which is newer than the graph's."""

    operator: str
    opset: int


class RewriteRefusedError(Exception):
    """Raised inside `Rule.rewrite` when only the numbers show that it may not be done (a folded value overflows)."""


Found = TypeVar("Found")


class Rule(ABC, Generic[Found]):
    """One rewrite as algebra: pattern and guards in `match`, the replacement in `rewrite`.

    The docstring states the equation with shapes and dtypes, the opset range, the exactness and the source. `match` is
    pure and returns a frozen value with all that `rewrite` needs, or `NoMatch`. `rewrite` changes the graph through
    the Rewriter only. The name is the class name in kebab case.
    """

    roots: ClassVar[tuple[str, ...]]
    exactness: ClassVar[Exactness] = Exactness.EXACT
    # a rule that can lose: the cost model decides about each application
    trades: ClassVar[bool] = False
    # the equation needs finite numbers: 0 · ∞ is no 0, and a row that −∞ masks all over has no softmax
    needs_finite: ClassVar[bool] = False
    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__).lower()

    @abstractmethod
    def match(self, node: Node, facts: Facts) -> Found | NoMatch:
        """What the rewrite needs when the pattern is rooted at `node` and every guard holds, else why not."""

    @abstractmethod
    def rewrite(self, found: Found, edit: Rewriter) -> None:
        """Replaces what was found. May raise RewriteRefusedError; the change so far is then taken back."""
