"""A process that forks a child for each hostile model, under limits on memory, processor time and time.

The ward imports what graphopt needs once, so that a child costs little; it never runs a model itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
MEMORY = 3 << 30  # bytes of address space: libraries take one and a half of it
SECONDS = 60  # limits that only what runs for ever should meet, on a busy machine too
TIMED_OUT = (signal.SIGALRM, signal.SIGXCPU)


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code, or minus the signal that killed it; what it wrote."""

    code: int
    out: str
    err: str

    @property
    def is_late(self) -> bool:
        """Whether it met the limit on time."""
        return -self.code in TIMED_OUT


class Ward:
    """Starts the process; `run` gives it one job after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.graphopt.hostile.ward"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, kind: str, **job: Any) -> Outcome:
        """`kind` is the name of one of the functions below; `job` are its arguments."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"kind": kind, "job": job}) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)


def command_line(arguments: list[str], folder: str = ".") -> int:
    """`graphopt ARGUMENTS` in `folder`; the exit code."""
    from graphopt.cli import run

    os.chdir(folder)
    return run(arguments)


def library(source: str, output: str, **settings: Any) -> int:
    """`graphopt.optimize` of a file, saved; 1 for an error of graphopt's, which is printed, 2 for any other."""
    import graphopt

    return _reported(lambda: graphopt.optimize(source, **settings).save(output))


def in_memory(case: str, output: str) -> int:
    """`graphopt.optimize` of a model that is built here, by a function of `tests.graphopt.hostile.deep`."""
    import graphopt
    from tests.graphopt.hostile import deep

    proto = getattr(deep, case)()
    return _reported(lambda: graphopt.optimize(proto).save(output))


def all_of(folder: str) -> int:
    """Optimizes every file of `folder`; prints how many were refused in one sentence and how many came out right."""
    import graphopt
    from graphopt.errors import GraphoptError

    refused = right = 0
    for path in sorted(Path(folder).iterdir()):
        try:
            graphopt.optimize(path).save(path.with_suffix(".out"))
            right += 1
        except GraphoptError:
            refused += 1
        except Exception:
            sys.stderr.write(f"{path.name}\n")
            raise
    sys.stdout.write(f"{refused} {right}\n")
    return 0


# what code of a model would have to do to be run, by Python's audit events
_SUSPICIOUS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class",
               "socket.connect", "urllib.Request")  # fmt: skip


def _audit(folder: str) -> None:
    """From now on says so when something is started, unpickled, fetched, or loaded from `folder`."""

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        loads = event in ("import", "ctypes.dlopen", "exec") and folder in str(arguments)
        opens = event == "open" and str(arguments[0]).startswith(folder) and str(arguments[0]).endswith((".py", ".so"))
        if event in _SUSPICIOUS or loads or opens:
            sys.stderr.write(f"AUDIT: {event} {arguments}\n")

    sys.addaudithook(see)


def audited(arguments: list[str], folder: str) -> int:
    """`graphopt ARGUMENTS` in `folder`; what it executes is printed."""
    _audit(folder)
    return command_line(arguments, folder)


def audited_import(folder: str) -> int:
    """Imports a module from `folder`, to see that the audit works."""
    _audit(folder)
    sys.path.insert(0, folder)
    importlib.import_module("evil")
    return 0


def killed_at(arguments: list[str], folder: str, step: int) -> int:
    """`graphopt ARGUMENTS`, killed before the file operation of that number in `folder`; 0 when there are fewer."""
    touched = 0

    def see(event: str, given: tuple[Any, ...]) -> None:
        nonlocal touched
        if not event.startswith(("open", "os.", "shutil.", "tempfile.")) or folder not in str(given):
            return
        if touched == step:
            os.kill(os.getpid(), signal.SIGKILL)
        touched += 1

    sys.addaudithook(see)
    return command_line(arguments)


def hungry() -> int:
    """Asks for more memory than the limit."""
    return len(bytearray(2 * MEMORY))


def endless() -> int:
    """Never ends by itself."""
    while True:
        pass


def _reported(work: Any) -> int:
    from graphopt.errors import GraphoptError

    try:
        work()
    except GraphoptError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


JOBS = {
    job.__name__: job
    for job in (command_line, library, in_memory, all_of, audited, audited_import, killed_at, hungry, endless)
}


def _child(kind: str, job: dict[str, Any], out: int, err: int) -> None:
    """What the forked process does; it never returns."""
    code = 2
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (job.pop("memory", MEMORY),) * 2)
        file_size = job.pop("file_size", None)
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        seconds = job.pop("seconds", SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        signal.alarm(2 * seconds)
        for name, value in job.pop("patches", {}).items():
            module, _, attribute = name.rpartition(".")
            setattr(importlib.import_module(module), attribute, value)
        code = JOBS[kind](**job)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _serve() -> None:
    import onnxruntime  # noqa: F401 - for the children
    from polygraphy.comparator import Comparator  # noqa: F401 - likewise

    import graphopt.cli.jobs
    import graphopt.plugins

    graphopt.plugins.find_passes()
    for line in sys.stdin:
        asked = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if pid == 0:
                _child(asked["kind"], asked["job"], out.fileno(), err.fileno())
            _, status = os.waitpid(pid, 0)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        outcome = {"code": os.waitstatus_to_exitcode(status), "out": texts[0], "err": texts[1]}
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
