"""Runs a command in a process of its own, under a time limit, and says how long it took and how much memory it held.

This module and its callers stay small on purpose: on Linux a child's peak memory starts at what its parent held when
it was forked, so that a parent with a model in memory would add that model to every figure.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import IO

POLL_SECONDS = 0.002
LAST_WORDS = 200  # characters of the error's last line that are kept
KIB = 1024  # ru_maxrss is in KiB on Linux
STACK = ("numpy", "onnx", "onnxruntime")  # what all tools stand on


@dataclass(frozen=True)
class Outcome:
    """How a process ended: "ok", "crash" or "timeout", wall and processor seconds, peak resident bytes, last words."""

    status: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str = ""
    problem: str = ""


def run_measured(command: Sequence[str], limit: float) -> Outcome:
    """Runs `command` with one thread a pool; kills it, with its children, after `limit` seconds."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            env=environment(),
        )
        late = False
        while True:
            ended, state, usage = os.wait4(process.pid, os.WNOHANG)
            seconds = time.perf_counter() - start
            if ended:
                break
            if seconds > limit and not late:
                os.killpg(process.pid, signal.SIGKILL)
                late = True
            time.sleep(POLL_SECONDS)
        code = process.returncode = os.waitstatus_to_exitcode(state)
        status = "timeout" if late else "ok" if code == 0 else "crash"
        problem = "" if status == "ok" else f"exit {code}: {_last_line(_read(errors))}"
        cpu = usage.ru_utime + usage.ru_stime
        return Outcome(status, seconds, cpu, usage.ru_maxrss * KIB, _read(output), problem)


def environment() -> dict[str, str]:
    """One thread a pool, and compiled modules kept: the tools that pip installed have theirs compiled already."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "OMP_NUM_THREADS": "1"}


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _last_line(text: str) -> str:
    """What an error says, without the traceback and its paths."""
    return (text.strip().splitlines() or [""])[-1][:LAST_WORDS]


def best_of(repeats: int, command: Sequence[str], limit: float) -> Outcome:
    """The least of each figure over several runs, for the machine's other work only adds; the first failure ends it."""
    best = run_measured(command, limit)
    for _ in range(repeats - 1):
        again = run_measured(command, limit) if best.status == "ok" else best
        if again.status != "ok":
            return again
        best = replace(
            best,
            seconds=min(best.seconds, again.seconds),
            cpu_seconds=min(best.cpu_seconds, again.cpu_seconds),
            peak_bytes=min(best.peak_bytes, again.peak_bytes),
        )
    return best


def describe_machine(packages: Sequence[str]) -> str:
    """One line: processors, system, its load over the last 15 minutes, Python, the packages' versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = f"load average {os.getloadavg()[2]:.1f}"
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    return f"{machine}, {load}, Python {platform.python_version()}, {versions}"
