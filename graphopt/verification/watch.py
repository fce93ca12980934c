"""Ending a run that would take for ever, or all memory: only a loop can, and ONNX Runtime can be told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx

from graphopt.memory import available_bytes
from graphopt.verification import source

# Seconds that one run of a model with loops may take.
MOST_SECONDS = 300.0
# Free memory below which a run with loops is ended: the system would end the whole process soon.
LEAST_FREE_BYTES = 1 << 29
POLL_SECONDS = 0.05

LOOPS = ("Loop", "Scan")


def has_loops(proto: onnx.ModelProto) -> bool:
    """Whether a run's time is not bounded by the number of nodes."""
    return any(node.op_type in LOOPS for node in source.nodes(proto))


@contextmanager
def watched(seconds: float) -> Iterator[tuple[Any, list[str]]]:
    """Run options that end the run after `seconds`, or when memory is short, and why it was ended: empty if not."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    reasons: list[str] = []
    done = threading.Event()

    def watch() -> None:
        end = time.monotonic() + seconds
        while not done.wait(POLL_SECONDS):
            free = available_bytes()
            if time.monotonic() > end:
                reasons.append(f"it took longer than {seconds:g} seconds")
            elif free is not None and free < LEAST_FREE_BYTES:
                reasons.append("it took all memory")
            if reasons:
                options.terminate = True
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield options, reasons
    finally:
        done.set()
        thread.join()
