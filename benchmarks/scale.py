"""Time and memory against size, graphopt beside its peers, on models that grow.

    python -m benchmarks.scale [FAMILY ...] [--sizes 1000 20000] [--tools graphopt onnxsim] [--limit 300]

Writes scale.json, scale.md and one SVG a family into docs/benchmarks. Every tool runs in a process of its own; times
and memory are those of the whole process, load and save included. A tool that fails at one size is not tried at
larger ones of that family.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.plot import chart
from benchmarks.process import STACK, Outcome, best_of, describe_machine, run_measured
from benchmarks.tables import number, table
from benchmarks.tool import PEERS, TOOLS

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "build" / "scale"
FAMILIES = ("chain", "fan", "sibling-fan", "grid", "shape-arithmetic", "branches", "transformer")
SIZES = (1_000, 5_000, 20_000, 200_000)
MAKE_LIMIT = 600.0  # seconds
MIB = 1024 * 1024


@dataclass(frozen=True)
class Point:
    """One tool on one model. `nodes` is what it left, None without a result."""

    family: str
    size: int
    tool: str
    status: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    nodes: int | None
    problem: str = ""


def measure_family(family: str, sizes: Sequence[int], tools: Sequence[str], repeats: int, limit: float) -> list[Point]:
    """Every tool at every size, the smallest first, up to its first failure."""
    points: list[Point] = []
    running = list(tools)
    for size in sorted(sizes):
        source = make(family, size)
        made = [measure(family, size, tool, source, repeats, limit) for tool in running]
        running = [point.tool for point in made if point.status == "ok"]
        points += made
    return points


def make(family: str, size: int) -> Path:
    """The model's path; it is made in a process of its own, for the sake of the memory figures."""
    command = ["-m", "benchmarks.scale_models", family, str(size), "--folder", str(MODELS)]
    outcome = run_measured([sys.executable, *command], MAKE_LIMIT)
    if outcome.status != "ok":
        sys.exit(f"cannot make {family} with {size} nodes: {outcome.problem}")
    return Path(outcome.output.strip())


def measure(family: str, size: int, tool: str, source: Path, repeats: int, limit: float) -> Point:
    """One tool on one model."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.onnx"
        outcome = best_of(repeats, [sys.executable, "-m", "benchmarks.tool", tool, str(source), str(result)], limit)
        nodes = count(result) if outcome.status == "ok" else None
    print(
        f"{family} {size}: {tool} {outcome.status} {outcome.seconds:.2f} s, {nodes} nodes", file=sys.stderr, flush=True
    )
    return point(family, size, tool, outcome, nodes)


def point(family: str, size: int, tool: str, outcome: Outcome, nodes: int | None) -> Point:
    """The outcome with what it belongs to."""
    cost = (outcome.seconds, outcome.cpu_seconds, outcome.peak_bytes)
    return Point(family, size, tool, outcome.status, *cost, nodes, outcome.problem)


def count(result: Path) -> int | None:
    """The nodes that the result has, None when there is none to read."""
    judged = run_measured([sys.executable, "-m", "benchmarks.judge", str(result)], MAKE_LIMIT)
    return int(json.loads(judged.output)["nodes"]) if judged.status == "ok" else None


def read_points(path: Path) -> list[Point]:
    """The figures of an earlier run, none where there was no run."""
    if not path.exists():
        return []
    return [Point(**each) for each in json.loads(path.read_text(encoding="utf-8"))["points"]]


def joined(old: Sequence[Point], new: Sequence[Point]) -> list[Point]:
    """Both, in the order of the families and sizes; a new figure replaces an old one."""
    found = {(each.family, each.size, each.tool): each for each in (*old, *new)}
    return sorted(
        found.values(), key=lambda each: (FAMILIES.index(each.family), each.size, list(TOOLS).index(each.tool))
    )


def render(points: Sequence[Point], machine: str, repeats: int, limit: float) -> str:
    """The page: a table of time, memory and nodes for each family, and its plot."""
    parts = [
        "# Time and memory against size",
        f"Written by `make bench-scale`; do not edit. {machine}.",
        "Each cell: processor seconds of the whole process / peak resident memory in MiB / nodes left; the least of "
        f"{repeats}.\nImports, load and save are included, output checks are off, each tool has one thread and "
        f"{limit:.0f} s by the clock. A tool that\nfails at one size is not tried at larger ones. Processor time is "
        "what the clock shows on an idle machine; other work\non the machine does not add to it.",
    ]
    for family in dict.fromkeys(each.family for each in points):
        parts += [f"## {family}", family_table([each for each in points if each.family == family])]
        parts.append(f"![seconds against nodes](scale-{family}.svg)")
    crashes = [f"- {p.tool} on {p.family}, {p.size:,}: {p.problem}" for p in points if p.status == "crash"]
    if crashes:
        parts += ["## Crashes", "\n".join(crashes)]
    return "\n\n".join(parts) + "\n"


def family_table(points: Sequence[Point]) -> str:
    """Tools across, sizes down."""
    tools = list(dict.fromkeys(each.tool for each in points))
    cells = {(each.size, each.tool): each for each in points}
    rows = [[f"{size:,}", *(cell(cells.get((size, tool))) for tool in tools)] for size in sizes_of(points)]
    return table(["nodes", *tools], rows)


def sizes_of(points: Sequence[Point]) -> list[int]:
    """The sizes measured, ascending."""
    return sorted({each.size for each in points})


def cell(found: Point | None) -> str:
    """One cell of the table."""
    if found is None:
        return "-"
    if found.status != "ok":
        return found.status
    nodes = found.nodes if found.nodes is not None else "?"
    return f"{number(found.cpu_seconds)} / {found.peak_bytes / MIB:,.0f} / {nodes}"


def plot(family: str, points: Sequence[Point]) -> str:
    """Processor seconds against nodes, a line a tool."""
    series = {
        tool: [(float(each.size), each.cpu_seconds) for each in points if each.tool == tool and each.status == "ok"]
        for tool in dict.fromkeys(each.tool for each in points)
    }
    return chart(f"{family}: processor seconds of the whole process", "nodes", "seconds", series)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description="Time and memory against size.")
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"any of: {', '.join(FAMILIES)} (default: all)")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="nodes (default: %(default)s)")
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS), help="default: all")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, the least counts (default: 1)")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one run (default: 300)")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "benchmarks", help="where to write")
    parser.add_argument("--add", action="store_true", help="keep the figures in the folder that are not measured anew")
    wanted = parser.parse_args(arguments)
    if unknown := set(wanted.families) - set(FAMILIES):
        parser.error(f"no such family: {', '.join(sorted(unknown))}")
    return wanted


def main() -> None:
    """Measures, writes the page, its plots and its figures, and prints the page."""
    wanted = parse()
    points: list[Point] = []
    for family in wanted.families or FAMILIES:
        points += measure_family(family, wanted.sizes, wanted.tools, wanted.repeats, wanted.limit)
    if wanted.add:
        points = joined(read_points(wanted.folder / "scale.json"), points)
    machine = describe_machine([*STACK, *(peer for peer in PEERS if peer not in STACK)])
    text = render(points, machine, wanted.repeats, wanted.limit)
    wanted.folder.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine, "limit": wanted.limit, "points": [asdict(each) for each in points]}
    (wanted.folder / "scale.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (wanted.folder / "scale.md").write_text(text, encoding="utf-8")
    for family in dict.fromkeys(each.family for each in points):
        drawn = plot(family, [each for each in points if each.family == family])
        (wanted.folder / f"scale-{family}.svg").write_text(drawn, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
