"""Harvested graphs on which ONNX Runtime ends its process: tests of what is not computed hold such graphs on purpose.

Run as a module with the folder and a place in its index, it runs the graphs from there on and prints each one's name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.fuzz.harvest import INDEX
from tests.fuzz.seeds import read


def deadly(folder: Path) -> list[str]:
    """Names of the graphs that a process which runs them does not outlive."""
    found: list[str] = []
    start = 0
    while True:
        command = [sys.executable, "-W", "ignore", "-m", __name__, str(folder), str(start)]
        trial = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
        if trial.returncode == 0:
            return found
        if not trial.stdout:
            raise RuntimeError(f"the trial of harvested graphs does not start: {trial.stderr[-2000:]}")
        tried = trial.stdout.split()
        found.append(tried[-1])
        start += len(tried)


def main(folder: Path, start: int) -> None:
    """Runs the graphs from that place on, as the fuzzer would."""
    names = list(json.loads((folder / INDEX).read_text(encoding="utf-8")))
    for name, seed in zip(names[start:], read(folder)[start:], strict=True):
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        for graph in (seed, *seed.in_other_types):
            _ = graph.results


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
