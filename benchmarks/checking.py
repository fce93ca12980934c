"""What checking each rewrite costs: `--verify each` against optimization plus the comparison of the whole model.

    python -m benchmarks.checking [--repeats 1] [MODEL ...]

Writes docs/benchmarks/checking.md. Processor time of `graphopt.optimize`, imports left out, each measurement in a
process of its own that is bound to one core; the least of the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import STACK, describe_machine, run_measured
from benchmarks.tables import median, number, table

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "build" / "models"
RESULT = ROOT / "docs" / "benchmarks" / "checking.md"
MODES = ("none", "model", "each")
LIMIT = 600.0  # seconds
TARGET = 3.0


@dataclass(frozen=True)
class Row:
    """Processor seconds of each mode on one model, None where it failed, and how many rewrites there were."""

    model: str
    seconds: dict[str, float | None]
    rewrites: int

    @property
    def ratio(self) -> float | None:
        """What each rewrite checked, and the whole compared, takes over the whole compared alone."""
        each, whole = self.seconds["each"], self.seconds["model"]
        return each / whole if each is not None and whole else None


def measure(path: Path, repeats: int) -> Row:
    """All modes on one model."""
    seconds: dict[str, float | None] = {}
    rewrites = 0
    for mode in MODES:
        found = [in_process(path, mode) for _ in range(repeats)]
        times = [each["seconds"] for each in found if each is not None]
        seconds[mode] = min(times) if len(times) == repeats else None
        rewrites = max([rewrites, *(int(each["rewrites"]) for each in found if each is not None)])
    return Row(path.stem, seconds, rewrites)


def in_process(path: Path, mode: str) -> dict[str, float] | None:
    """One measurement; None when the process failed."""
    outcome = run_measured([sys.executable, "-m", "benchmarks.checking", "--one", mode, str(path)], LIMIT)
    if outcome.status != "ok":
        return None
    found: dict[str, float] = json.loads(outcome.output.splitlines()[-1])
    return found


def measure_here(path: Path, mode: str) -> dict[str, float]:
    """One measurement in this process; what graphopt needs is imported before the clock starts."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import onnxruntime  # noqa: F401 - imported for its time
    from polygraphy.comparator import Comparator  # noqa: F401 - likewise

    import graphopt
    from graphopt.plugins import find_passes

    find_passes()
    start = time.process_time()
    result = graphopt.optimize(path, verify=mode)
    seconds = time.process_time() - start
    return {"seconds": seconds, "rewrites": sum(result.report.applied.values())}


def render(rows: Sequence[Row], machine: str) -> str:
    """The page."""
    ratios = [row.ratio for row in rows if row.ratio is not None]
    middle = median(ratios)
    failed = [row.model for row in rows if row.ratio is None]
    header = ["model", "rewrites", *(f"`--verify {mode}`, s" for mode in MODES), "each / model"]
    lines = [
        "# The cost of checking each rewrite",
        "",
        "Processor seconds of `graphopt.optimize` on one core, imports left out. `none` optimizes and checks validity,",
        "`model` (the default) compares the whole model's outputs too, `each` compares every rewrite besides.",
        f"Written by `python -m benchmarks.checking`; {machine}.",
        "",
        f"**Median of each / model over {len(ratios)} models: {number(middle)}** (target: at most {TARGET:g}; "
        f"worst {number(max(ratios, default=None))}).",
        "",
        table(header, [cells(row) for row in sorted(rows, key=lambda row: -(row.ratio or 0))]),
    ]
    if failed:
        lines += ["", f"Failed or took more than {LIMIT:g} s: {', '.join(failed)}."]
    return "\n".join(lines) + "\n"


def cells(row: Row) -> list[object]:
    """One line of the table."""
    return [row.model, row.rewrites, *(number(row.seconds[mode]) for mode in MODES), number(row.ratio)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="*", help="names of the zoo's models; default: all")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--one", choices=MODES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure_here(Path(given.models[0]), given.one)))
        return
    from models import zoo

    names = given.models or sorted(zoo.manifest())
    rows = []
    for name in names:
        rows.append(measure(zoo.materialise(name, MODELS), given.repeats))
        print(*cells(rows[-1]), flush=True)
    page = render(rows, describe_machine(STACK))
    if not given.models:
        RESULT.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
