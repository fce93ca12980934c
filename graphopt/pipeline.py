"""Passes, the manager that runs them, and the text form of pipelines.

A pipeline is a list of pass names that reads like a table of contents: `clean-up, fold-constants{rounds=2}`.
Passes are frozen dataclasses; their fields are their options.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_type_hints

from graphopt.driver import Stop, run_rules
from graphopt.errors import PipelineError
from graphopt.facts import Facts
from graphopt.graph import Model
from graphopt.inference import refresh_types
from graphopt.instruments import Instrument, PassRecord
from graphopt.rewrite import Rewriter
from graphopt.rule import Rule
from graphopt.targets import Target

# A pipeline that still changes something after so many rounds never ends: two of its passes undo each other.
MOST_ROUNDS = 8


@dataclass(frozen=True)
class Verdict:
    """What measuring said of a trade: whether to make it. `ratio` is the cost with this verdict over that without."""

    take: bool
    ratio: float


@dataclass(frozen=True)
class Options:
    """What a run was asked for, beyond its pipeline.

    `force` and `forbid` are names of rules. `device`, `batch`, `layout` ("nchw" or "nhwc") and `launch` ("eager" or
    "captured") are for the cost model. `max_growth` is the number of bytes by which folding may make the model larger,
    over its inputs. `verdicts` are trades (by `Application.key`) that were measured: the cost model follows them.
    """

    target: Target = Target.TENSORRT
    force: frozenset[str] = frozenset()
    forbid: frozenset[str] = frozenset()
    device: str = "h200"
    batch: int | None = None
    layout: str = "nchw"
    launch: str = "eager"
    max_growth: int = 1 << 20
    block: str = "plain"
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


@dataclass
class Context:
    """What a pass works with."""

    model: Model
    facts: Facts
    edit: Rewriter
    options: Options
    # the fixed points that were reached: which rules, and the model's state then
    _settled: dict[tuple[Rule[Any], ...], tuple[int, int]] = field(default_factory=dict)

    def run_rules(self, rules: Iterable[Rule[Any]]) -> str:
        """Runs the rules that are not forbidden to their fixed point; returns the stop reason.

        Where neither the graph nor its types changed since these rules found nothing, there is nothing to look at. A
        run that applied something looked again only near what it changed: rules may see, and prices know, more.
        """
        allowed = tuple(rule for rule in rules if rule.name not in self.options.forbid)
        if not allowed or self._settled.get(allowed) == self._state():
            return Stop.DONE
        before = len(self.edit.log.applications)
        stop = run_rules(allowed, self.facts, self.edit)
        if stop == Stop.DONE and len(self.edit.log.applications) == before:
            self._settled[allowed] = self._state()
        return stop

    def _state(self) -> tuple[int, int]:
        """What is another number after every change: of the graph, tags aside, and of the types that are known."""
        return self.edit.changes, self.model.inferences


class Pass(ABC):
    """A step of a pipeline. Subclasses are frozen dataclasses; a field `max_count: int` is the option `max-count`.

    `rules` lists the rules that the pass may apply, so that they can be named, forced, forbidden and explained.
    """

    name: ClassVar[str]
    rules: ClassVar[tuple[Rule[Any], ...]] = ()

    def run(self, context: Context) -> str | None:
        """Changes the model through `context.edit` only; returns a stop reason or None."""
        return context.run_rules(self.rules)

    def __str__(self) -> str:
        """The text that parses back to this pass."""
        options = []
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if value != f.default:
                options.append(f"{f.name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}")
        return f"{self.name}{{{' '.join(options)}}}" if options else self.name


@dataclass(frozen=True)
class Pipeline:
    """Passes in order."""

    passes: tuple[Pass, ...]

    def __str__(self) -> str:
        return ", ".join(str(p) for p in self.passes)


PassTypes = dict[str, type[Pass]]

_ITEM = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(?:\{([^{}]*)\})?\s*(?:,|$)")


def parse_pipeline(text: str, passes: PassTypes, presets: dict[str, str]) -> Pipeline:
    """The pipeline that `text` names: pass names with options in braces, or names of presets, separated by commas.

    Raises PipelineError for unknown passes, unknown options and malformed text.
    """
    result: list[Pass] = []
    at = 0
    while at < len(text):
        found = _ITEM.match(text, at)
        if found is None:
            raise PipelineError(
                f"the pipeline does not read on from '{text[at : at + 30]}'; write it like 'clean-up, fold-constants'."
            )
        name, options = found.group(1), found.group(2)
        at = found.end()
        if name in presets and options is None:
            result.extend(parse_pipeline(presets[name], passes, {}).passes)
            continue
        if name not in passes:
            raise PipelineError(
                f"there is no pass '{name}'{suggestion(name, [*passes, *presets])}; `graphopt passes` lists them."
            )
        result.append(_configured(passes[name], options or ""))
    return Pipeline(tuple(result))


def suggestion(name: str, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" when a known name is close to `name`."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _configured(cls: type[Pass], text: str) -> Pass:
    types = get_type_hints(cls)
    known = {f.name: types[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for item in text.split():
        key, equals, value = item.partition("=")
        option = key.replace("-", "_")
        if not equals or option not in known:
            names = ", ".join(k.replace("_", "-") for k in known) or "none"
            raise PipelineError(f"pass '{cls.name}' has no option '{item}'; its options are: {names}.")
        values[option] = _converted(value, known[option], f"{cls.name}{{{key}}}")
    return cls(**values)


def _converted(value: str, kind: Any, where: str) -> Any:
    if kind is bool and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if kind is str:
        return value
    try:
        if kind in (int, float):
            return kind(value)
    except ValueError:
        pass
    raise PipelineError(f"'{value}' is no {getattr(kind, '__name__', kind)} for {where}.")


@dataclass
class PassManager:
    """Runs a pipeline over a model; the instruments see each pass before and after."""

    pipeline: Pipeline
    instruments: Sequence[Instrument] = ()
    records: list[PassRecord] = field(default_factory=list)
    _steps: int = 0  # passes that ran, over all rounds

    def run(self, context: Context) -> None:
        """Runs the passes in order, round after round until one changes nothing: what a late pass leaves is work for an
        early one, and optimizing a result again must change nothing.

        A limit on applications that is reached ends the run early. So does `MOST_ROUNDS`; the rules of the last round
        are then logged as undoing each other.
        """
        log = context.edit.log
        for _ in range(MOST_ROUNDS):
            first = len(log.applications)
            self._round(context)
            latest = log.applications[first:]
            if log.stopped_at_limit or not latest:
                return
            refresh_types(context.model)
        node = next(iter((*latest[-1].made, *latest[-1].consumed)), None)
        if node is not None:
            log.refuse(" / ".join(sorted({a.rule for a in latest})), "these rules undo each other; stopped", node)

    def _round(self, context: Context) -> None:
        """Runs each pass once; of a round behind the first only the passes that changed something are recorded."""
        nodes, is_first = context.model.node_count(), not self.records
        for step in self.pipeline.passes:
            record = PassRecord(self._steps, str(step), nodes)
            self._steps += 1
            for instrument in self.instruments:
                instrument.before(record, context.model)
            first = len(context.edit.log.applications)
            record.stop = step.run(context) or Stop.DONE
            record.applications = context.edit.log.applications[first:]
            if record.applications:
                nodes = context.model.node_count()
            record.nodes_after = nodes
            if is_first or record.applications:
                self.records.append(record)
            for instrument in reversed(self.instruments):
                instrument.after(record, context.model)
            if context.edit.log.stopped_at_limit:
                break
