"""Comparing an engine's outputs with those of its model, where a GPU that runs the engine is present."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from graphopt.errors import EngineError, ExecutionError, InputsError
from graphopt.external import printable
from graphopt.tensorrt.build import Engine, quiet_polygraphy
from graphopt.tensorrt.capability import gpu_capability, text
from graphopt.tensorrt.source import Source, open_source

Array: TypeAlias = npt.NDArray[Any]
Tensors: TypeAlias = Mapping[str, Array]

TOLERANCE = 1e-2  # TF32, the default of FP32 kernels, keeps 10 bits; errors add up over the layers
_DRAWS = 3
_SEED = 0


@dataclass(frozen=True)
class OutputComparison:
    """One output: the largest error over the largest magnitude of the reference; `problem` says why it disagrees."""

    name: str
    error: float
    problem: str | None


@dataclass(frozen=True)
class EngineComparison:
    """How an engine's outputs compare with ONNX Runtime's; `not_done` says why there was no comparison."""

    outputs: tuple[OutputComparison, ...]
    not_done: str | None = None

    @property
    def passed(self) -> bool:
        """Whether outputs were compared and all agree; False when the comparison was not done."""
        return self.not_done is None and bool(self.outputs) and all(each.problem is None for each in self.outputs)

    def __str__(self) -> str:
        if self.not_done is not None:
            return f"The engine's outputs were not compared: {self.not_done}."
        wrong = [each for each in self.outputs if each.problem is not None]
        if wrong:
            named = "; ".join(f"'{printable(each.name)}' {each.problem}" for each in wrong)
            return f"The engine's outputs differ from the model's: {named}."
        if not self.outputs:
            return "The engine has no outputs that could be compared."
        worst = max(each.error for each in self.outputs)
        return f"The engine's outputs match the model's (largest error {worst:.1e} of the output's magnitude)."


def compare(
    model: onnx.ModelProto | str | os.PathLike[str],
    engine: Engine,
    *,
    inputs: Sequence[Tensors] | None = None,
    tolerance: float = TOLERANCE,
) -> EngineComparison:
    """Runs the engine and, with ONNX Runtime's optimizations off, the model, on the same inputs.

    `inputs` are one or more feeds; left out, three are drawn by seed at the shapes that the engine is tuned for
    (floats normal, integers 0 or 1). An output agrees when it has the same shape, the same NaNs and infinities, and
    floats within `tolerance` times the reference's largest magnitude; integers and booleans are equal.

    Without a GPU that runs the engine the result says so and has not passed. Raises EngineError when the engine cannot
    run on a GPU that it was built for, ExecutionError when the model cannot be run, InputsError when feeds do not fit.
    """
    gpu = gpu_capability()
    built_for = ", ".join(map(text, engine.compute_capabilities))
    if gpu is None:
        return EngineComparison(
            (), f"no NVIDIA GPU is visible (the engine is built for compute capability {built_for})"
        )
    if gpu not in engine.compute_capabilities:
        return EngineComparison((), f"the GPU has compute capability {text(gpu)} and the engine is for {built_for}")
    source = open_source(model)
    if not set(engine.shapes) <= {value.name for value in source.proto.graph.input}:
        return EngineComparison(
            (), "the engine's inputs are not named like the model's, one of which is its output too"
        )
    feeds = _checked(inputs, engine) if inputs is not None else draw_inputs(source.proto, engine)
    return compare_outputs(_model_outputs(source, feeds), _engine_outputs(engine, feeds), tolerance)


def draw_inputs(proto: onnx.ModelProto, engine: Engine) -> list[dict[str, Array]]:
    """Three feeds at the engine's tuned shapes, the same on every call. Raises InputsError for types without draws."""
    types = {value.name: value.type.tensor_type.elem_type for value in proto.graph.input}
    rng = np.random.default_rng(_SEED)
    return [
        {name: _draw(rng, name, types[name], shapes.opt) for name, shapes in engine.shapes.items()}
        for _ in range(_DRAWS)
    ]


def compare_outputs(expected: Sequence[Tensors], actual: Sequence[Tensors], tolerance: float) -> EngineComparison:
    """Compares run by run and output by output; an output keeps its largest error and its first problem."""
    found: dict[str, OutputComparison] = {}
    for one, other in zip(expected, actual, strict=True):
        for name in [*one, *(name for name in other if name not in one)]:
            if name not in one or name not in other:
                each = OutputComparison(name, np.inf, "is an output of one side only")
            else:
                each = _compared(name, np.asarray(one[name]), np.asarray(other[name]), tolerance)
            before = found.get(name, each)
            found[name] = OutputComparison(name, max(before.error, each.error), before.problem or each.problem)
    return EngineComparison(tuple(found.values()))


def _compared(name: str, expected: Array, actual: Array, tolerance: float) -> OutputComparison:
    if expected.shape != actual.shape:
        return OutputComparison(name, np.inf, f"has shape {actual.shape} instead of {expected.shape}")
    if expected.dtype.kind in "biu":
        wrong = int(np.count_nonzero(expected != actual))
        problem = f"has {wrong} of {expected.size} values wrong" if wrong else None
        return OutputComparison(name, float(bool(wrong)), problem)
    reference, value = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(reference)
    if not np.array_equal(reference[~finite], value[~finite], equal_nan=True) or not np.isfinite(value[finite]).all():
        return OutputComparison(name, np.inf, "has NaN or infinity in other places")
    magnitude = float(np.abs(reference[finite]).max(initial=0.0))
    error = float(np.abs(reference[finite] - value[finite]).max(initial=0.0)) / max(
        magnitude, np.finfo(np.float32).tiny
    )
    problem = f"is off by {error:.1e} of its magnitude" if error > tolerance else None
    return OutputComparison(name, error, problem)


def _draw(rng: np.random.Generator, name: str, elem_type: int, shape: tuple[int, ...]) -> Array:
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(dtype)  # 0 and 1 index every table that has two rows
    label = onnx.TensorProto.DataType.Name(elem_type)
    raise InputsError(f"no values can be drawn for input '{printable(name)}' of type {label}; give the inputs.")


def _checked(inputs: Sequence[Tensors], engine: Engine) -> Sequence[Tensors]:
    if not inputs:
        raise InputsError("no inputs were given; give one feed or more.")
    for feed in inputs:
        if set(feed) != set(engine.shapes):
            raise InputsError(f"the inputs must be exactly: {', '.join(map(printable, engine.shapes))}.")
    return inputs


def _model_outputs(source: Source, feeds: Sequence[Tensors]) -> list[dict[str, Array]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    content = str(source.path) if source.path is not None else source.to_bytes()
    if content is None:
        raise ExecutionError("the model is too large for one message; save it and give its path.")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return [dict(zip(names, session.run(names, dict(feed)), strict=True)) for feed in feeds]
    except Exception as error:  # ONNX Runtime's exceptions share no base class but this
        reason = printable(" ".join(str(error).split()), limit=200)
        raise ExecutionError(f"ONNX Runtime cannot run the model to compare with: {reason}") from error


def _engine_outputs(engine: Engine, feeds: Sequence[Tensors]) -> list[dict[str, Array]]:
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner
    from polygraphy.exception import PolygraphyException

    try:
        with quiet_polygraphy(), TrtRunner(EngineFromBytes(engine.plan)) as runner:
            types = {name: meta.dtype.numpy() for name, meta in runner.get_input_metadata().items()}
            outputs = []
            for feed in feeds:
                found = runner.infer({name: value.astype(types[name], copy=False) for name, value in feed.items()})
                outputs.append({name: np.array(value) for name, value in found.items()})  # the runner reuses buffers
            return outputs
    except (PolygraphyException, RuntimeError, OSError) as error:
        reason = printable(" ".join(str(error).split()), limit=200)
        raise EngineError(f"{engine.flavour.title} cannot run the engine on this machine's GPU: {reason}") from error
