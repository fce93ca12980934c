"""What graphopt merges and elides in models: per rule how often, at which predicted gain, and whether it is verified.

    python -m benchmarks.merges

Writes docs/benchmarks/merges.md. Each model is optimized for TensorRT and for ONNX Runtime at batch 1 of the manifest's
inputs, with the default decisions, and compared with the original. Needs neither a GPU nor TensorRT.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import graphopt
from benchmarks.gpu import at_batch, shapes_at
from benchmarks.tables import median, number, table
from graphopt.plugins import find_passes
from graphopt.report import Report
from models.zoo import manifest

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks" / "merges.md"
# The models whose branches, splits and concats differ most.
MODELS = (
    "hrnet_w18_small__legacy",
    "inception_v3__dynamo_raw",
    "inception_siblings__legacy",
    "yolov8_like__legacy",
    "resnext_split__legacy",
    "alexnet_split__legacy",
    "concat_chain__legacy",
    "densenet121__legacy",
    "shufflenet_v2_x1_0__legacy",
    "bert_tiny__legacy",
    "llama_4L_256__legacy",
)
TARGETS = ("tensorrt", "onnxruntime")
FAMILIES = ("merge-siblings", "elide-concats", "fuse-for-onnxruntime")
INTRO = """# What is merged and elided

Per model and target: which rules of {passes}
fired and how often, and the word of the cost model on those that trade: predicted time of the nodes concerned, after
over before, the median of the places (device {device}, batch 1). Refused trades are those whose predicted ratio is
above 0.98. Written by `python -m benchmarks.merges`.
"""


@dataclass(frozen=True)
class Merges:
    """What came of one model for one target."""

    model: str
    target: str
    report: Report

    @property
    def applied(self) -> dict[str, int]:
        """The rules of the families that fired, and how often."""
        types = find_passes()
        rules = {rule.name for family in FAMILIES for rule in types[family].rules}
        return {rule: count for rule, count in self.report.applied.items() if rule in rules}

    def trades(self, taken: bool) -> Mapping[str, Sequence[float]]:
        """The predicted ratios of the trades that were taken, or refused, by rule."""
        found: dict[str, list[float]] = {}
        for decision in self.report.decisions:
            if decision.taken == taken:
                found.setdefault(decision.rule, []).append(decision.ratio)
        return found


def measure(names: Sequence[str], device: str) -> Iterator[Merges]:
    """Optimizes each model for each target, with the comparison of outputs."""
    for name in names:
        proto, shapes = at_batch(name, 1), shapes_at(manifest()[name], 1)
        for target in TARGETS:
            result = graphopt.optimize(proto, target=target, device=device, batch=1, shapes=shapes)
            yield Merges(name, target, result.report)


def row(merges: Merges) -> tuple[str, ...]:
    """One line of the table."""
    report, taken = merges.report, merges.trades(taken=True)
    done = [
        f"{rule} {count}" + (f" ({number(median(taken[rule]))})" if rule in taken else "")
        for rule, count in merges.applied.items()
    ]
    refused = [f"{rule} {len(r)} ({number(median(r))})" for rule, r in merges.trades(taken=False).items()]
    verified = "yes" if report.verification.get("passed") and not report.withdrawn else "no"
    nodes = f"{report.before.nodes} -> {report.after.nodes}"
    return merges.model, merges.target, nodes, "<br>".join(done) or "-", "<br>".join(refused) or "-", verified


def page(found: Sequence[Merges], device: str) -> str:
    """The page."""
    header = ("model", "target", "nodes", "merged and elided (predicted)", "refused trades (predicted)", "verified")
    intro = INTRO.format(passes=", ".join(f"`{f}`" for f in FAMILIES), device=device)
    return f"{intro}\n{table(header, [row(m) for m in found])}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page; 1 when a result is not verified."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="names of the zoo")
    parser.add_argument("--device", default="h200", help="what the cost model decides for (default: h200)")
    parser.add_argument("--markdown", type=Path, default=PAGE, help="where the page goes")
    given = parser.parse_args(arguments)
    found = list(measure(given.models, given.device))
    given.markdown.write_text(page(found, given.device))
    return int(any(row(m)[-1] != "yes" for m in found))


if __name__ == "__main__":
    raise SystemExit(main())
