"""Latency of models on a GPU before and after graphopt, by ONNX Runtime's CUDA provider.

    python -m benchmarks.gpu squeezenet1_1 googlenet bert_tiny --batch 1 8 32 --layout nchw nhwc --json out.json

Both sides run with all of ONNX Runtime's own optimizations on, inputs and outputs bound on the device, in turns; a
ratio is the median over the rounds of one side's time over the other's. Decisions are those for `--target onnxruntime
--device h200` at the batch, layout and way of launching that are measured. Prints losses as well as gains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

import graphopt
from graphopt.report import Report
from models.zoo import Entry, load, manifest

WARM_UP, ROUNDS = 5, 9
ROUND_SECONDS = 0.04


@dataclass(frozen=True)
class Case:
    """One measurement: a model in one setting."""

    model: str
    batch: int
    layout: str
    launch: str


@dataclass(frozen=True)
class Figure:
    """What came out: milliseconds of one inference before, the ratio after to before, and what was predicted."""

    case: Case
    before_ms: float
    ratio: float
    predicted: float
    rewrites: dict[str, int]
    problem: str = ""


def at_batch(name: str, batch: int) -> ModelProto:
    """The model with its inputs' first dimension set to `batch`; what it says of other tensors is dropped.

    Images and token ids have the batch first. A model whose graph has the batch in a constant does not run then, which
    the table says.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(load(name))
    given = {t.name for t in proto.graph.initializer}
    for info in proto.graph.input:
        dims = info.type.tensor_type.shape.dim
        if info.name not in given and dims:
            dims[0].dim_value = batch
    for info in proto.graph.output:
        dims = info.type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_value"):
            dims[0].dim_value = batch
    del proto.graph.value_info[:]
    return proto


def shapes_at(entry: Entry, batch: int) -> dict[str, tuple[int, ...]]:
    """The inputs' shapes with that batch."""
    return {name: (batch, *each.shape[1:]) for name, each in entry.inputs.items()}


def feeds_of(entry: Entry, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Random inputs of these shapes."""
    rng = np.random.default_rng(0)
    feeds = {}
    for name, shape in shapes.items():
        wanted = entry.inputs[name]
        if wanted.dtype.startswith("int"):
            feeds[name] = rng.integers(0, wanted.below or 2, shape).astype(wanted.dtype)
        else:
            feeds[name] = rng.standard_normal(shape).astype(wanted.dtype)
    return feeds


class Bound:
    """A session on the GPU with everything bound to device memory."""

    def __init__(self, proto: ModelProto, feeds: dict[str, Any], case: Case) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        provider = {
            "prefer_nhwc": "1" if case.layout == "nhwc" else "0",
            "enable_cuda_graph": "1" if case.launch == "captured" else "0",
        }
        self.session = ort.InferenceSession(
            proto.SerializeToString(), options, providers=[("CUDAExecutionProvider", provider), "CPUExecutionProvider"]
        )
        if "CUDAExecutionProvider" not in self.session.get_providers():
            raise RuntimeError("ONNX Runtime found no CUDA device")
        self.binding = self.session.io_binding()
        self.inputs = {k: ort.OrtValue.ortvalue_from_numpy(v, "cuda", 0) for k, v in feeds.items()}
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        first = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.outputs = [
            ort.OrtValue.ortvalue_from_numpy(np.asarray(value), "cuda", 0) for value in first.run(None, feeds)
        ]
        for info, value in zip(self.session.get_outputs(), self.outputs, strict=True):
            self.binding.bind_ortvalue_output(info.name, value)

    def run(self, times: int) -> float:
        """Seconds of one inference, averaged over `times`."""
        self.binding.synchronize_inputs()
        start = time.perf_counter()
        for _ in range(times):
            self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()
        return (time.perf_counter() - start) / times


def measure(before: Bound, after: Bound) -> tuple[float, float]:
    """Median seconds before, and the median ratio of after to before, both sides in turns."""
    for side in (before, after):
        side.run(WARM_UP)
    times = max(3, int(ROUND_SECONDS / max(before.run(3), 1e-6)))
    pairs = []
    for index in range(ROUNDS):
        sides = (before, after) if index % 2 == 0 else (after, before)
        found = {side: side.run(times) for side in sides}
        pairs.append((found[before], found[after]))
    return statistics.median(b for b, _ in pairs), statistics.median(a / b for b, a in pairs)


def run_case(case: Case, force: Sequence[str], forbid: Sequence[str]) -> Figure:
    """Optimizes for the case and measures both sides."""
    entry = manifest()[case.model]
    proto = at_batch(case.model, case.batch)
    shapes = shapes_at(entry, case.batch)
    result = graphopt.optimize(
        proto, target="onnxruntime", device="h200", batch=case.batch, shapes=shapes, verify=False,
        force=force, forbid=forbid, layout=case.layout, launch=case.launch,
    )  # fmt: skip
    fixed = graphopt.optimize(proto, target="onnxruntime", pipeline="", shapes=shapes, verify=False).model
    feeds = feeds_of(entry, shapes)
    report = result.report
    predicted = report.after.predicted_seconds / report.before.predicted_seconds
    try:
        seconds, ratio = measure(Bound(fixed, feeds, case), Bound(result.model, feeds, case))
    except Exception as error:  # ONNX Runtime raises many kinds; the table shows the first line
        return Figure(case, 0.0, 0.0, predicted, _trades(report), str(error).splitlines()[0][:160])
    return Figure(case, seconds * 1e3, ratio, predicted, _trades(report))


def _trades(report: Report) -> dict[str, int]:
    taken = [d.rule for d in report.decisions if d.taken]
    return {rule: taken.count(rule) for rule in dict.fromkeys(taken)}


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """All combinations."""
    for name in arguments.models or list(manifest()):
        for batch, layout, launch in product(arguments.batch, arguments.layout, arguments.launch):
            yield Case(name, batch, layout, launch)


def main() -> None:
    """Measures and prints as it goes, so that a run that is cut off still shows what it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of the zoo; all of them when left out")
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--layout", nargs="+", default=["nchw"], choices=["nchw", "nhwc"])
    parser.add_argument("--launch", nargs="+", default=["eager"], choices=["eager", "captured"])
    parser.add_argument("--force", nargs="*", default=[], help="rules to apply whatever they cost")
    parser.add_argument("--forbid", nargs="*", default=[], help="rules never to apply")
    parser.add_argument("--seconds", type=float, default=500, help="start no further case after so long")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    started, figures = time.monotonic(), []
    print("| model | batch | layout | launch | before ms | ratio | predicted | trades taken |")
    print("|---|---|---|---|---|---|---|---|")
    for case in cases(arguments):
        if time.monotonic() - started > arguments.seconds:
            print(f"stopped before {case}: out of time")
            break
        figure = run_case(case, arguments.force, arguments.forbid)
        figures.append(figure)
        shown = figure.problem or f"{figure.before_ms:.3f} | {figure.ratio:.3f}"
        print(
            f"| {case.model} | {case.batch} | {case.layout} | {case.launch} | {shown} | {figure.predicted:.2f} | "
            f"{', '.join(f'{k} {v}' for k, v in figure.rewrites.items()) or '-'} |",
            flush=True,
        )
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(f) for f in figures], indent=1))


if __name__ == "__main__":
    main()
