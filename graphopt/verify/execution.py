"""Running the original and the candidate on the same inputs, by the first engine that runs both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from graphopt.errors import ExecutionError
from graphopt.verify import source
from graphopt.verify.samples import Run, Sample
from graphopt.verify.sessions import Engine, Failed, OnnxRuntime, Reference, Rejected, first_line
from graphopt.verify.source import Located
from graphopt.verify.values import Feeds, Value, names

Open = Callable[[Located], Engine]


@dataclass(frozen=True)
class Execution:
    """Both models' outputs on the same inputs; `failure` says why the candidate has none from some sample on."""

    samples: Sequence[Sample]
    outputs: Sequence[Mapping[str, Value]]
    engine: str
    failure: str = ""


def execute(
    original: Located,
    candidate: Located,
    make_samples: Callable[[Run], list[Sample]],
    libraries: Sequence[str] = (),
) -> Execution:
    """Runs both models, the original first and its session closed before the candidate's is opened.

    ONNX Runtime does it, or onnx.reference where ONNX Runtime lacks a kernel for either model and all operators are
    standard ones. That the candidate does not run where the original does is a finding, not an error. Raises
    `ExecutionError` when no engine runs the original.
    """
    complaints: list[str] = []
    failure = Execution([], [], "")
    for open_engine in _engines(original, candidate, libraries):
        try:
            with running(open_engine(original), "original") as (run, engine):
                samples = make_samples(run)
        except (Rejected, Failed) as error:
            complaints.append(str(error))
            continue
        try:
            with running(open_engine(candidate), "candidate") as (run, _):
                return _on_samples(run, samples, engine)
        except Rejected as error:
            failure = Execution(samples, [], engine, str(error))
            if not error.unimplemented:
                return failure
    if failure.failure:
        return failure
    raise ExecutionError(_cannot_run(original, complaints))


def _engines(original: Located, candidate: Located, libraries: Sequence[str]) -> Iterator[Open]:
    yield lambda model: OnnxRuntime(model, libraries)
    if not source.foreign_operators(original.proto) and not source.foreign_operators(candidate.proto):
        yield Reference


@contextmanager
def running(engine: Engine, name: str) -> Iterator[tuple[Run, str]]:
    """A function that runs the engine through Polygraphy and raises `Failed`, and the engine's name in words."""
    from graphopt.verify.runners import quiet, runner

    with quiet(), runner(engine, name) as active:

        def run(feeds: Feeds) -> dict[str, Value]:
            try:
                return dict(active.infer(dict(feeds), check_inputs=False))
            except Failed:
                raise
            except Exception as error:  # onnxruntime's exceptions have no common base below Exception
                raise Failed(first_line(error)) from error

        yield run, engine.name


def _on_samples(run: Run, samples: Sequence[Sample], engine: str) -> Execution:
    outputs: list[Mapping[str, Value]] = []
    try:
        outputs.extend(run(sample.feeds) for sample in samples)
    except Failed as error:
        return Execution(samples, outputs, engine, str(error))
    return Execution(samples, outputs, engine)


def _cannot_run(original: Located, complaints: Sequence[str]) -> str:
    foreign = [name for name in source.foreign_operators(original.proto) if not name.startswith("com.microsoft:")]
    if foreign:
        return (
            f"The model has operators outside the ONNX standard ({names(foreign)}) that cannot be executed here: "
            "name their custom-operator library, or skip the comparison with --no-verify."
        )
    said = (complaints[0] if complaints else "no engine takes it").rstrip(".")
    return (
        f"The original model itself does not run, so that outputs cannot be compared ({said}): "
        "give inputs that it runs on with --inputs, or skip the comparison with --no-verify."
    )
