"""Building engines: from a model to a plan file and the facts about it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from graphopt.errors import EngineError
from graphopt.external import printable
from graphopt.tensorrt.capability import Capability, choose_capabilities, gpu_capability
from graphopt.tensorrt.facts import EngineFacts, engine_facts
from graphopt.tensorrt.flavour import FULL, RTX, Flavour
from graphopt.tensorrt.parse import ParsedModel, parse_model
from graphopt.tensorrt.record import Record
from graphopt.tensorrt.shapes import ShapeRange, ShapeSpec, is_static, profile_for


@dataclass(frozen=True, eq=False)
class Engine:
    """A built engine: `plan` is the serialized engine, `shapes` the range of each input, `seconds` the build's time."""

    plan: bytes = field(repr=False)
    flavour: Flavour
    version: str
    compute_capabilities: tuple[Capability, ...]
    shapes: Mapping[str, ShapeRange]
    seconds: float
    _record: Record = field(repr=False)

    @cached_property
    def facts(self) -> EngineFacts:
        """What TensorRT made of the graph. Raises EngineError when it did not say."""
        return engine_facts(self._record)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan, whole or not at all. Raises SaveError; an older file is then still there."""
        from graphopt.model import write_atomically

        write_atomically(Path(path), self.plan)


def build_engine(
    model: onnx.ModelProto | str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    compute_capabilities: Iterable[str | Capability] | None = None,
    shapes: Mapping[str, ShapeSpec] | None = None,
    timing_cache: str | os.PathLike[str] | None = None,
) -> Engine:
    """Builds a TensorRT engine and, with `output`, saves its plan.

    `compute_capabilities`, such as `["8.9"]`, are TensorRT-RTX's targets; left out, the GPU that is present, and
    without one 8.9. Full TensorRT builds on a GPU for that GPU. `shapes` gives an input with dynamic dimensions one
    shape (`1x3x224x224`) or a range (min/opt/max with slashes); left out, the dimensions' names decide: a batch is 1
    to 8, a sequence 1 to 512 tuned for 128, an image 224 high and wide. DOUBLE inputs and outputs become FLOAT.
    `timing_cache` is a file in which full TensorRT keeps measured tactics between builds; TensorRT-RTX keeps none.

    Raises EngineError when no TensorRT is installed, or it does not take the model or cannot build it; ModelError when
    the model cannot be read; ShapeError when a shape does not fit; SaveError when the plan cannot be written.
    """
    parsed = parse_model(model)
    gpu = gpu_capability()
    capabilities = choose_capabilities(parsed.trt, parsed.flavour, compute_capabilities, gpu)
    ranges = profile_for(parsed.network, shapes or {})
    start = time.perf_counter()
    plan = _build(parsed, capabilities, ranges, timing_cache if parsed.flavour is FULL else None)
    engine = Engine(
        plan,
        parsed.flavour,
        str(parsed.trt.__version__),
        capabilities,
        ranges,
        time.perf_counter() - start,
        parsed.record,
    )
    if output is not None:
        engine.save(output)
    return engine


def _build(
    parsed: ParsedModel,
    capabilities: tuple[Capability, ...],
    ranges: Mapping[str, ShapeRange],
    timing_cache: str | os.PathLike[str] | None,
) -> bytes:
    from polygraphy.backend.trt import engine_bytes_from_network
    from polygraphy.exception import PolygraphyException

    cache = None if timing_cache is None else os.fspath(timing_cache)
    try:
        with quiet_polygraphy():
            plan = bytes(
                engine_bytes_from_network(
                    (parsed.builder, parsed.network),
                    config=_config(parsed, capabilities, ranges, cache),
                    save_timing_cache=cache,
                )
            )
            if parsed.flavour is FULL and parsed.record.listing is None:
                _inspect(parsed, plan)
    except PolygraphyException as error:
        reason = parsed.record.last_error() or " ".join(str(error).split())
        raise EngineError(f"{parsed.flavour.title} cannot build the engine: {printable(reason, limit=300)}") from error
    return plan


def _config(
    parsed: ParsedModel,
    capabilities: tuple[Capability, ...],
    ranges: Mapping[str, ShapeRange],
    timing_cache: str | None,
) -> Callable[[Any, Any], Any]:
    """Makes the builder configuration. The profile is made here: Polygraphy's reads input names as wildcards."""
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import CreateConfig

    options: dict[str, Any] = {
        "profiles": [],
        "profiling_verbosity": parsed.trt.ProfilingVerbosity.DETAILED,  # else the listing names fused regions only
        "load_timing_cache": timing_cache if timing_cache is not None and os.path.exists(timing_cache) else None,
    }
    if parsed.flavour is RTX:
        create = CreateConfigRTX(compute_capabilities=list(capabilities), **options)
    else:
        create = CreateConfig(**options)

    def configured(builder: Any, network: Any) -> Any:
        config = create(builder, network)
        if not is_static(network):
            profile = builder.create_optimization_profile()
            for name, shapes in ranges.items():
                profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
            config.add_optimization_profile(profile)
        return config

    return configured


def _inspect(parsed: ParsedModel, plan: bytes) -> None:
    """Asks the engine inspector for the listing where the builder did not log it. Needs the GPU, as the build did."""
    runtime = parsed.trt.Runtime(parsed.builder.logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return
    inspector = engine.create_engine_inspector()
    parsed.record.listing = inspector.get_engine_information(parsed.trt.LayerInformationFormat.ONELINE)
    if parsed.record.activation_bytes is None:
        parsed.record.activation_bytes = engine.device_memory_size_v2


def quiet_polygraphy() -> Any:
    """Polygraphy's logger writes to the terminal; a library does not."""
    from polygraphy.logger import G_LOGGER

    return G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1)


def default_shapes(model: onnx.ModelProto | str | os.PathLike[str]) -> dict[str, ShapeRange]:
    """The shapes that `build_engine` would use for the model by itself. Raises what it raises before it builds."""
    return profile_for(parse_model(model).network, {})
