"""Writes docs/benchmarks/gpu.md from what `benchmarks.gpu` and `benchmarks.gpu_trades` measured on a GPU.

python -m benchmarks.gpu_report --figures zoo.json settings.json --trades trades.json --machine "NVIDIA H200, ..."
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import Case, Figure
from benchmarks.gpu_trades import Trade, row, summary
from benchmarks.tables import table

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "gpu.md"
LOSS = 1.02
INTRO = """Inputs and outputs bound on the device, all of ONNX Runtime's own optimizations on for both sides. `ratio` is
the median over nine rounds in turns of the time after graphopt over the time before (smaller is better). Decisions:
`--target onnxruntime --device h200` at the batch, layout and launch measured. `predicted` is the cost model's ratio for
the whole graph; it prices the original as it stands, while ONNX Runtime fuses the original before it runs it, so
predictions of large gains from folding do not show here. Made by `python -m benchmarks.gpu`, one run each."""
TRADES = """Each rule that trades, forced wherever it fires, against the same pipeline without any such rule
(`python -m benchmarks.gpu_trades`): what the cost model predicts for the graph, and what was measured. These are not
the default decisions: a rule that is predicted to lose is forced here too, so that both signs are tested."""


def figure_from(found: dict[str, Any]) -> Figure:
    """One entry of the file that `benchmarks.gpu` writes."""
    return Figure(**{**found, "case": Case(**found["case"])})


def trade_from(found: dict[str, Any]) -> Trade:
    """One entry of the file that `benchmarks.gpu_trades` writes."""
    return Trade(**{**found, "case": Case(**found["case"])})


def latest(figures: Sequence[Figure]) -> list[Figure]:
    """One figure for each case, the last that was given, by model, batch, layout and launch."""
    kept = {f.case: f for f in figures}
    models = list(dict.fromkeys(c.model for c in kept))
    return sorted(kept.values(), key=lambda f: (models.index(f.case.model), f.case.batch, f.case.layout, f.case.launch))


def figures_table(figures: Sequence[Figure]) -> str:
    """A line a case; a problem is told below."""
    header = ["model", "batch", "layout", "launch", "before ms", "ratio", "predicted", "trades taken"]
    return table(header, [_cells(f) for f in figures])


def _cells(figure: Figure) -> list[str]:
    case = figure.case
    shown = ["not measured", "-"] if figure.problem else [f"{figure.before_ms:.3f}", f"{figure.ratio:.3f}"]
    trades = ", ".join(f"{rule} {count}" for rule, count in figure.rewrites.items()) or "-"
    return [case.model, str(case.batch), case.layout, case.launch, *shown, f"{figure.predicted:.2f}", trades]


def verdict(figures: Sequence[Figure]) -> str:
    """The losses by name, and the geometric mean."""
    measured = [f for f in figures if not f.problem]
    losses = [f"{f.case.model} (batch {f.case.batch}, {f.case.layout}, {f.case.launch}) {f.ratio:.3f}"
              for f in measured if f.ratio > LOSS]  # fmt: skip
    mean = statistics.geometric_mean(f.ratio for f in measured)
    worse = f"Above {LOSS}: {', '.join(losses)}." if losses else f"None of them is above {LOSS}."
    return f"{len(measured)} cases, geometric mean {mean:.3f}. {worse}"


def problems(figures: Sequence[Figure]) -> str:
    """Why cases were not measured, one line a kind."""
    kinds: dict[str, list[str]] = {}
    for figure in figures:
        if figure.problem:
            kinds.setdefault(figure.problem, []).append(f"{figure.case.model} {figure.case.batch} {figure.case.launch}")
    return "\n".join(f"- {', '.join(dict.fromkeys(cases))}: `{problem}`" for problem, cases in kinds.items())


def render(figures: Sequence[Figure], trades: Sequence[Trade], machine: str) -> str:
    """The page."""
    parts = ["# Latency on a GPU", f"{machine}.\n\n{INTRO}", verdict(figures), figures_table(figures)]
    if any(f.problem for f in figures):
        parts += ["Not measured:", problems(figures)]
    if trades:
        head = "| model | batch | layout | launch | rule, places | predicted | measured | sign |\n" + "|---" * 8 + "|"
        parts += [
            "## Is the cost model right?",
            TRADES,
            f"In sum {summary(trades)}.",
            "\n".join([head, *map(row, trades)]),
        ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Reads the figures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path, nargs="+", required=True, help="JSON files of benchmarks.gpu")
    parser.add_argument("--trades", type=Path, nargs="*", default=[], help="JSON files of benchmarks.gpu_trades")
    parser.add_argument("--machine", required=True, help="device, runtime and its version, for the page")
    wanted = parser.parse_args()
    figures = [figure_from(f) for path in wanted.figures for f in json.loads(path.read_text(encoding="utf-8"))]
    trades = [trade_from(t) for path in wanted.trades for t in json.loads(path.read_text(encoding="utf-8"))]
    PAGE.write_text(render(latest(figures), trades, wanted.machine), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
