"""Polygraphy's runners over the engines of `sessions`. Import inside functions: it imports Polygraphy."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.common import TensorMetadata
from polygraphy.logger import G_LOGGER

from graphopt.verification.sessions import Engine, OnnxRuntime


class EngineRunner(BaseRunner):  # type: ignore[misc]
    """Runs any `Engine` the way Polygraphy's own runners do; for what `OnnxrtRunner` cannot feed or fetch."""

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(name=name)
        self._engine = engine

    def activate_impl(self) -> None:
        """Nothing: the engine is ready."""

    def get_input_metadata_impl(self) -> Any:
        """No metadata: feeds are checked by the engine."""
        return TensorMetadata()

    def infer_impl(self, feed_dict: Any) -> Any:
        """Runs the engine once. Raises `Failed`."""
        start = time.perf_counter()
        outputs = OrderedDict(self._engine.run(feed_dict))
        self.inference_time = time.perf_counter() - start
        return outputs


def runner(engine: Engine, name: str) -> Any:
    """Polygraphy's runner for the engine: its own for ONNX Runtime, but with loops, whose runs are watched, where a run
    changes the session, and where inputs or outputs are no numeric tensors."""
    if isinstance(engine, OnnxRuntime) and engine.is_simple:
        return OnnxrtRunner(engine.session, name=name)
    return EngineRunner(engine, name)


@contextmanager
def quiet() -> Iterator[None]:
    """Polygraphy's logger writes to stdout; a library does not."""
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
        yield
