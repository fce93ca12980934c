"""Running the original and the candidate on the same inputs, by the first engine that runs both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from graphopt.errors import ExecutionError
from graphopt.verification import source
from graphopt.verification.samples import Run, Sample
from graphopt.verification.sessions import Engine, Failed, OnnxRuntime, Reference, Rejected, Unbounded, failed_run
from graphopt.verification.source import Located
from graphopt.verification.values import Feeds, Value, names

Open = Callable[[Located], Engine]


@dataclass(frozen=True)
class Execution:
    """Both models' outputs on the same inputs; `failure` says why the candidate has none from some sample on."""

    samples: Sequence[Sample]
    outputs: Sequence[Mapping[str, Value]]
    engine: str
    open_engine: Open
    failure: str = ""


class Original:
    """The original model and what it gives, run at most once by each engine however many candidates there are."""

    def __init__(self, model: Located, make_samples: Callable[[Run], list[Sample]], libraries: Sequence[str]) -> None:
        self.model = model
        self._make_samples = make_samples
        self._engines: list[Open] = [lambda located: OnnxRuntime(located, libraries), Reference]
        self._found: dict[int, tuple[list[Sample], str] | Exception] = {}

    def run_with(self, candidate: Located) -> Execution:
        """Runs the candidate on the inputs on which the original ran.

        ONNX Runtime does it, or onnx.reference where ONNX Runtime lacks a kernel for either model and all operators are
        standard ones. Never are both sessions open. That the candidate does not run where the original does is a
        finding, not an error. Raises `ExecutionError` when no engine runs the original.
        """
        failure: Execution | None = None
        standard = not source.foreign_operators(self.model.proto) and not source.foreign_operators(candidate.proto)
        for index, open_engine in enumerate(self._engines if standard else self._engines[:1]):
            found = self._samples(index)
            if isinstance(found, Exception):
                continue
            samples, engine = found
            try:
                with running(open_engine(candidate), "candidate") as run:
                    return _on_samples(run, Execution(samples, [], engine, open_engine))
            except Rejected as error:
                failure = Execution(samples, [], engine, open_engine, str(error))
                if not error.unimplemented:
                    return failure
        if failure is None:
            raise ExecutionError(self._complaint())
        return failure

    def _samples(self, index: int) -> tuple[list[Sample], str] | Exception:
        if index not in self._found:
            try:
                engine = self._engines[index](self.model)
                with running(engine, "original") as run:
                    self._found[index] = self._make_samples(run), engine.name
            except Unbounded as error:
                raise ExecutionError(
                    f"the model cannot be executed here ({str(error).rstrip('.')}); compare each rewrite on its own "
                    "with --verify each, or skip the comparison with --no-verify."
                ) from error
            except (Rejected, Failed) as error:
                self._found[index] = error
        return self._found[index]

    def _complaint(self) -> str:
        foreign = source.foreign_operators(self.model.proto)
        unknown = [name for name in foreign if not name.startswith("com.microsoft:")]
        if unknown:
            return (
                f"The model has operators outside the ONNX standard ({names(unknown)}) that cannot be executed here: "
                "name their custom-operator library, or skip the comparison with --no-verify."
            )
        said = str(self._found[0]).rstrip(".")
        return (
            f"The original model itself does not run, so that outputs cannot be compared ({said}): "
            "give inputs that it runs on with --inputs, or skip the comparison with --no-verify."
        )


@contextmanager
def running(engine: Engine, name: str) -> Iterator[Run]:
    """A function that runs the engine through Polygraphy and raises `Failed`."""
    from graphopt.verification.runners import quiet, runner

    with quiet(), runner(engine, name) as active:

        def run(feeds: Feeds) -> dict[str, Value]:
            try:
                return dict(active.infer(dict(feeds), check_inputs=False))
            except Failed:
                raise
            except Exception as error:  # onnxruntime's exceptions have no common base below Exception
                raise failed_run(error) from error

        yield run


def _on_samples(run: Run, execution: Execution) -> Execution:
    outputs: list[Mapping[str, Value]] = []
    failure = ""
    try:
        outputs.extend(run(sample.feeds) for sample in execution.samples)
    except Failed as error:
        failure = str(error)
    return Execution(execution.samples, outputs, execution.engine, execution.open_engine, failure)


def once_more(original: Located, execution: Execution) -> Execution:
    """The original in the candidate's place: a second run, in a new session, on the same inputs."""
    with running(execution.open_engine(original), "original") as run:
        return _on_samples(run, execution)
