"""What TensorRT says while it works: kept, never printed.

The builder's own listing of the finished engine is the one account of it that needs no GPU, so the record is also
where engine facts come from.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

_LISTING = "Layers:"
_TOTALS = {"Total Activation Memory:": "activation_bytes", "Total Weights Memory:": "weights_bytes"}


@dataclass
class Record:
    """The messages of one parse and build that matter later.

    `listing` is TensorRT's text about the engine's layers (detailed profiling verbosity), the two totals are bytes;
    None is what TensorRT did not say.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    listing: str | None = None
    activation_bytes: int | None = None
    weights_bytes: int | None = None

    def keep(self, text: str) -> None:
        """Keeps an information line when it is the layer list or one of the totals."""
        if text.startswith(_LISTING):
            self.listing = text
            return
        for start, name in _TOTALS.items():
            if text.startswith(start):
                words = text[len(start) :].split()
                if words and words[0].isdecimal():
                    setattr(self, name, int(words[0]))

    def last_error(self) -> str:
        """The latest error as one line, without TensorRT's own source locations; empty when there was none."""
        if not self.errors:
            return ""
        line = " ".join(self.errors[-1].split())
        return line.partition(" In ")[0].removeprefix("IBuilder::buildSerializedNetwork: ").rstrip("( ")


def logger_for(trt: Any, record: Record) -> Any:
    """A `trt.ILogger` that writes into `record` and nowhere else."""
    return _logger_class(trt)(record)


@functools.cache
def _logger_class(trt: Any) -> Any:
    """The subclass is made here because TensorRT is imported late."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self, record: Record) -> None:
            trt.ILogger.__init__(self)
            self.record = record

        def log(self, severity: Any, message: str) -> None:
            # called from C++ that forbids exceptions: nothing here may raise
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.record.errors.append(message)
            elif severity == trt.ILogger.WARNING:
                self.record.warnings.append(message)
            else:
                self.record.keep(message)

    return Logger
