"""Float64 runs of the original, made when a judgement first asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from graphopt.verification import rounding, source
from graphopt.verification.sessions import Engine, Failed, OnnxRuntime, Reference, Rejected
from graphopt.verification.source import Located
from graphopt.verification.values import Array, Feeds, Leaves, Value, is_float, leaves
from graphopt.verification.watch import has_loops
from graphopt.verification.widen import CannotWiden, widen

# Runs with rounding errors, at most: where results jump, and where they are smooth.
RUNS = 24
SMOOTH_RUNS = 3


class Measure:
    """The original in float64, as a measure for both models' errors.

    ONNX Runtime runs it where it has the float64 kernels (it has none for Conv), onnx.reference where not.
    """

    def __init__(self, original: Located, libraries: Sequence[str] = (), threads: int = 0) -> None:
        self._original = original
        self._libraries = libraries
        self._threads = threads
        self._measured: dict[int, Measured] = {}

    def on(self, feeds: Feeds) -> Measured:
        """What the measure gives on these inputs; nothing runs yet, and the same inputs are run once."""
        found = self._measured.setdefault(id(feeds), Measured(self, feeds))
        return found

    @cached_property
    def has_loops(self) -> bool:
        """Whether the original has a loop."""
        return has_loops(self._original.proto)

    @cached_property
    def runs(self) -> int:
        """How many runs with rounding errors are worth making."""
        return RUNS if rounding.jumps(self._original.proto) else SMOOTH_RUNS

    def exact(self, feeds: Feeds) -> Leaves | None:
        """The outputs' arrays of a float64 run; None where there is none."""
        return self._exact.run(feeds)

    def perturbed(self, feeds: Feeds) -> Iterator[Leaves]:
        """The outputs' arrays of float64 runs with rounding errors put in at random, other ones in each."""
        for _ in range(self.runs):
            found = self._perturbed.run(feeds)
            if found is None:
                return
            yield found

    @cached_property
    def _exact(self) -> _Wide:
        return self._made(widen)

    @cached_property
    def _perturbed(self) -> _Wide:
        return self._made(rounding.perturbed)

    def _made(self, make: Callable[[Located], onnx.ModelProto]) -> _Wide:
        try:
            proto = make(self._original)
        except CannotWiden:
            return _Wide([])
        model = Located(proto, self._original.folder)
        ways: list[Callable[[], Engine]] = [lambda: OnnxRuntime(model, self._libraries, self._threads)]
        if not source.foreign_operators(proto):
            ways.append(lambda: Reference(model))
        return _Wide(ways)


class _Wide:
    """A widened model, run by the first engine that does: ONNX Runtime finds out about some kernels only then."""

    def __init__(self, ways: list[Callable[[], Engine]]) -> None:
        self._ways = ways
        self._engine: Engine | None = None

    def run(self, feeds: Feeds) -> Leaves | None:
        """The outputs' arrays; None where no engine runs the model."""
        wide = {name: _wide(value) for name, value in feeds.items()}
        while self._ways:
            try:
                self._engine = self._engine or self._ways[0]()
                return leaves(self._engine.run(wide))
            except (Failed, Rejected):
                self._engine = None
                del self._ways[0]
        return None


def _wide(value: Value) -> Any:
    if isinstance(value, list):
        return [_wide(item) for item in value]
    if isinstance(value, np.ndarray) and is_float(value.dtype) and value.dtype.kind != "c" and value.dtype.itemsize > 1:
        return value.astype(np.float64)
    return value


class Measured:
    """The measure on one sample; each run is made at most once."""

    def __init__(self, measure: Measure, feeds: Feeds) -> None:
        self._measure = measure
        self._feeds = feeds
        self._exact: list[Leaves | None] = []
        self._perturbed: list[Leaves] = []
        self._more: Iterator[Leaves] | None = None

    def of(self, leaf: str) -> OutputEvidence:
        """The evidence about one output's array."""
        return OutputEvidence(self, leaf)

    @property
    def has_loops(self) -> bool:
        """Whether the original has a loop."""
        return self._measure.has_loops

    def exact(self, leaf: str) -> Array | None:
        """That array in a float64 run."""
        if not self._exact:
            self._exact.append(self._measure.exact(self._feeds))
        found = self._exact[0]
        return None if found is None else found.get(leaf)

    def perturbed(self, leaf: str) -> Iterator[Array]:
        """That array in float64 runs with rounding errors put in."""
        if self._more is None:
            self._more = self._measure.perturbed(self._feeds)
        for number in range(self._measure.runs):
            if number == len(self._perturbed):
                run = next(self._more, None)
                if run is None:
                    return
                self._perturbed.append(run)
            if leaf in self._perturbed[number]:
                yield self._perturbed[number][leaf]


@dataclass(frozen=True)
class OutputEvidence:
    """The `Evidence` about one array."""

    measured: Measured
    leaf: str

    @property
    def has_loops(self) -> bool:
        """Whether the original has a loop, which may collect nothing."""
        return self.measured.has_loops

    def exact(self) -> Array | None:
        """The array in a float64 run; None where there is none."""
        return self.measured.exact(self.leaf)

    def perturbed(self) -> Iterator[Array]:
        """The array in float64 runs with rounding errors put in at random."""
        return self.measured.perturbed(self.leaf)
