"""graphopt beside its peers on every model of the zoo: nodes, time, memory, and whether the result is right.

    python -m benchmarks.peers [NAME ...] [--repeats 3] [--limit 300] [--folder docs/benchmarks]

Writes peers.json and peers.md. Every tool runs in a process of its own; times and memory are those of the whole
process, from start to exit, imports, load and save included, the tool's own check of outputs off.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.peers_report import render
from benchmarks.process import STACK, best_of, describe_machine, run_measured
from benchmarks.tool import PEERS, TOOLS

ROOT = Path(__file__).parent.parent
MANIFEST = ROOT / "models" / "manifest.json"
MODELS = ROOT / "build" / "models"
JUDGE_LIMIT = 600.0  # seconds


@dataclass(frozen=True)
class Attempt:
    """One tool on one model. `status` is "ok", "crash", "timeout" or "wrong"; without a result, nodes are None."""

    status: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    nodes: int | None = None
    foreign: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is a right result in standard operators, so that its nodes may be compared."""
        return self.status == "ok" and not self.foreign


@dataclass(frozen=True)
class Row:
    """One model: its nodes before, and each tool's attempt."""

    model: str
    nodes: int
    attempts: dict[str, Attempt]


def attempt(tool: str, name: str, repeats: int, limit: float) -> Attempt:
    """Runs and judges one tool on one model."""
    source = MODELS / f"{name}.onnx"
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.onnx"
        outcome = best_of(repeats, [sys.executable, "-m", "benchmarks.tool", tool, str(source), str(result)], limit)
        cost = (outcome.seconds, outcome.cpu_seconds, outcome.peak_bytes)
        if outcome.status != "ok":
            return Attempt(outcome.status, *cost, problem=outcome.problem)
        judge = [sys.executable, "-m", "benchmarks.judge", str(source), str(result), "--model", name]
        judged = run_measured(judge, JUDGE_LIMIT)
    if judged.status != "ok":
        return Attempt("wrong", *cost, problem=f"cannot be judged: {judged.problem}")
    verdict = json.loads(judged.output)
    status = "wrong" if verdict["wrong"] else "ok"
    return Attempt(status, *cost, verdict["nodes"], verdict["foreign"], verdict["wrong"] or "")


def measure(name: str, repeats: int, limit: float) -> Row:
    """All tools on one model."""
    for command in (
        ["-m", "models.zoo", name, "--folder", str(MODELS)],
        ["-m", "benchmarks.judge", str(MODELS / f"{name}.onnx")],
    ):
        outcome = run_measured([sys.executable, *command], JUDGE_LIMIT)
        if outcome.status != "ok":
            sys.exit(f"cannot prepare {name}: {outcome.problem}")
    nodes = json.loads(outcome.output)["nodes"]
    return Row(name, nodes, {tool: attempt(tool, name, repeats, limit) for tool in TOOLS})


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="graphopt beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of the zoo (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, the fastest counts (default: 3)")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one run (default: 300)")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "benchmarks", help="where to write")
    return parser.parse_args(arguments)


def main() -> None:
    """Measures, writes peers.json and peers.md, and prints the latter."""
    wanted = parse()
    # the manifest is read here, not through models.zoo: see benchmarks.process about small parents
    names = wanted.names or [each["name"] for each in json.loads(MANIFEST.read_text(encoding="utf-8"))["models"]]
    rows = []
    for name in names:
        rows.append(measure(name, wanted.repeats, wanted.limit))
        shown = ", ".join(f"{tool} {made.nodes} {made.seconds:.2f} s" for tool, made in rows[-1].attempts.items())
        print(f"{name}: {rows[-1].nodes}; {shown}", file=sys.stderr, flush=True)
    machine = describe_machine([*STACK, *(peer for peer in PEERS if peer not in STACK)])
    text = render(rows, machine, wanted.repeats)
    wanted.folder.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine, "repeats": wanted.repeats, "models": [asdict(row) for row in rows]}
    (wanted.folder / "peers.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (wanted.folder / "peers.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
