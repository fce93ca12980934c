"""What is measured: latency by ONNX Runtime, or what TensorRT's builder makes of a model."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from onnx import ModelProto

from graphopt.errors import ExecutionError

if TYPE_CHECKING:
    from graphopt.tensorrt import EngineFacts

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Comparison:
    """The candidate's cost over the current one's; a ratio within `noise` of 1 tells nothing."""

    ratio: float
    noise: float

    @property
    def wins(self) -> bool:
        """Whether the candidate is better beyond noise."""
        return self.ratio < 1 - self.noise


class Meter(Protocol):
    """Compares models. `name` says what is measured on what: results are remembered under it."""

    @property
    def name(self) -> str:
        """Runtime, version and device."""

    def prepare(self, model: ModelProto) -> Any:
        """The model made ready to be measured. Raises GraphoptError when the runtime does not take it."""

    def compare(self, current: Any, candidate: Any) -> Comparison:
        """Compares two prepared models."""


@dataclass(frozen=True)
class LatencyMeter:
    """Latency with ONNX Runtime as users run it (its own optimizations on), both models measured in turns.

    `rounds` pairs of measurements, each of `slice_seconds` at least. The ratio is the median of the pairs' ratios, so
    that a slow drift of the clock hits both; the noise is twice their median absolute deviation, at least 1 %.
    """

    provider: str = CPU
    batch: int = 1
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    rounds: int = 9
    slice_seconds: float = 0.02
    least_noise: float = 0.01

    @property
    def name(self) -> str:
        """Runtime, version and device."""
        import onnxruntime as ort

        device = _gpu_name() if self.provider == CUDA else f"{platform.machine()} {platform.processor()}".strip()
        return f"ONNX Runtime {ort.__version__}, {self.provider}, {device}, batch {self.batch}"

    def prepare(self, model: ModelProto) -> Any:
        """A bound session that ran once."""
        import onnxruntime as ort

        place = "cuda" if self.provider == CUDA else "cpu"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        try:
            providers = list(dict.fromkeys((self.provider, CPU)))
            session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
            binding = session.io_binding()
            for name, value in self._feeds(model).items():
                placed = ort.OrtValue.ortvalue_from_numpy(value, place, 0)
                binding.bind_ortvalue_input(name, placed)
            for output in session.get_outputs():
                binding.bind_output(output.name, place)
            session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's errors derive from nothing of their own
            line = str(error).strip().splitlines()[0]
            raise ExecutionError(f"ONNX Runtime does not run the model, so it cannot be measured: {line}") from error
        return session, binding

    def _feeds(self, model: ModelProto) -> dict[str, Any]:
        from graphopt.verification.draw import Sizes, draw
        from graphopt.verification.interface import required_inputs
        from graphopt.verification.ranges import infer_ranges

        sizes = Sizes(self.batch, 224, 128)
        drawn = draw(
            required_inputs(model), np.random.default_rng(0), infer_ranges(model), sizes, given=self.shapes or None
        )
        return dict(drawn)

    def compare(self, current: Any, candidate: Any) -> Comparison:
        """Times both in turns."""
        once = max(self._seconds(current, 1), 1e-7)
        times = max(1, round(self.slice_seconds / once))
        ratios = []
        for index in range(self.rounds):
            pair = (current, candidate) if index % 2 else (candidate, current)
            spent = {id(model): self._seconds(model, times) for model in pair}
            ratios.append(spent[id(candidate)] / spent[id(current)])
        middle = statistics.median(ratios)
        spread = statistics.median(abs(r - middle) for r in ratios)
        return Comparison(middle, max(self.least_noise, 2 * spread))

    @staticmethod
    def _seconds(prepared: Any, times: int) -> float:
        session, binding = prepared
        binding.synchronize_inputs()
        start = time.perf_counter()
        for _ in range(times):
            session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return (time.perf_counter() - start) / times


def _gpu_name() -> str:
    """The GPU's generation, as far as it is known."""
    from graphopt.tensorrt.capability import gpu_capability, text

    capability = gpu_capability()
    return "GPU" if capability is None else f"GPU of compute capability {text(capability)}"


@dataclass(frozen=True)
class EngineMeter:
    """What TensorRT's builder makes of a model, without running it: kernels, bytes that they move, activation memory.

    Deterministic. The ratio is the weighted geometric mean of the three ratios: launches count most at small batches.
    What changes it by less than `least_gain` is not worth a rewrite.
    """

    capability: str = "8.9"
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    least_gain: float = 0.01

    WEIGHTS = (0.6, 0.3, 0.1)

    @property
    def name(self) -> str:
        """Runtime, version and device."""
        from graphopt.tensorrt import prepare_polygraphy
        from graphopt.tensorrt.flavour import load_tensorrt

        prepare_polygraphy()
        trt, flavour = load_tensorrt()
        return f"{flavour.title} {trt.__version__} engine facts, compute capability {self.capability}"

    def prepare(self, model: ModelProto) -> EngineFacts:
        """The facts of an engine of the model. Raises EngineError when TensorRT does not take it."""
        from graphopt.tensorrt import build_engine

        shapes = {name: tuple(dims) for name, dims in self.shapes.items()}
        return build_engine(model, compute_capabilities=[self.capability], shapes=shapes or None).facts

    def compare(self, current: EngineFacts, candidate: EngineFacts) -> Comparison:
        """Compares counts."""
        pairs = (
            (current.kernels, candidate.kernels),
            (current.moved_bytes, candidate.moved_bytes),
            (current.activation_bytes, candidate.activation_bytes),
        )
        ratio = 1.0
        for (old, new), weight in zip(pairs, self.WEIGHTS, strict=True):
            if old and new:
                ratio *= (new / old) ** weight
        return Comparison(ratio, self.least_gain)
