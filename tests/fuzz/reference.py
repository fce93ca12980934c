"""The original model as the measure: what it gives, and how far rounding alone may move that."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto, inliner

from tests.fuzz import compare, integers, noise, plain
from tests.fuzz.compare import Exact, is_finite
from tests.fuzz.inputs import Feeds, runnable
from tests.fuzz.retype import retyped, with_roundings

SHAKES = (6, 24)
_RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
    "Dropout",
)
_DRAWS = 16  # runs of a model that draws numbers: two elements of a Dropout are alike in one pair of runs of four
_SIGNS = ("Where", "ReduceSum", "ReduceMean", "ReduceL1", "AveragePool", "GlobalAveragePool", "Sum", "Mean", "CumSum")
_SIGNS += ("MaxPool", "Max", "Min", "ReduceMax", "ReduceMin", "Clip", "Relu")
_VECTORIZED = ("Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Exp", "Log", "Sin", "Sinh", "Tan")
_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "LSTM", "GRU", "RNN")


@lru_cache(maxsize=2)
def _options() -> Any:
    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


class Reference:
    """The original model and what it gives for each set of inputs that it takes."""

    def __init__(self, model: ModelProto, feeds: Iterable[Feeds]) -> None:
        self.model = model
        self.names = [output.name for output in model.graph.output]
        self.results: list[tuple[Feeds, list[Any]]] = []
        self.refused = ""
        self.untrue = ""  # what the model says about itself and does not keep
        self.random: list[set[int]] = []  # outputs that are drawn, places in `names`, for each of `results`
        self._shaken: dict[int, list[list[Any]]] = {}
        try:
            run = runner(model)
        except Exception as error:
            self.refused = first_line(error)
            return
        inferred = _inferred(model)
        are_rounded = integers.rounding_of(model, runner)
        for number, inputs in enumerate(feeds):
            given, why = _attempt(run, inputs)
            if given is not None and number and _untrue(inferred, given):
                continue  # sizes that the operators' definitions exclude, and ONNX Runtime takes
            if given is not None and are_rounded(inputs):
                continue
            if given is not None:
                self.untrue = self.untrue or _untrue(model, given)
                self.results.append((inputs, given))
            elif number == 0:  # later sets may have sizes that the model does not take after all
                self.refused = why
                return
        self.random = [set() for _ in self.results]
        if noise.has_operator(model, *_RANDOM):  # an input may say whether: the mode of a Dropout
            for drawn, (inputs, first) in zip(self.random, self.results, strict=True):
                for given in (run(inputs) for _ in range(_DRAWS)):  # a new session would draw the same numbers again
                    drawn |= {at for at, one in enumerate(first) if one.tobytes() != given[at].tobytes()}

    def check(self, optimized: ModelProto, exact: bool, finite: bool = False) -> str | None:
        """What is different on some set of inputs, of finite ones alone where `finite`; None when nothing is.

        ONNX Runtime computes equal graphs equally, with four exceptions: products with a constant take another kernel
        than products of computed tensors; functions are computed several at a time, and what is left over one at a
        time; fp16 is computed in fp32 on the CPU, with roundings left out as its casts happen to meet; and the sign of
        a zero that comes out of Where, a sum or a maximum depends on the kernel.
        """
        loose = (
            not exact
            or 10 in noise.element_types(self.model)
            or noise.has_operator(self.model, *_PRODUCTS, *_VECTORIZED)
        )
        asked = Exact.NO if loose else Exact.VALUES if noise.has_operator(self.model, *_SIGNS) else Exact.BITS
        try:
            run = runner(optimized)
        except Exception as error:
            return f"the result does not load: {first_line(error)}"
        for number, (inputs, expected) in enumerate(self.results):
            if finite and not all(map(is_finite, inputs.values())):
                continue
            try:
                given = run(inputs)
            except Exception as error:
                return f"the result does not run: {first_line(error)}"
            if noise.has_operator(self.model, "Loop", "Scan"):
                given = [e if _is_same_nothing(e, g) else g for e, g in zip(expected, given, strict=True)]
            for at in self.random[number]:
                if expected[at].shape == given[at].shape and expected[at].dtype == given[at].dtype:
                    given[at] = expected[at]
            if loose and all(map(is_finite, inputs.values())):  # divided by zero: its sign, or a rounding, decides
                given = [e if _alike(e, g) and not is_finite(e) else g for e, g in zip(expected, given, strict=True)]
            different = compare.differs(expected, given, self.names, asked)
            if different is not None and loose:
                different = self._beyond_noise(number, expected, given)
            if different is not None and loose and noise.has_operator(optimized, "Sigmoid", "Swish"):
                different = self._beyond_noise(number, expected, runner(plain.with_formulas(optimized))(inputs))
            if different is not None:
                return f"inputs {number}: {different}"
        return None

    def _beyond_noise(self, number: int, expected: list[Any], given: list[Any]) -> str | None:
        different: str | None = ""
        halves = self._halves(number)
        for count in SHAKES:
            shaken = [*halves, *self._shake(number, count)]
            different = compare.differs_beyond(expected, given, self.names, shaken)
            if different is None:
                return None
        return different

    def _halves(self, number: int) -> list[list[Any]]:
        """Two runs in float32: nothing is rounded to float16 on the way, and all that the model has in float16 is.

        Kernels do either. Scores of attention to which a mask adds the lowest number are all alike once rounded.
        """
        inputs, expected = self.results[number]
        half = TensorProto.FLOAT16
        if half not in noise.element_types(self.model):
            return []
        with contextlib.suppress(Exception):  # types that do not fit
            whole = inliner.inline_local_functions(self.model) if self.model.functions else self.model
            wide = {name: _cast(value, np.float16, np.float32) for name, value in inputs.items()}
            plain = retyped(whole, TensorProto.FLOAT, half)
            types = noise.types_of(onnx.shape_inference.infer_shapes(whole).graph)
            rounded = with_roundings(plain, {name for name, kind in types.items() if kind == half}, half)
            runs = [runner(each)(wide) for each in (plain, rounded)]
            return [[_cast(v, v.dtype, e.dtype) for v, e in zip(run, expected, strict=True)] for run in runs]
        return []

    def _shake(self, number: int, count: int) -> list[list[Any]]:
        runs = self._shaken.setdefault(number, [])
        for seed in range(len(runs), count):
            rng = np.random.default_rng(seed)
            inputs = {name: noise.shake_values(value, rng) for name, value in self.results[number][0].items()}
            with contextlib.suppress(Exception):  # a shape computed in floats may fit no more
                runs.append(runner(noise.shaken(self.model, seed))(inputs))
        return runs


def _cast(value: Any, old: Any, new: Any) -> Any:
    with np.errstate(over="ignore"):
        return value.astype(new) if isinstance(value, np.ndarray) and value.dtype == old else value


def _is_same_nothing(a: Any, b: Any) -> bool:
    """Whether both are empty, and alike but for dimensions that are 0 in `a`: what a loop without an iteration collects
    has 0 where ONNX Runtime cannot infer a dimension."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or (a.dtype, a.ndim) != (b.dtype, b.ndim):
        return False
    return a.size == b.size == 0 and all(m in (0, n) for m, n in zip(a.shape, b.shape, strict=True))


def _alike(a: Any, b: Any) -> bool:
    """Whether both are arrays of one shape and type."""
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and (a.shape, a.dtype) == (b.shape, b.dtype)


def runner(model: ModelProto) -> Callable[[Feeds], list[Any]]:
    """ONNX Runtime on the CPU with its own optimizations off; an operator it lacks by ONNX's definition of it.

    Raises what ONNX Runtime raises.
    """
    bare = runnable(model)
    try:
        session = ort.InferenceSession(bare.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    except Exception as error:
        lacking = re.search(r"Could not find an implementation for (\w+)\(", str(error))
        if lacking is None:
            raise
        written_out = inliner.inline_selected_functions(bare, [("", lacking[1])], inline_schema_functions=True)
        session = ort.InferenceSession(written_out.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(None, inputs))


def _attempt(run: Callable[[Feeds], list[Any]], inputs: Feeds) -> tuple[list[Any] | None, str]:
    try:
        return run(inputs), ""
    except Exception as error:
        return None, first_line(error)


def _inferred(model: ModelProto) -> ModelProto:
    """The model with the shapes that follow from its operators; itself where none do."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # odd models, on which inference gives up
        return model


def _untrue(model: ModelProto, given: list[Any]) -> str:
    """Which output has another shape than the model declares; "" when all are as declared."""
    for output, value in zip(model.graph.output, given, strict=True):
        kind = output.type.tensor_type
        if not isinstance(value, np.ndarray) or not kind.HasField("shape"):
            continue
        declared = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        same_rank = len(declared) == value.ndim
        if not same_rank or any(d not in (None, n) for d, n in zip(declared, value.shape, strict=True)):
            return f"declared to be {declared}, the output {output.name!r} is {list(value.shape)}"
    return ""


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:400]}"
