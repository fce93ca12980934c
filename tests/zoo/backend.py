"""ONNX's own backend tests: tiny models with inputs and expected outputs, one or more for each operator and type."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator

ON_DISK = ("simple", "pytorch-converted", "pytorch-operator")  # kinds that the wheel keeps as files; not all ship them

Value = Any  # an array, a list of values (a sequence), or None (an absent optional)
Run = Callable[[ModelProto, Mapping[str, Value]], list[Value]]


@dataclass(frozen=True)
class Case:
    """A model, its first data set, and the relative and absolute tolerance that ONNX grants."""

    name: str
    model: ModelProto
    feeds: Mapping[str, Value]
    expected: Sequence[Value]
    rtol: float
    atol: float

    def with_constant_inputs(self) -> Case:
        """The same case with its tensor inputs turned into initializers, so that there is something to fold.

        Folding may compute with another kernel than the one that runs the case, so that a few units of rounding of
        the greatest number are granted: ONNX's fixed 1e-7 asks more of a DFT whose terms reach 540 than float32 holds.
        """
        tensors = {key: value for key, value in self.feeds.items() if isinstance(value, np.ndarray)}
        model = ModelProto()
        model.CopyFrom(self.model)
        given = {tensor.name for tensor in model.graph.initializer}
        kept = [value for value in model.graph.input if value.name not in tensors]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.graph.initializer.extend(
            numpy_helper.from_array(value, key) for key, value in tensors.items() if key not in given
        )
        model.ir_version = max(model.ir_version, 4)
        feeds = {key: value for key, value in self.feeds.items() if key not in tensors}
        return Case(self.name, model, feeds, self.expected, self.rtol, max([self.atol, *map(_rounding, self.expected)]))


def _rounding(value: Value) -> float:
    """Eight units of rounding of an array's greatest finite number, 0 for what is no float array."""
    if not isinstance(value, np.ndarray) or value.dtype.name not in ("float16", "float32", "float64"):
        return 0.0
    finite = np.abs(value[np.isfinite(value)], dtype=np.float64)
    return float(8 * np.finfo(value.dtype).eps * finite.max(initial=0))


@cache
def cases() -> tuple[Case, ...]:
    """Every case that the installed onnx has, sorted by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases overflow and divide by zero on purpose
        found = [_from_memory(each) for each in collect_testcases(None) if each.data_sets]
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for kind in ON_DISK:
        if (data / kind).is_dir():
            found += [_from_disk(each) for each in load_model_tests(kind=kind) if each.model_dir]
    return tuple(sorted(found, key=lambda case: case.name))


def _from_memory(listed: Any) -> Case:
    inputs, outputs = listed.data_sets[0]
    # an input without a name, or beyond those given, is an absent optional
    names = [value.name for value in listed.model.graph.input]
    feeds = {name: _value(each) for name, each in zip(names, inputs, strict=False)}
    return Case(listed.name, listed.model, feeds, [_value(each) for each in outputs], listed.rtol, listed.atol)


def _from_disk(listed: Any) -> Case:
    folder = Path(listed.model_dir)
    model = onnx.load(folder / "model.onnx")
    data = folder / "test_data_set_0"
    feeds = {
        value.name: _read(data / f"input_{index}.pb", value)
        for index, value in enumerate(model.graph.input)
        if (data / f"input_{index}.pb").exists()
    }
    expected = [_read(data / f"output_{index}.pb", value) for index, value in enumerate(model.graph.output)]
    return Case(listed.name, model, feeds, expected, listed.rtol, listed.atol)


def _read(path: Path, value: onnx.ValueInfoProto) -> Value:
    kind = value.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    if kind == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(path.read_bytes()))
    return numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))


def _value(given: Any) -> Value:
    if given is None or isinstance(given, np.ndarray):
        return given
    if isinstance(given, TensorProto):
        return numpy_helper.to_array(given)
    if isinstance(given, list | tuple):
        return [_value(each) for each in given]
    return np.asarray(given)


def run_runtime(model: ModelProto, feeds: Mapping[str, Value]) -> list[Value]:
    """By ONNX Runtime, its graph optimizations off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def run_reference(model: ModelProto, feeds: Mapping[str, Value]) -> list[Value]:
    """By ONNX's own evaluator, slow and complete."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(ReferenceEvaluator(model).run(None, dict(feeds)))


def difference(case: Case, found: Sequence[Value]) -> str | None:
    """The first thing in which outputs are not those expected, or None."""
    if len(found) != len(case.expected):
        return f"{len(found)} outputs instead of {len(case.expected)}"
    pairs = zip(case.expected, found, strict=True)
    return next((each for a, b in pairs if (each := _difference(a, b, case.rtol, case.atol))), None)


def _difference(expected: Value, found: Value, rtol: float, atol: float) -> str | None:
    if expected is None or found is None:
        return None if found is expected else "one side is absent"
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return "another sequence"
        pairs = zip(expected, found, strict=True)
        return next((each for a, b in pairs if (each := _difference(a, b, rtol, atol))), None)
    expected, found = np.asarray(expected), np.asarray(found)
    if found.shape != expected.shape:
        return f"shape {found.shape} instead of {expected.shape}"
    if expected.dtype.kind in "OSU" or found.dtype.kind in "OSU":
        return None if expected.astype(str).tolist() == found.astype(str).tolist() else "other strings"
    if found.dtype != expected.dtype:
        return f"type {found.dtype} instead of {expected.dtype}"
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    if np.allclose(found.astype(wide), expected.astype(wide), rtol, atol, equal_nan=True):
        return None
    return "other numbers"
