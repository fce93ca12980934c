"""Executing a model: by ONNX Runtime with its optimizations off, or by onnx.reference.

Only this module and `runners` touch onnxruntime; import it inside functions.
"""

from __future__ import annotations

import ctypes
import re
import tempfile
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnx

from graphopt.errors import ExecutionError
from graphopt.verification import source, watch
from graphopt.verification.division import divides_fatally
from graphopt.verification.source import Located
from graphopt.verification.statistics import with_own_statistics
from graphopt.verification.values import Array, Feeds, Value, is_custom

_NUMBERS = re.compile(r"tensor\((float|double|float16|bool|u?int(8|16|32|64))\)")
_PLAIN = re.compile(
    r"tensor\((float|double|float16|bool|string|complex64|complex128|u?int(8|16|32|64))\)|"
    r"(seq|optional)\((seq\()?tensor\((float|double|float16|bool|string|u?int(8|16|32|64))\)\)+|"
    r"(seq\()?map\(.*\)"
)


class Rejected(Exception):
    """The engine does not take the model; `unimplemented` when it lacks a kernel, which is not the model's fault."""

    def __init__(self, message: str, *, unimplemented: bool) -> None:
        super().__init__(message)
        self.unimplemented = unimplemented


class Failed(Exception):
    """The engine took the model but could not run it on these inputs."""


class Unbounded(Failed):
    """The run would take more time or memory than there is, by any engine; other inputs are not worth a try."""


class Engine(Protocol):
    """One model made ready to run."""

    @property
    def name(self) -> str:
        """The engine in words, for the report."""

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Runs the model once and returns its outputs by name, in order. Raises `Failed`."""


class OnnxRuntime:
    """ONNX Runtime on the CPU, graph optimizations off, silent.

    Raises `Rejected` when ONNX Runtime does not take the model. Inputs and outputs of types that numpy does not
    know (bfloat16, float8) travel as OrtValues.
    """

    name = "ONNX Runtime with its optimizations off"

    def __init__(
        self, model: Located, libraries: Sequence[str] = (), threads: int = 0, seconds: float | None = None
    ) -> None:
        if divides_fatally(model.proto):
            raise ExecutionError(
                "the model divides the least integer by -1, at which ONNX Runtime ends the whole process; mend that "
                "constant, or skip the comparison with --no-verify."
            )
        self._seconds = seconds
        self.has_loops = watch.has_loops(model.proto)
        self._spilled: tempfile.TemporaryDirectory[str] | None = None
        model = Located(with_own_statistics(model.proto), model.folder)
        self.session = self._open(model, libraries, threads)
        self._elements = {value.name: value.type.tensor_type.elem_type for value in model.proto.graph.input}
        self._outputs = [output.name for output in self.session.get_outputs()]
        arguments = [*self.session.get_inputs(), *self.session.get_outputs()]
        arguments += self.session.get_overridable_initializers()
        # what numpy knows, and of that what Polygraphy knows too
        self.is_plain = all(_PLAIN.fullmatch(argument.type) for argument in arguments)
        is_numeric = all(_NUMBERS.fullmatch(argument.type) for argument in arguments)
        self.is_simple = is_numeric and not self.has_loops

    def _open(self, model: Located, libraries: Sequence[str], threads: int) -> Any:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)  # some errors pass by the session's own
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        _register(options, libraries)
        if model.folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.folder))
        message: bytes | str | None = source.to_bytes(model)
        if message is None:
            self._spilled = source.spill(model)
            message = f"{self._spilled.name}/model.onnx"
        while True:
            try:
                return _session(message, options)
            except Exception as error:  # onnxruntime's exceptions have no common base below Exception
                mended = _mended(message, str(error))
                if mended is None or mended == message:
                    raise _rejection(error) from error
                message = mended

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Runs the model once and returns its outputs by name, in order. Raises `Failed`."""
        if not self.has_loops:
            return self._run(feeds, None)
        with watch.watched(self._seconds or watch.MOST_SECONDS) as (options, reasons):
            try:
                return self._run(feeds, options)
            except Failed as error:
                raise Unbounded(reasons[0]) if reasons else error from error

    def _run(self, feeds: Feeds, options: Any) -> dict[str, Value]:
        try:
            if self.is_plain:
                results = self.session.run(None, dict(feeds), options)
            else:
                inputs = {name: self._ort_value(name, value) for name, value in feeds.items()}
                values = self.session.run_with_ort_values(None, inputs, options)
                results = [_from_ort_value(value) for value in values]
        except NotImplementedError as error:
            raise Failed(str(error)) from error
        except Exception as error:  # as above
            raise failed_run(error) from error
        return dict(zip(self._outputs, results, strict=True))

    def _ort_value(self, name: str, value: Value) -> Any:
        import onnxruntime

        if not isinstance(value, np.ndarray):
            raise NotImplementedError(f"the input {name} is no tensor, and other inputs are of types numpy lacks")
        if not is_custom(value.dtype):
            return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
        if bits(value.dtype) < 8:
            raise NotImplementedError(f"the input {name} has less than a byte per element")
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
            np.ascontiguousarray(value), self._elements[name]
        )


def _register(options: Any, libraries: Sequence[str]) -> None:
    """Loads the custom-operator libraries that the user named; they are code and are never found by themselves."""
    try:
        for library in libraries:
            options.register_custom_ops_library(str(library))
    except Exception as error:  # onnxruntime's exceptions have no common base below Exception
        raise ExecutionError(f"The custom-operator library {library} cannot be loaded: {first_line(error)}.") from error


def _mended(message: bytes | str, complaint: str) -> bytes | None:
    """The model without what ONNX Runtime refuses though ONNX allows it, and which changes no number; None else."""
    if not isinstance(message, bytes):
        return None
    newest = re.search(r"max supported IR version: (\d+)", complaint)
    if newest is not None:
        return with_ir_version(message, int(newest.group(1)))
    if "same node name" in complaint:
        model = onnx.load_model_from_string(message)
        for node in source.nodes(model):
            node.ClearField("name")
        return model.SerializeToString()
    lacking = re.search(r"Could not find an implementation for (\w+)\(", complaint)
    if lacking is not None and _is_composed(lacking.group(1)):
        model = onnx.load_model_from_string(message)
        return source.with_definition(model, lacking.group(1)).SerializeToString()
    return None


def _is_composed(op_type: str) -> bool:
    """Whether the standard defines the operator by others."""
    return bool(onnx.defs.has(op_type) and onnx.defs.get_schema(op_type).has_function)  # type: ignore[attr-defined]


def _session(message: bytes | str, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(message, sess_options=options, providers=["CPUExecutionProvider"])


def _rejection(error: Exception) -> Rejected:
    unimplemented = "NOT_IMPLEMENTED" in str(error) or "opset" in str(error).lower()
    return Rejected(first_line(error), unimplemented=unimplemented)


# what ONNX Runtime says of sizes that no memory, or no integer, holds
_TOO_LARGE = re.compile(
    r"Failed to allocate memory|bad_alloc|exceeds the supported maximum|Integer overflow|Calculation for Tensor"
)
_ALLOCATION = re.compile(r"requested buffer of size (\d+)")


def failed_run(error: Exception) -> Failed:
    """What an error of ONNX Runtime's while it runs means."""
    said = str(error)
    allocation = _ALLOCATION.search(said)
    if allocation is not None:
        return Unbounded(f"it asks for {int(allocation[1]):,} bytes of memory at once")
    if isinstance(error, MemoryError) or _TOO_LARGE.search(said):
        return Unbounded("it asks for more memory than any machine has")
    return Failed(first_line(error))


def with_ir_version(message: bytes, version: int) -> bytes:
    """The serialized model with another IR version.

    A field that comes twice in a protobuf message has its last value, so that one more `ir_version` (field 1, a
    varint below 128) at the end does it, without a copy of the weights.
    """
    return message + bytes([1 << 3, version])


def bits(dtype: np.dtype[Any]) -> int:
    """How many bits an element of the dtype has in ONNX; numpy gives sub-byte types a byte each."""
    found = re.search(r"int(2|4)$|float(4)_", dtype.name)
    return int(found.group(1) or found.group(2)) if found else dtype.itemsize * 8


def _from_ort_value(value: Any) -> Value:
    if not value.is_tensor():
        raise NotImplementedError("an output is no tensor, and others are of types numpy lacks")
    element = value.element_type()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
    if not is_custom(dtype):
        result: Array = value.numpy()
        return result
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    if bits(dtype) < 8:
        return _unpacked(value, dtype, shape, count)
    return np.frombuffer(_memory(value, count * dtype.itemsize), dtype=dtype).reshape(shape)


def _memory(value: Any, size: int) -> bytes:
    """A copy of the OrtValue's memory: its own numpy() refuses or mislabels types that numpy does not know."""
    return ctypes.string_at(value.data_ptr(), size) if size else b""


def _unpacked(value: Any, dtype: np.dtype[Any], shape: tuple[int, ...], count: int) -> Array:
    width = bits(dtype)
    packed = np.frombuffer(_memory(value, (count * width + 7) // 8), dtype=np.uint8)
    parts = np.stack([(packed >> shift) & (2**width - 1) for shift in range(0, 8, width)], axis=-1)
    codes = parts.reshape(-1)[:count]
    if dtype.name.startswith("float"):
        return codes.view(dtype).reshape(shape)
    signed = codes.astype(np.int16)
    if not dtype.name.startswith("u"):
        signed = np.where(signed >= 2 ** (width - 1), signed - 2**width, signed)
    return signed.astype(dtype).reshape(shape)


class Reference:
    """onnx.reference: numpy, slow, but it has every standard operator.

    Raises `Rejected` when it does not know an operator.
    """

    name = "onnx.reference"

    def __init__(self, model: Located) -> None:
        from onnx.reference import ReferenceEvaluator

        from graphopt.verification.reference_axes import ALONG_AXES
        from graphopt.verification.reference_loops import LOOPS
        from graphopt.verification.reference_ops import PRECISE
        from graphopt.verification.reference_pools import POOLS
        from graphopt.verification.reference_quantized import QUANTIZED, SINCE

        try:
            # functions are written out: its own do not see operators put right, nor types
            proto = source.written_out(source.loaded(model))
            older = QUANTIZED if source.opset(proto) < SINCE else []
            own = [*PRECISE, *POOLS, *ALONG_AXES, *LOOPS, *older]
            self._evaluator = ReferenceEvaluator(proto, new_ops=own)
        except Exception as error:  # it raises whatever the operator's class does
            raise Rejected(first_line(error), unimplemented=True) from error
        self._outputs = [output.name for output in model.proto.graph.output]

    def run(self, feeds: Feeds) -> dict[str, Value]:
        """Runs the model once and returns its outputs by name, in order. Raises `Failed`."""
        try:
            with np.errstate(all="ignore"):
                results = self._evaluator.run(None, dict(feeds))
        except Exception as error:  # as above
            raise Failed(first_line(error)) from error
        return {name: _normal(value) for name, value in zip(self._outputs, results, strict=True)}


def _normal(value: Any) -> Value:
    if value is None or isinstance(value, dict):
        return value
    if isinstance(value, (list, tuple)):
        return [_normal(item) for item in value]
    return np.asarray(value)


def first_line(error: BaseException) -> str:
    """The first line of what an engine said, without its codes, short enough for a sentence."""
    text = (str(error) or type(error).__name__).strip().splitlines()[0]
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= 300 else text[:297] + "..."


__all__ = [
    "Engine",
    "Failed",
    "OnnxRuntime",
    "Reference",
    "Rejected",
    "Unbounded",
    "bits",
    "failed_run",
    "first_line",
    "with_ir_version",
]
