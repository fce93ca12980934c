"""What TensorRT makes of models before and after graphopt: kernels, synchronisation layers, activation memory.

    python benchmarks/engines.py models/ more/*.onnx --markdown engines.md --json engines.json

Each engine is built in a process of its own, with a time limit, for one compute capability; with TensorRT-RTX no GPU is
needed and the figures are the same on every machine. Dynamic inputs are fixed at the size that the profile is tuned
for; `--shapes FILE.json` names others: {"model": {"input": "2x16"}}.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SIDES = ("original", "graphopt")


@dataclass(frozen=True)
class Figures:
    """One engine. `problem` says why there is none; memory in bytes, time in seconds."""

    problem: str | None = None
    kernels: int | None = None
    sync_layers: int | None = None
    activation_bytes: int | None = None
    types: Mapping[str, int] | None = None
    nodes: int | None = None
    is_changed: bool | None = None
    pipeline: str | None = None
    parser: str | None = None
    optimize_seconds: float | None = None
    build_seconds: float | None = None

    def __str__(self) -> str:
        if self.problem is not None or self.activation_bytes is None:
            return (self.problem or "unknown").split(":")[0]
        return f"{self.kernels} / {self.sync_layers} / {self.activation_bytes / 1e6:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 1 when graphopt's result has no engine where the original has one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="models, or folders of models (*.onnx)")
    parser.add_argument("--capability", default="8.9", help="compute capability to build for (default: 8.9)")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one engine (default: 300)")
    parser.add_argument("--shapes", type=Path, help="JSON with the shapes of dynamic inputs")
    parser.add_argument("--options", type=json.loads, default={}, help="JSON with more arguments of graphopt.optimize")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)  # a child: one engine, figures to stdout
    given = parser.parse_args(arguments)
    shapes = json.loads(given.shapes.read_text()) if given.shapes else {}
    if given.side is not None:
        model = given.models[0]
        print(
            json.dumps(asdict(measure(model, given.side, given.capability, shapes.get(model.stem, {}), given.options)))
        )
        return 0
    rows = {}
    for model in find_models(given.models):
        rows[model.stem] = {side: in_process(model, side, given) for side in SIDES}
        print(f"{model.stem}: {rows[model.stem]['original']} -> {rows[model.stem]['graphopt']}", file=sys.stderr)
    table = markdown(rows)
    print(table)
    if given.markdown:
        given.markdown.write_text(table + "\n")
    if given.json:
        given.json.write_text(json.dumps(as_json(rows, given.capability), indent=1) + "\n")
    return int(any(row["graphopt"].problem and not row["original"].problem for row in rows.values()))


def find_models(places: Sequence[Path]) -> Iterator[Path]:
    """The models named, and those in the folders named."""
    for place in places:
        if place.is_dir():
            yield from sorted(place.rglob("*.onnx"))
        else:
            yield place


def in_process(model: Path, side: str, given: argparse.Namespace) -> Figures:
    """The figures of one engine, made by a child: a crash or a hang is a row of the table, not its end."""
    command = [sys.executable, __file__, str(model), "--side", side, "--capability", given.capability]
    command += ["--options", json.dumps(given.options)]
    if given.shapes:
        command += ["--shapes", str(given.shapes)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=given.timeout, check=False)
    except subprocess.TimeoutExpired:
        return Figures(problem=f"timeout: more than {given.timeout:g} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return Figures(problem=f"crashed: exit {done.returncode} {last}")
    return Figures(**json.loads(done.stdout.strip().splitlines()[-1]))


def measure(path: Path, side: str, capability: str, shapes: Mapping[str, str], options: Mapping[str, Any]) -> Figures:
    """Optimizes where asked, builds, and reads the engine's facts. Runs in the child."""
    import onnx

    from graphopt.errors import GraphoptError
    from graphopt.tensorrt import build_engine, check_parse, default_shapes

    start = time.perf_counter()
    try:
        model: Any = path
        graph = original = onnx.load(path, load_external_data=False).graph
        pipeline = None
        if side == "graphopt":
            import graphopt

            result = graphopt.optimize(path, target="tensorrt", verify=False, **options)
            model, graph, pipeline = result.model, result.model.graph, result.report.pipeline
        seconds = time.perf_counter() - start
        # nodes, not weights: no rewrite changes a weight and leaves all nodes as they were
        is_changed = list(graph.node) != list(original.node)
        common = {"nodes": len(graph.node), "is_changed": is_changed, "pipeline": pipeline}
        report = check_parse(model)
        if not report.accepted:
            return Figures(problem=f"refused: {report}", parser=report.parser, **common)
        tuned = {name: shape.opt for name, shape in default_shapes(model).items()}
        engine = build_engine(model, compute_capabilities=[capability], shapes={**tuned, **shapes})
        facts = engine.facts
    except GraphoptError as error:
        return Figures(problem=f"failed: {error}")
    return Figures(
        kernels=facts.kernels,
        sync_layers=facts.sync_layers,
        activation_bytes=facts.activation_bytes,
        types=facts.types,
        parser=report.parser,
        optimize_seconds=seconds,
        build_seconds=engine.seconds,
        **common,
    )


def ratio(row: Mapping[str, Figures], name: str) -> float | None:
    """After over before; None where one is missing or zero."""
    before, after = (getattr(row[side], name) for side in SIDES)
    return after / before if before and after else None


def geometric_mean(ratios: Sequence[float]) -> float:
    """NaN for none."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def markdown(rows: Mapping[str, Mapping[str, Figures]]) -> str:
    """The table, its means, and why what was refused was."""
    lines = [
        "| model | original: kernels / sync / MB | graphopt | kernels | sync + kernels | memory |",
        "|---|---|---|---|---|---|",
    ]
    columns: dict[str, list[float]] = {"kernels": [], "launches": [], "activation_bytes": []}
    for model, row in rows.items():
        found = {
            "kernels": ratio(row, "kernels"),
            "launches": launches(row),
            "activation_bytes": ratio(row, "activation_bytes"),
        }
        for name, value in found.items():
            if value is not None:
                columns[name].append(value)
        cells = ["-" if value is None else f"{value:.2f}" for value in found.values()]
        lines.append(f"| {model} | {row['original']} | {row['graphopt']} | {' | '.join(cells)} |")
    means = " | ".join(f"{geometric_mean(values):.3f}" for values in columns.values())
    lines.append(f"| geometric mean of {len(columns['kernels'])} | | | {means} |")
    known = [row["graphopt"].is_changed for row in rows.values() if row["graphopt"].is_changed is not None]
    lost = sum(bool(row["graphopt"].problem) and not row["original"].problem for row in rows.values())
    lines += [
        "",
        f"Left as they were by graphopt: {known.count(False)} of {len(known)} models (no evidence either way).",
    ]
    if lost:
        lines.append(f"**{lost} models have an engine before and none after; the means leave them out.**")
    if all(row["graphopt"].pipeline == "" for row in rows.values()):
        lines.append(
            "**graphopt ran an empty pipeline: no pass is installed, so this table compares a model with itself.**"
        )
    reasons = [
        f"- {model}, {side}: {row[side].problem}" for model, row in rows.items() for side in SIDES if row[side].problem
    ]
    return "\n".join([*lines, *(["", *reasons] if reasons else [])])


def launches(row: Mapping[str, Figures]) -> float | None:
    """The ratio of all that a stream is given: kernels and synchronisation."""
    before, after = ((row[side].kernels or 0) + (row[side].sync_layers or 0) for side in SIDES)
    return after / before if row["original"].kernels and row["graphopt"].kernels else None


def as_json(rows: Mapping[str, Mapping[str, Figures]], capability: str) -> dict[str, Any]:
    """All figures, and their geometric means (after over before)."""
    names = ("kernels", "activation_bytes")
    means = {name: [r for row in rows.values() if (r := ratio(row, name)) is not None] for name in names}
    return {
        "compute_capability": capability,
        "geometric_means": {name: geometric_mean(values) if values else None for name, values in means.items()},
        "models": {model: {side: asdict(row[side]) for side in SIDES} for model, row in rows.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
