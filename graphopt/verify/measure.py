"""Float64 runs of the original, made when a judgement first asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.verify.source import Located
from graphopt.verify.values import Array, Feeds, Leaves


class Measure:
    """The original in float64, as a measure for both models' errors."""

    def __init__(self, original: Located) -> None:
        self._original = original

    def on(self, feeds: Feeds) -> Measured:
        """What the measure gives on these inputs; nothing runs yet."""
        return Measured(self, feeds)

    def exact(self, feeds: Feeds) -> Leaves | None:
        """The outputs' arrays of a float64 run; None where there is none."""
        return None

    def perturbed(self, feeds: Feeds) -> list[Leaves]:
        """The outputs' arrays of float64 runs with rounding errors put in at random."""
        return []


class Measured:
    """The measure on one sample; each run is made at most once."""

    def __init__(self, measure: Measure, feeds: Feeds) -> None:
        self._measure = measure
        self._feeds = feeds
        self._exact: list[Leaves | None] | None = None
        self._perturbed: list[Leaves] | None = None

    def of(self, leaf: str) -> OutputEvidence:
        """The evidence about one output's array."""
        return OutputEvidence(self, leaf)

    def exact(self, leaf: str) -> Array | None:
        """That array in a float64 run."""
        if self._exact is None:
            self._exact = [self._measure.exact(self._feeds)]
        found = self._exact[0]
        return None if found is None else found.get(leaf)

    def perturbed(self, leaf: str) -> Sequence[Array]:
        """That array in float64 runs with rounding errors put in."""
        if self._perturbed is None:
            self._perturbed = self._measure.perturbed(self._feeds)
        return [run[leaf] for run in self._perturbed if leaf in run]


@dataclass(frozen=True)
class OutputEvidence:
    """The `Evidence` about one array."""

    measured: Measured
    leaf: str

    def exact(self) -> Array | None:
        """The array in a float64 run; None where there is none."""
        return self.measured.exact(self.leaf)

    def perturbed(self) -> Sequence[Array]:
        """The array in float64 runs with rounding errors put in at random."""
        return self.measured.perturbed(self.leaf)
