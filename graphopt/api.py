"""The library's front door: `optimize`, and the `Result` that it returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import ModelProto

from graphopt.collector import few_collections
from graphopt.cost import Setting
from graphopt.engine import Source
from graphopt.errors import PipelineError
from graphopt.graph import Model
from graphopt.instruments import Instrument
from graphopt.model import read_proto, save, to_proto
from graphopt.pipeline import Options, Pipeline, parse_pipeline, suggestion
from graphopt.plugins import PRESETS, check_rule_names, find_passes
from graphopt.prover import Mode, Prover, Proving
from graphopt.report import Report
from graphopt.report.build import FirstSize, build_report, size_of
from graphopt.surgeon import from_surgeon, is_surgeon_graph, to_surgeon
from graphopt.targets import Target
from graphopt.thin import ThinModel, read_thin

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

    from graphopt.tune import Budget, Tuning

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Result:
    """An optimized model. `model` is a ModelProto of its own; `save` writes without building one.

    The report prices the model, so it is made when it is first asked for.
    """

    graph: Model = field(repr=False)
    make_report: Callable[[], Report] = field(repr=False)

    @cached_property
    def report(self) -> Report:
        """What was done, what was not and why, and how the result was proved."""
        return self.make_report()

    @cached_property
    def model(self) -> ModelProto:
        """The optimized model, weights inside. Raises SaveError when they pass protobuf's 2 GiB."""
        return to_proto(self.graph)

    def to_graphsurgeon(self) -> gs.Graph:
        """The optimized model as a graph of onnx-graphsurgeon."""
        return to_surgeon(self.model)

    def save(
        self, path: AnyPath, *, keep_weights: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Writes the model, whole or not at all, one weight in memory at a time. Raises SaveError.

        Weights that the input keeps in other files, or that pass 2 GiB, go to `<name>.data` beside it; with
        `keep_weights` those that nothing changed stay in the input's files. `progress` is told how many bytes of how
        many were written.
        """
        save(self.graph, path, keep_weights=keep_weights, progress=progress)


def optimize(
    source: ModelProto | gs.Graph | AnyPath,
    *,
    target: str | Target = Target.TENSORRT,
    pipeline: str | Pipeline = "default",
    force: Iterable[str] = (),
    forbid: Iterable[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    opset: int | None = None,
    verify: bool | str = True,
    proving: Proving | None = None,
    device: str = "h200",
    batch: int | None = None,
    layout: str = "nchw",
    launch: str = "eager",
    block: str = "plain",
    tune: Budget | None = None,
    tune_progress: Callable[[int, int, str], None] | None = None,
    instruments: Sequence[Instrument] = (),
) -> Result:
    """Optimizes a model and proves that its outputs still match.

    `source` is a ModelProto or a GraphSurgeon graph, which are not changed, or a path.

    `force` and `forbid` name rules that are applied whatever they cost, or never. `shapes` fixes dimensions of inputs.
    `opset` is the opset to bring the model to first, through onnx's version converter; more may be recognised then.
    `device`, `batch`, `layout` ("nchw" or "nhwc") and `launch` ("eager", or "captured" in a CUDA graph) are what the
    cost model decides for. With `tune`, what trades is measured instead, as long as the budget lasts; `tune_progress`
    is told how many trials were done, how many there are, and which comes now. `block` spells conv-bias-activation
    blocks: "plain", "function" or "fused".

    `verify` is True (or "model") to compare the whole model's outputs, "each" to compare every rewrite as well, False
    (or "none") to check validity only; `proving` says on which inputs and how closely.

    Raises ModelError, ShapeError, PipelineError for what is the caller's to mend, OpsetError where the model cannot be
    brought to `opset`, ExecutionError where it cannot be executed to compare it (`verify=False` goes without).
    """
    options = make_options(target, force, forbid, device=device, batch=batch, layout=layout, launch=launch, block=block)
    steps = make_pipeline(pipeline)
    name, as_it_came = open_source(source, shapes)
    opened = replace(as_it_came, opset=opset)
    tuning = None
    if tune is not None:
        tuning = measure(opened, steps, options, tune, tune_progress)
        options = replace(options, verdicts=tuning.verdicts)
    first = FirstSize(options, None if opset is None else size_of(as_it_came.open(), options))
    with few_collections():
        proved = Prover(opened, steps, options, proving or Proving(), [first, *instruments]).prove(mode_named(verify))
    return Result(proved.run.model, lambda: build_report(name, first.size, proved, steps, options, tuning))


def measure(
    source: Source,
    pipeline: Pipeline,
    options: Options,
    budget: Budget,
    progress: Callable[[int, int, str], None] | None,
) -> Tuning:
    """Measures the rewrites that trade; see `graphopt.tune.tune`."""
    from graphopt.tune import tune

    return tune(source, pipeline, options, budget=budget, progress=progress or (lambda done, total, text: None))


def mode_named(verify: bool | str) -> Mode:
    """The mode of proving that `verify` asks for. Raises PipelineError for an unknown one."""
    if isinstance(verify, bool):
        return Mode.MODEL if verify else Mode.NONE
    modes = [mode.value for mode in Mode]
    if verify not in modes:
        raise PipelineError(f"there is no way to verify called '{verify}'; take {', '.join(modes)}.")
    return Mode(verify)


def open_source(
    source: ModelProto | gs.Graph | AnyPath, shapes: Mapping[str, Sequence[int]] | None
) -> tuple[str, Source]:
    """The model's name for the report, and the model."""
    if is_surgeon_graph(source):
        source = from_surgeon(source)
    if isinstance(source, ModelProto):
        return source.graph.name or "model", Source(source, None, dict(shapes or {}))
    path = Path(source)
    thin = read_thin(path) or ThinModel(read_proto(path))
    return path.name, Source(thin.proto, path.parent, dict(shapes or {}), thin.stretches)


def make_pipeline(pipeline: str | Pipeline) -> Pipeline:
    """The pipeline that a text names. Raises PipelineError."""
    if isinstance(pipeline, Pipeline):
        return pipeline
    return parse_pipeline(pipeline, find_passes(), PRESETS)


BLOCKS = ("plain", "function", "fused")


def make_options(
    target: str | Target,
    force: Iterable[str],
    forbid: Iterable[str],
    *,
    device: str = "h200",
    batch: int | None = None,
    layout: str = "nchw",
    launch: str = "eager",
    block: str = "plain",
) -> Options:
    """Checked options. Raises PipelineError for an unknown target, rule, device, layout, launch or block spelling."""
    targets = [t.value for t in Target]
    value = target.value if isinstance(target, Target) else target
    if value not in targets:
        raise PipelineError(f"there is no target '{value}'{suggestion(value, targets)}; take {', '.join(targets)}.")
    if block not in BLOCKS:
        raise PipelineError(f"there is no block spelling '{block}'; take {', '.join(BLOCKS)}.")
    if block == "fused" and value != Target.ONNXRUNTIME.value:
        raise PipelineError("block spelling 'fused' needs --target onnxruntime: no other target has FusedConv.")
    forced, forbidden = check_rule_names(force), check_rule_names(forbid)
    if both := forced & forbidden:
        raise PipelineError(f"rule '{min(both)}' is both forced and forbidden; choose one.")
    options = Options(Target(value), forced, forbidden, device, batch, layout, launch, block=block)
    Setting.of(options)  # raises for a device, layout or launch that it does not know
    return options
