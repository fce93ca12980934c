"""What all tests share: each rewrite checked, the zoo's models, drawn once and kept under build/, hypothesis' profiles.

The default profile draws the same few examples on every run; `--hypothesis-profile=fuzz` draws new ones, many.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, settings
from onnx import ModelProto

from models import zoo
from tests.support.checking import check_each_rewrite

ROOT = Path(__file__).parent.parent

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default", derandomize=True, max_examples=25, deadline=None, suppress_health_check=SLOW_IS_FINE
)
settings.register_profile("fuzz", max_examples=100_000, deadline=None, suppress_health_check=SLOW_IS_FINE)
settings.load_profile("default")


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell starts what it runs in the background with SIGINT ignored, which Python leaves so, its children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def each_rewrite_is_checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every run of a pipeline each rewrite is compared where it happens, however the result is proved.

    A wrong one fails the test. `unchecked` tests are about something else: rules that are wrong on purpose, time.
    """
    if request.node.get_closest_marker("unchecked") is None:
        check_each_rewrite(monkeypatch)


@pytest.fixture(scope="session")
def zoo_path() -> Callable[[str], Path]:
    """Gives the file of a zoo model with its weights."""
    return lambda name: zoo.materialise(name, ROOT / "build" / "models")


@pytest.fixture(scope="session")
def zoo_model(zoo_path: Callable[[str], Path]) -> Callable[[str], ModelProto]:
    """Gives a zoo model with its weights, a copy of the caller's own; none is held, together they are a gigabyte."""
    return lambda name: onnx.load(zoo_path(name))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Adds up what tests counted with `record_property`, so that what was left out is seen."""
    counts: dict[str, int] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name.startswith("count: ") and isinstance(value, int):
                counts[name] = counts.get(name, 0) + value
    for name, count in counts.items():
        terminalreporter.write_line(f"{name.removeprefix('count: ')}: {count}")
