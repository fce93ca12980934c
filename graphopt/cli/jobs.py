"""What the commands do, without the terminal: each returns something that rich can print."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

import graphopt
from graphopt.api import Result
from graphopt.cli.screen import Progress
from graphopt.engine import Source
from graphopt.errors import SaveError, VerificationError
from graphopt.instruments import Dumper, Instrument
from graphopt.model import check_place, read_proto, replacing
from graphopt.pipeline import Options
from graphopt.prover import Proving
from graphopt.report.build import size_of
from graphopt.report.text import render_report, render_size, render_verification
from graphopt.verification import Tolerance

if TYPE_CHECKING:
    from graphopt.tensorrt import Engine

Capabilities = list[tuple[int, int]]


@dataclass(frozen=True)
class Job:
    """One call of `graphopt optimize`."""

    model: Path
    output: Path
    settings: dict[str, Any]
    inputs: Path | None
    samples: int
    seed: int
    custom_ops: tuple[str, ...]
    engine: Path | None
    capabilities: Capabilities
    report: Path | None
    dump: Path | None
    keep_weights: bool = False


def run_job(job: Job, progress: Progress) -> RenderableType:
    """Optimizes, proves, then writes: the engine first, then report and model, both or none of the two."""
    for path in (job.output, job.engine, job.report):
        if path is not None:
            check_writable(path, job.model)
    instruments: list[Instrument] = [progress]
    if job.dump is not None:
        instruments.append(Dumper(job.dump))
    reproducers = job.output.parent / f"{job.output.stem}.reproducers"
    how = Proving(job.inputs, job.samples, job.seed, Tolerance(), job.custom_ops, reproducers)
    result = graphopt.optimize(
        job.model, **job.settings, proving=how, tune_progress=progress.tuning, instruments=instruments
    )
    if job.engine is not None:
        result = with_engine(result, job.engine, job.settings["shapes"], job.capabilities)
    with contextlib.nullcontext() if job.report is None else replacing(job.report) as report:
        if report is not None:
            report.write_bytes(result.report.to_json().encode())
        result.save(job.output, keep_weights=job.keep_weights, progress=progress.saving)
    sizes = f"{job.model.stat().st_size:,} bytes → {job.output.stat().st_size:,} bytes"
    return Group(render_report(result.report), Text(f"file: {sizes}, written to {job.output}"))


def check_writable(path: Path, source: Path) -> None:
    """Raises SaveError before the long work when `path` cannot be written, or is the input itself."""
    if path.exists() and source.exists() and path.samefile(source):
        raise SaveError(f"'{path}' is the input; name another file, the input stays as it is.")
    check_place(path)


def with_engine(result: Result, plan: Path, shapes: dict[str, tuple[int, ...]], capabilities: Capabilities) -> Result:
    """The result with an engine built of it, saved to `plan` and noted in the report."""
    from graphopt.tensorrt import build_engine, compare

    engine = build_engine(result.model, shapes=shapes or None, compute_capabilities=capabilities or None)
    compared = compare(result.model, engine)
    if not compared.passed and compared.not_done is None:
        raise VerificationError(f"the engine's outputs differ from the model's: {compared}")
    engine.save(plan)
    noted = {"summary": f"{summary(engine)}; {compared}", **engine.facts.to_dict()}
    report = replace(result.report, engine=noted)
    return Result(result.graph, lambda: report)


def summary(engine: Engine) -> str:
    """What an engine is, on one line."""
    facts = engine.facts
    generations = ", ".join(f"{major}.{minor}" for major, minor in engine.compute_capabilities)
    activations = f"{facts.activation_bytes:,}" if facts.activation_bytes is not None else "unknown"
    return (
        f"{engine.flavour.title} {engine.version} engine for compute capability {generations}: "
        f"{facts.kernels} kernels, "
        f"{facts.sync_layers} synchronisation layers, {activations} bytes of activations, {len(engine.plan):,} bytes"
    )


def compare_files(
    original: Path,
    candidate: Path,
    *,
    inputs: Path | None,
    samples: int,
    seed: int,
    shapes: dict[str, tuple[int, ...]],
    rtol: float | None,
    atol: float | None,
    libraries: tuple[str, ...],
) -> RenderableType:
    """Compares two files. Raises VerificationError when they differ."""
    from graphopt.verification import Tolerance

    found = graphopt.verify(
        original,
        candidate,
        inputs=inputs,
        samples=samples,
        seed=seed,
        shapes=shapes or None,
        tolerance=Tolerance(rtol=rtol, atol=atol),
        custom_op_libraries=libraries,
    )
    if not found.passed:
        raise VerificationError(f"the models differ: {'; '.join(found.problems)}")
    return render_verification(found)


def build_file(
    model: Path, output: Path, shapes: dict[str, tuple[int, ...]], capabilities: Capabilities
) -> RenderableType:
    """Builds an engine of a file."""
    check_writable(output, model)
    read_proto(model)
    engine = graphopt.build_engine(model, shapes=shapes or None, compute_capabilities=capabilities or None)
    engine.save(output)
    return Text(f"{summary(engine)}, written to {output}")


def inspect_file(path: Path, shapes: dict[str, tuple[int, ...]]) -> RenderableType:
    """What a file holds."""
    model = Source(read_proto(path), path.parent, shapes).open()
    return render_size(path.name, model, size_of(model, Options()))
