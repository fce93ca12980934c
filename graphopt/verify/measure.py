"""Float64 runs of the original, made when a judgement first asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from graphopt.verify import rounding, source
from graphopt.verify.rounding import reseed
from graphopt.verify.sessions import Engine, Failed, OnnxRuntime, Reference, Rejected
from graphopt.verify.source import Located
from graphopt.verify.values import Array, Feeds, Leaves, Value, is_float, leaves
from graphopt.verify.widen import CannotWiden, widen

RUNS = 4  # with rounding errors


class Measure:
    """The original in float64, as a measure for both models' errors.

    ONNX Runtime runs it where it has the float64 kernels (it has none for Conv), onnx.reference where not.
    """

    def __init__(self, original: Located, libraries: Sequence[str] = (), threads: int = 0) -> None:
        self._original = original
        self._libraries = libraries
        self._threads = threads
        self._engine: list[Engine | None] = []
        self._measured: dict[int, Measured] = {}

    def on(self, feeds: Feeds) -> Measured:
        """What the measure gives on these inputs; nothing runs yet, and the same inputs are run once."""
        found = self._measured.setdefault(id(feeds), Measured(self, feeds))
        return found

    def exact(self, feeds: Feeds) -> Leaves | None:
        """The outputs' arrays of a float64 run; None where there is none."""
        if not self._engine:
            try:
                self._engine.append(self._open(widen(self._original)))
            except CannotWiden:
                self._engine.append(None)
        engine = self._engine[0]
        return None if engine is None else self._run(engine, feeds)

    def perturbed(self, feeds: Feeds) -> Iterator[Leaves]:
        """The outputs' arrays of float64 runs with rounding errors put in at random."""
        try:
            proto = rounding.perturbed(self._original)
        except CannotWiden:
            return
        for seed in range(RUNS):
            reseed(proto, seed)
            engine = self._open(proto)
            found = None if engine is None else self._run(engine, feeds)
            if found is None:
                return
            yield found

    def _open(self, proto: onnx.ModelProto) -> Engine | None:
        model = Located(proto, self._original.folder)
        try:
            return OnnxRuntime(model, self._libraries, self._threads)
        except Rejected:
            if source.foreign_operators(proto):
                return None
        try:
            return Reference(model)
        except Rejected:
            return None

    def _run(self, engine: Engine, feeds: Feeds) -> Leaves | None:
        wide = {name: _wide(value) for name, value in feeds.items()}
        try:
            return leaves(engine.run(wide))
        except Failed:
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
        self._perturbed: list[Leaves] | None = None

    def of(self, leaf: str) -> OutputEvidence:
        """The evidence about one output's array."""
        return OutputEvidence(self, leaf)

    def exact(self, leaf: str) -> Array | None:
        """That array in a float64 run."""
        if not self._exact:
            self._exact.append(self._measure.exact(self._feeds))
        found = self._exact[0]
        return None if found is None else found.get(leaf)

    def perturbed(self, leaf: str) -> Sequence[Array]:
        """That array in float64 runs with rounding errors put in."""
        if self._perturbed is None:
            self._perturbed = list(self._measure.perturbed(self._feeds))
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
