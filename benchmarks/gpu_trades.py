"""Whether the cost model is right about trades: each trading rule alone, forced, against none, on a GPU.

    python -m benchmarks.gpu_trades googlenet__nofold llama_4L_256__legacy --batch 1 8 --json out.json

For each model and setting the model is optimized without any rule that trades, and once more with one such rule forced
wherever it fires. `predicted` is the cost model's ratio of the two, `measured` that of their latencies with ONNX
Runtime's CUDA provider. Ratios that differ from 1 by less than the noise of one run count for neither side.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import graphopt
from benchmarks.gpu import Bound, Case, at_batch, feeds_of, measure, shapes_at
from graphopt.plugins import find_rules
from models.zoo import manifest

NOISE = 0.02


@dataclass(frozen=True)
class Trade:
    """One rule in one setting: the places where it fired, and the ratios of the time with it to the time without."""

    case: Case
    rule: str
    places: int
    predicted: float
    measured: float
    problem: str = ""

    @property
    def is_clear(self) -> bool:
        """Whether the measured change is larger than the noise."""
        return not self.problem and abs(self.measured - 1) > NOISE

    @property
    def agrees(self) -> bool:
        """Whether the prediction has the measured sign."""
        return (self.predicted < 1) == (self.measured < 1)


def trades_of(case: Case) -> Iterator[Trade]:
    """Every trading rule that fires in the case, measured."""
    rules = sorted(name for name, rule in find_rules().items() if rule.trades)
    proto, entry = at_batch(case.model, case.batch), manifest()[case.model]
    shapes = shapes_at(entry, case.batch)

    def optimized(forced: Sequence[str]) -> Any:
        return graphopt.optimize(
            proto, target="onnxruntime", device="h200", batch=case.batch, shapes=shapes, verify=False, force=forced,
            forbid=[r for r in rules if r not in forced], layout=case.layout, launch=case.launch,
        )  # fmt: skip

    feeds, without = feeds_of(entry, shapes), optimized([])
    base = None
    for rule in rules:
        forced = optimized([rule])
        places = forced.report.applied.get(rule, 0)
        if not places:
            continue
        predicted = forced.report.after.predicted_seconds / without.report.after.predicted_seconds
        try:
            base = base or Bound(without.model, feeds, case)
            _, ratio = measure(base, Bound(forced.model, feeds, case))
        except Exception as error:  # ONNX Runtime raises many kinds; the table shows the first line
            yield Trade(case, rule, places, predicted, 0.0, str(error).splitlines()[0][:160])
            continue
        yield Trade(case, rule, places, predicted, ratio)


def summary(trades: Sequence[Trade]) -> str:
    """In how many cases the sign was right."""
    clear = [t for t in trades if t.is_clear]
    right = sum(t.agrees for t in clear)
    return (
        f"the sign agrees in {right} of {len(clear)} cases that differ by more than {NOISE:.0%} ({len(trades)} cases)"
    )


def row(trade: Trade) -> str:
    """One line of the table."""
    case = trade.case
    verdict = "within noise" if not trade.is_clear else "agrees" if trade.agrees else "differs"
    figures = trade.problem or f"{trade.predicted:.2f} | {trade.measured:.3f} | {verdict}"
    return f"| {case.model} | {case.batch} | {case.layout} | {case.launch} | {trade.rule} {trade.places} | {figures} |"


def main() -> None:
    """Measures and prints as it goes, so that a run that is cut off still shows what it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names of the zoo")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--layout", nargs="+", default=["nchw", "nhwc"], choices=["nchw", "nhwc"])
    parser.add_argument("--launch", nargs="+", default=["eager", "captured"], choices=["eager", "captured"])
    parser.add_argument("--seconds", type=float, default=500, help="start no further case after so long")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    started, trades = time.monotonic(), list[Trade]()
    print("| model | batch | layout | launch | rule, places | predicted | measured | sign |")
    print("|---|---|---|---|---|---|---|---|")
    for setting in product(wanted.models, wanted.batch, wanted.layout, wanted.launch):
        case = Case(*setting)
        if time.monotonic() - started > wanted.seconds:
            print(f"stopped before {case}: out of time")
            break
        for trade in trades_of(case):
            trades.append(trade)
            print(row(trade), flush=True)
        if wanted.json:
            wanted.json.write_text(json.dumps([asdict(t) for t in trades], indent=1))
    print("\n" + summary(trades))


if __name__ == "__main__":
    main()
