"""Fills a report from a run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphopt.cost import Setting, graph_cost
from graphopt.driver import Stop
from graphopt.engine import Run
from graphopt.graph import Model
from graphopt.instruments import PassRecord
from graphopt.pipeline import Options, Pipeline
from graphopt.proof import Proved
from graphopt.report.report import PassSummary, Refusal, Report, RuleCount, Size
from graphopt.upgrade import UPGRADE
from graphopt.version import VERSION

if TYPE_CHECKING:
    from graphopt.tune import Tuning

MOST_PLACES = 5


@dataclass
class FirstSize:
    """An instrument that prices the model as it came, when the first pass of the first run begins."""

    options: Options
    size: Size | None = None

    def before(self, record: PassRecord, model: Model) -> None:
        """Prices the model, once."""
        if self.size is None:
            self.size = size_of(model, self.options)

    def after(self, record: PassRecord, model: Model) -> None:
        """Sees nothing new."""


def build_report(
    name: str,
    before: Size | None,
    proved: Proved,
    pipeline: Pipeline,
    options: Options,
    tuning: Tuning | None = None,
) -> Report:
    """The report of a proved run; `before` is the size of what it optimized, None where no pass ran."""
    run = proved.run
    after = size_of(run.model, options)
    return Report(
        model=name,
        version=VERSION,
        target=options.target.value,
        device=options.device,
        pipeline=str(pipeline),
        before=before or after,
        after=after,
        passes=(*_upgrade(run.model), *(_summary(r) for r in run.records)),
        refusals=_refusals(run),
        decisions=tuple({(d.rule, d.at): d for d in run.decisions}.values()),
        withdrawn=proved.withdrawn,
        verification=dataclasses.asdict(proved.verification),
        tidied=tuple(run.model.tidied),
        tolerated=tuple(run.model.tolerated),
        tuning=dataclasses.asdict(tuning) if tuning is not None else None,
    )


def size_of(model: Model, options: Options) -> Size:
    """Nodes, parameters, FLOPs and predicted time of a model; no weight is read."""
    cost = graph_cost(model, Setting.of(options))
    operators = Counter(n.op for g in model.graphs() for n in g.nodes if n.op != "Constant")
    return Size(
        nodes=sum(operators.values()),
        parameters=cost.parameters,
        weight_bytes=cost.parameter_bytes,
        flops=int(cost.flops),
        predicted_seconds=cost.seconds,
        peak_activation_bytes=int(cost.peak_activation_bytes),
        operators=dict(operators.most_common()),
    )


def _summary(record: PassRecord) -> PassSummary:
    rules = tuple(RuleCount(rule, count) for rule, count in record.counts.most_common())
    return PassSummary(record.text, record.nodes_before, record.nodes_after, record.seconds, record.stop, rules)


def _upgrade(model: Model) -> list[PassSummary]:
    """The line of an upgrade to a newer opset, where there was one."""
    done = model.upgraded
    if done is None:
        return []
    rules = (RuleCount(UPGRADE, done.rewritten),) if done.rewritten else ()
    name = f"from opset {done.before} to {done.after}"
    return [PassSummary(name, done.nodes_before, done.nodes_after, done.seconds, Stop.DONE, rules)]


def _refusals(run: Run) -> tuple[Refusal, ...]:
    """What still stands at the end, refused trades apart: they are among the decisions.

    A node that a later rewrite took away is no refusal any more.
    """
    priced = {(d.rule, d.reason) for d in run.decisions}
    result = []
    for (rule, reason), nodes in run.log.refusals.items():
        places = [n.label for n in nodes if not n.is_erased]
        if places and (rule, reason) not in priced:
            operator, opset = run.log.newer.get((rule, reason), ("", None))
            result.append(Refusal(rule, reason, len(places), tuple(places[:MOST_PLACES]), operator, opset))
    return tuple(result)
