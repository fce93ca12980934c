"""Whether a tool's result is right: `python -m benchmarks.judge ORIGINAL.onnx [RESULT.onnx --model NAME]` prints JSON.

The result must pass ONNX's checker and keep the interface, and on the zoo's inputs its outputs must be those of the
original, both run by ONNX Runtime with its own optimizations off. Without a result only the original's nodes count.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto

from benchmarks.nodes import count_nodes, foreign_operators
from models import zoo

SEEDS = (11, 12)
TOLERANCE = 1e-2  # of an output's greatest magnitude: five times what reassociation does to the deepest zoo model


def judge(original: Path, result: Path, name: str | None) -> dict[str, Any]:
    """Nodes, operators outside the standard, and what is wrong with the result (None: nothing)."""
    before, after = onnx.load(original), onnx.load(result)
    foreign = foreign_operators(after)
    return {"nodes": count_nodes(after), "foreign": foreign, "wrong": _problem(before, after, foreign, name)}


def _problem(before: ModelProto, after: ModelProto, foreign: list[str], name: str | None) -> str | None:
    if not foreign:  # the checker knows no others
        try:
            onnx.checker.check_model(after)
        except onnx.checker.ValidationError as error:
            return f"invalid: {str(error).splitlines()[0][:200]}"
    if _interface(before) != _interface(after):
        return "the interface changed"
    return _difference(before, after, name) if name else None


def _interface(model: ModelProto) -> list[tuple[str, int]]:
    given = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in given] + list(model.graph.output)
    return [(value.name, value.type.tensor_type.elem_type) for value in values]


def _difference(before: ModelProto, after: ModelProto, name: str) -> str | None:
    sessions = []
    for model in (before, after):
        try:
            sessions.append(_session(model))
        except Exception as error:  # the runtime's errors have no common class
            return f"does not run: {str(error)[:200]}"
    for seed in SEEDS:
        feeds = zoo.inputs(name, seed)
        outputs = [session.run(None, feeds) for session in sessions]
        for value, expected, found in zip(before.graph.output, *outputs, strict=True):
            if not _close(expected, found):
                return f"output {value.name} differs"
    return None


def _session(model: ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _close(expected: NDArray[Any], found: NDArray[Any]) -> bool:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    error = np.abs(found.astype(np.float64) - expected).max(initial=0)
    return bool(error <= TOLERANCE * np.abs(expected).max(initial=0))


def main() -> None:
    """Prints the verdict, or the original's node count."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge")
    parser.add_argument("original", type=Path)
    parser.add_argument("result", type=Path, nargs="?")
    parser.add_argument("--model", help="the zoo's name of the original; without it outputs are not compared")
    wanted = parser.parse_args()
    if wanted.result is None:
        print(json.dumps({"nodes": count_nodes(onnx.load(wanted.original))}))
    else:
        print(json.dumps(judge(wanted.original, wanted.result, wanted.model)))


if __name__ == "__main__":
    main()
