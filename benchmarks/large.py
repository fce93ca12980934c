"""Models larger than memory: time and peak memory of graphopt, against copying the file, and of peers at small sizes.

    python -m benchmarks.large [--gigabytes 0.5 12] [--tools graphopt] [--folder docs/benchmarks]

The model is a chain of 1x1 Convs with external data, about 2,000 nodes: every other Conv is followed by a
BatchNormalization, which folds into its weight, so that half of the weights change; and once more with
`keep_weights` and no pass that touches a weight. Writes large.json, large.md and large.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.plot import chart
from benchmarks.process import STACK, Outcome, describe_machine, run_measured
from benchmarks.tables import number, table
from benchmarks.tool import TOOLS

if TYPE_CHECKING:  # imported where it is needed: see benchmarks.process about small parents
    from onnx import NodeProto

ROOT = Path(__file__).parent.parent
UNITS = 400  # of Conv, BatchNormalization, Relu, Conv, Relu: 2,000 nodes
NODES = 5 * UNITS
CONVS = 2 * UNITS
FLOAT_BYTES = 4
GB = 10**9
MIB = 1024 * 1024
SIZES = (0.1, 0.5, 1, 4, 12)  # GB
PEER_GIGABYTES = 1.0  # the peers hold the weights several times: beyond this they may take the machine down
LIMIT = 3600.0  # seconds
COPY, KEEP = "copy", "graphopt-keep"  # beside the tools: `cp`, and graphopt leaving every weight where it is


def write_model(folder: Path, gigabytes: float) -> Path:
    """Writes model.onnx and weights.bin to `folder`; the weights together have about `gigabytes` of 10^9 bytes.

    One block of random numbers is written for every Conv: real data on disk, no holes, made at the disk's speed.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    channels = max(int(math.sqrt(gigabytes * GB / FLOAT_BYTES / CONVS)), 8)
    rng = np.random.default_rng(0)
    block = (rng.standard_normal(channels * channels, dtype=np.float32) / math.sqrt(channels)).tobytes()
    graph = helper.make_graph(
        list(_nodes()),
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 1, 1])],
        [helper.make_tensor_value_info(f"r{UNITS - 1}", TensorProto.FLOAT, [1, channels, 1, 1])],
    )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "weights.bin").open("wb") as file:
        for index in range(CONVS):
            weight = graph.initializer.add(name=f"w{index}", data_type=TensorProto.FLOAT)
            weight.dims.extend([channels, channels, 1, 1])
            weight.data_location = TensorProto.EXTERNAL
            place = {"location": "weights.bin", "offset": str(file.tell()), "length": str(len(block))}
            for key, value in place.items():
                weight.external_data.add(key=key, value=value)
            file.write(block)
    for unit in range(UNITS):
        for name in ("scale", "shift", "mean", "variance"):
            values = rng.uniform(0.8, 1.2, channels).astype(np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(values, f"{name}{unit}"))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def _nodes() -> Iterator[NodeProto]:
    from onnx import helper

    last = "x"
    for unit in range(UNITS):
        parameters = [f"{name}{unit}" for name in ("scale", "shift", "mean", "variance")]
        yield helper.make_node("Conv", [last, f"w{2 * unit}"], [f"c{unit}"])
        yield helper.make_node("BatchNormalization", [f"c{unit}", *parameters], [f"b{unit}"])
        yield helper.make_node("Relu", [f"b{unit}"], [f"a{unit}"])
        yield helper.make_node("Conv", [f"a{unit}", f"w{2 * unit + 1}"], [f"d{unit}"])
        yield helper.make_node("Relu", [f"d{unit}"], [f"r{unit}"])
        last = f"r{unit}"


def measure(gigabytes: float, tools: Sequence[str]) -> dict[str, Outcome]:
    """Copying the weights, then each tool, in a temporary folder under build/ on the same disk."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as name:
        folder = Path(name)
        make = [sys.executable, "-m", "benchmarks.large", "--make", str(folder / "in"), "--gigabytes", str(gigabytes)]
        made = run_measured(make, LIMIT)
        if made.status != "ok":
            sys.exit(f"cannot make the model: {made.problem}")
        found = {}
        for tool in (COPY, *tools, KEEP):
            (folder / "out").mkdir()
            source, result = folder / "in" / "model.onnx", folder / "out" / "model.onnx"
            found[tool] = run_measured(command_of(tool, source, result), LIMIT)
            print(f"{tool}: {found[tool].status} {found[tool].seconds:.1f} s", file=sys.stderr, flush=True)
            shutil.rmtree(folder / "out")
        return found


def command_of(tool: str, source: Path, result: Path) -> list[str]:
    """What runs `tool`, a peer or one of this module's own."""
    if tool == COPY:
        return ["cp", str(source.with_name("weights.bin")), str(result.parent)]
    if tool == KEEP:
        options = ["--keep-weights", "--no-verify", "--pipeline", "clean"]
        kept = source.with_name("kept.onnx")
        return [sys.executable, "-m", "graphopt", "optimize", str(source), "-o", str(kept), *options]
    return [sys.executable, "-m", "benchmarks.tool", tool, str(source), str(result)]


def render(sizes: dict[float, dict[str, Outcome]], machine: str) -> str:
    """The page."""
    rows = [
        [
            f"{gigabytes:g}",
            name,
            o.status,
            number(o.seconds, 1),
            number(o.seconds / found[COPY].seconds, 1),
            number(o.peak_bytes / MIB, 0),
        ]
        for gigabytes, found in sizes.items()
        for name, o in found.items()
    ]
    parts = [
        "# Models larger than memory",
        f"Written by `make bench-scale`; do not edit. {machine}.",
        f"{NODES:,} nodes with external data, half of it changed by folding BatchNormalization; with {KEEP} none of it "
        f"is changed, and\nit stays in the input's file. Peers are run up to {PEER_GIGABYTES:g} GB.",
        table(["GB of weights", "", "ended", "seconds", "times the copy", "peak MiB"], rows),
        "![peak memory against weights](large.svg)",
    ]
    return "\n\n".join(parts) + "\n"


def plot(sizes: dict[float, dict[str, Outcome]]) -> str:
    """Peak memory against the size of the weights, a line a tool."""
    names = dict.fromkeys(name for found in sizes.values() for name in found if name != COPY)
    series = {
        name: [(g, f[name].peak_bytes / MIB) for g, f in sizes.items() if name in f and f[name].status == "ok"]
        for name in names
    }
    return chart("peak resident memory against weights", "GB of weights", "MiB", series)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description="Models larger than memory.")
    parser.add_argument(
        "--gigabytes", nargs="+", type=float, default=list(SIZES), help="weights (default: %(default)s)"
    )
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS), help="default: all")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="only write the first model to this folder")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "benchmarks", help="where to write the page")
    return parser.parse_args(arguments)


def _figures(outcome: Outcome) -> dict[str, object]:
    """What the file keeps of a run: not what the tool printed, which names places of this machine."""
    return {name: value for name, value in asdict(outcome).items() if name != "output"}


def main() -> None:
    """Writes the model, or measures and writes the page."""
    wanted = parse()
    if wanted.make is not None:
        write_model(wanted.make, wanted.gigabytes[0])
        return
    sizes = {
        gigabytes: measure(gigabytes, [t for t in wanted.tools if t == "graphopt" or gigabytes <= PEER_GIGABYTES])
        for gigabytes in sorted(wanted.gigabytes)
    }
    machine = describe_machine(STACK)
    text = render(sizes, machine)
    wanted.folder.mkdir(parents=True, exist_ok=True)
    figures = {f"{gigabytes:g}": {name: _figures(o) for name, o in found.items()} for gigabytes, found in sizes.items()}
    found = {"machine": machine, "gigabytes": figures}
    (wanted.folder / "large.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (wanted.folder / "large.md").write_text(text, encoding="utf-8")
    (wanted.folder / "large.svg").write_text(plot(sizes), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
