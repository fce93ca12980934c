"""Trades decided by measurement instead of prediction: `tune` finds verdicts, which `Options.verdicts` carries on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from graphopt.engine import Source, run_pipeline
from graphopt.pipeline import Options, Pipeline, Verdict
from graphopt.save import to_proto
from graphopt.targets import Target
from graphopt.tune.cache import cache_folder, cache_key, load, store
from graphopt.tune.meters import CPU, CUDA, Comparison, EngineMeter, LatencyMeter, Meter
from graphopt.tune.search import Budget, Made, Progress, Trial, Tuning, search

__all__ = [
    "Budget",
    "Comparison",
    "EngineMeter",
    "LatencyMeter",
    "Meter",
    "Trial",
    "Tuning",
    "choose_meter",
    "tune",
]


def tune(
    source: Source,
    pipeline: Pipeline,
    options: Options,
    *,
    budget: Budget | None = None,
    meter: Meter | None = None,
    folder: Path | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Tuning:
    """Measures what the rules that trade are worth on `source`, and remembers it in `folder` (the user's cache).

    `meter` is by default what suits the target and is there: see `choose_meter`. Rules that are forced or forbidden
    are not tried. Raises GraphoptError when the model cannot be measured as the cost model would have it.
    """
    budget = budget or Budget()
    meter = meter or choose_meter(options, source)
    folder = folder or cache_folder() / "tune"
    key = cache_key(source.open(), pipeline, options, budget, meter.name)
    known = load(folder, key)
    if known is not None:
        return known

    def make(verdicts: Mapping[str, Verdict]) -> Made:
        run = run_pipeline(source, pipeline, replace(options, verdicts=verdicts))
        return Made(to_proto(run.model), run.decisions)

    found = search(make, meter, budget, progress, options.force)
    store(folder, key, found)
    return found


def choose_meter(options: Options, source: Source) -> Meter:
    """Latency by ONNX Runtime (CUDA where it is there) for its target; engine facts for TensorRT where it is installed.

    Without TensorRT, latency stands in for it.
    """
    from graphopt.tensorrt import installed_flavour

    if options.target is Target.TENSORRT and installed_flavour() is not None:
        return EngineMeter(shapes=source.shapes)
    import onnxruntime as ort

    provider = CUDA if CUDA in ort.get_available_providers() else CPU
    return LatencyMeter(provider, options.batch or 1, source.shapes)
