"""The terminal: consoles, and a status line for what takes long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from rich.console import Console
from rich.text import Text

from graphopt.external import printable
from graphopt.graph import Model
from graphopt.instruments import PassRecord


@cache
def screen() -> Console:
    """Where results go: standard output."""
    return Console()


def errors() -> Console:
    """Where errors and progress go: standard error."""
    return Console(stderr=True)


BAR = 24  # characters


class Progress:
    """An instrument that shows the pass that runs, on a terminal only."""

    def __init__(self, console: Console) -> None:
        self.status = console.status("reading")

    def before(self, record: PassRecord, model: Model) -> None:
        """Shows the pass."""
        self.status.update(Text(f"pass {record.number + 1}: {record.text}, {record.nodes_before} nodes"))

    def after(self, record: PassRecord, model: Model) -> None:
        """Shows that what follows is the next step."""
        self.status.update("comparing outputs")

    def tuning(self, done: int, total: int, text: str) -> None:
        """Shows how far the measuring of trades is."""
        self.status.update(Text(f"measuring {bar(done, total)} {done}/{total}: {printable(text)}"))

    def saving(self, done: int, total: int) -> None:
        """Shows how much of the weights is written, in bytes."""
        self.status.update(f"writing weights {bar(done, total)} {done / 1e9:.1f}/{total / 1e9:.1f} GB")


def bar(done: int, total: int) -> str:
    """A bar that is filled as far as `done` is of `total`."""
    filled = round(BAR * done / max(1, total))
    return f"{'━' * filled}{'─' * (BAR - filled)}"


@contextmanager
def progress() -> Iterator[Progress]:
    """A status line while the block runs."""
    shown = Progress(errors())
    with shown.status:
        yield shown
