"""`python -m tests.fuzz --minutes 10`: draw models, optimize each in every way, compare; exit code 1 on failures."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from tests.fuzz import found, harvest
from tests.fuzz.campaign import Campaign, Tally

console = Console(highlight=False)


class _Progress:
    """A line now and then."""

    def __init__(self, every: float) -> None:
        self.every, self.start, self.last = every, time.monotonic(), 0.0

    def __call__(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            passed = now - self.start
            rate = tally.models / passed if passed else 0.0
            failed = sum(tally.failures.values())
            console.print(f"{passed:6.0f} s  {tally.models} models ({rate:.1f}/s)  {failed} failures", markup=False)


def summary(tally: Tally, seconds: float, seed: int) -> None:
    """Models, rules and failures, as tables."""
    from graphopt.plugins import find_rules

    rules = list(find_rules())
    used = sum(os.times()[:4])
    console.print(f"seed {seed}: {tally.models} models in {seconds:.0f} s ({used:.0f} s of processor time)")
    console.print(f"{tally.compared} different results were compared with what these models give")
    table = Table("rule", "models", "%", title="how often each rule fired")
    for name in sorted(rules, key=lambda n: -tally.rules[n]):
        table.add_row(name, str(tally.rules[name]), f"{100 * tally.rules[name] / max(1, tally.models):.1f}")
    console.print(table)
    for reason, count in tally.uncomparable.most_common(10):
        console.print(f"{count} not compared: {reason}", markup=False)
    for key, count in tally.failures.most_common():
        console.print(f"{count} x {key}", markup=False)
    for key, path in tally.saved.items():
        console.print(f"saved {path}: {key}", markup=False)
    for rule, count in tally.less_accurate.most_common():
        console.print(f"{count} x taken back by the proof as less accurate, yet within rounding: {rule}", markup=False)
    console.print(verdict(tally), markup=False)
    rare = tally.rare(rules)
    few = ", ".join(f"{name} {tally.rules[name]}" for name in rare)
    console.print(f"{len(rare)} of {len(rules)} rules fired in less than one model of a hundred{': ' * bool(few)}{few}")


def verdict(tally: Tally) -> str:
    """One line: how many models there were, and in how many settings something was not as it has to be."""
    left = Counter(tally.kinds)
    wrong = left.pop("wrong", 0) + left.pop("wrong (exact rules)", 0)
    invalid = left.pop("invalid", 0)
    crashes = sum(left.pop(kind, 0) for kind in ("crash", "died", "time-out"))
    refused = sum(tally.uncomparable.values())
    others = "".join(f", {count} {kind}" for kind, count in sorted(left.items()))
    return (
        f"{tally.models - refused} models compared: {wrong} wrong, {invalid} invalid, {crashes} crashes{others}; "
        f"{refused} more were optimized that do not run as they were drawn"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--models", type=int, help="stop after that many")
    parser.add_argument("--seed", type=int, help="the same seed draws the same models")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--found", type=Path, default=found.FOLDER, help="where failures are saved")
    parser.add_argument("--graphs", type=Path, help="where graphs from the tests of rules are kept between runs")
    parser.add_argument("--quick", action="store_true", help="some of the settings for each model, not all")
    parser.add_argument("--ignore", action="append", default=[], help="a kind of failure that is known already")
    parser.add_argument("--seconds", type=float, help="instead of --minutes")
    given = parser.parse_args()
    seconds = given.seconds or given.minutes * 60
    seed = secrets.randbelow(1 << 32) if given.seed is None else given.seed
    start = time.monotonic()
    show = _Progress(5.0 if console.is_terminal else 30.0)
    with tempfile.TemporaryDirectory(prefix="fuzz-graphs-") as folder:
        graphs = given.graphs or Path(folder)
        if not (graphs / harvest.INDEX).exists():
            console.print(f"{harvest.harvest(graphs)} graphs harvested from the tests of rules")
        tally = Campaign(
            seed, given.jobs, seconds, given.models, given.found, graphs, show, given.quick, frozenset(given.ignore)
        ).run()
    summary(tally, time.monotonic() - start, seed)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
