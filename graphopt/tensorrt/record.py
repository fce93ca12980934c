"""What TensorRT says while it works: kept, never printed.

The builder's own listing of the finished engine is the one account of it that needs no GPU, so the record is also
where engine facts come from.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any

from graphopt.external import printable

_LONGEST = 240  # characters of a reason
_QUOTED = re.compile(r'&& "([^"]+)"')
_USAGE_ERROR = re.compile(r"Error Code \d+: [^(]*\((?:[\w.]+: )?(.*?)(?:\.? In \w+ at |\)$)")
_CODE = re.compile(r"[(&=<>]")
_LISTING = "Layers:"
_TOTALS = {"Total Activation Memory:": "activation_bytes", "Total Weights Memory:": "weights_bytes"}


@dataclass
class Record:
    """The messages of one parse and build that matter later.

    `listing` is TensorRT's text about the engine's layers (detailed profiling verbosity), the two totals are bytes;
    None is what TensorRT did not say. `odd_names` are names of inputs and outputs that would upset the listing's form,
    and what stands for them there.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    listing: str | None = None
    activation_bytes: int | None = None
    weights_bytes: int | None = None
    odd_names: dict[str, str] = field(default_factory=dict)

    def keep(self, text: str) -> None:
        """Keeps an information line when it is the layer list or one of the totals."""
        if text.startswith(_LISTING):
            for name, plain in self.odd_names.items():
                text = text.replace(name, plain)
            self.listing = text
            return
        for start, name in _TOTALS.items():
            if text.startswith(start):
                words = text[len(start) :].split()
                if words and words[0].isdecimal():
                    setattr(self, name, int(words[0]))

    def last_error(self) -> str:
        """The reason in the latest error, empty when there was none."""
        return plain_reason(self.errors[-1]) if self.errors else ""


def plain_reason(text: str) -> str:
    """The readable part of an error of TensorRT as one line; empty when there is none.

    An error is a failed assertion of C++ (`condition: reason`, `condition && "reason"`, or the condition alone), or a
    reason within source locations and error codes. What has another form is kept whole.
    """
    line = printable(" ".join(text.split()), limit=1000).rpartition("Assertion failed: ")[2]
    for form in (_QUOTED, _USAGE_ERROR):
        found = form.search(line)
        if found:
            return printable(found[1].rstrip("!. "), limit=_LONGEST)
    condition, colon, reason = line.partition(": ")
    if colon and _CODE.search(condition):
        line = reason
    return "" if line in ("false", "false.") else printable(line.rstrip("!. "), limit=_LONGEST)


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
