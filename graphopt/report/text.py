"""The report for a terminal: every line answers a question. Names from the model are printed without markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from graphopt.external import printable
from graphopt.graph import Model, Tensor
from graphopt.graph.order import levels, parts
from graphopt.report.report import Refusal, Report, Size

if TYPE_CHECKING:
    from graphopt.verification import Verification

MOST_OPERATORS = 12


def render_report(report: Report) -> RenderableType:
    """The whole report."""
    parts: list[RenderableType] = [
        Text(f"{printable(report.model)} for {report.target} (decisions for {report.device})", style="bold"),
        _passes(report),
        _sizes(report),
    ]
    parts.extend(Text(f"tidied: {printable(said, 300)}") for said in report.tidied)
    parts.extend(Text(f"tolerated: {printable(said, 300)}", style="yellow") for said in report.tolerated)
    if report.decisions:
        parts.append(_decisions(report))
    if report.refusals:
        parts.append(_refusals(report.refusals))
    parts.extend(
        Text(
            f"taken back: {w.rule} at {printable(w.at)} (rewrite {w.number}): {printable(w.problem, 300)}",
            style="bold red",
        )
        for w in report.withdrawn
    )
    parts.append(_proof(report))
    if report.tuning is not None:
        parts.append(Text(_tuning(report.tuning)))
    if report.engine is not None:
        parts.append(Text(f"engine: {report.engine.get('summary', report.engine)}"))
    return Group(*parts)


def _tuning(tuning: dict[str, Any]) -> str:
    """How the trades were measured, on one line."""
    trials = tuning["trials"]
    kept = sum(1 for trial in trials if trial["kept"])
    ended = {"done": "all tried", "trials": "stopped at the number of trials", "seconds": "stopped at the time limit"}
    remembered = ", remembered from an earlier run" if tuning["from_cache"] else ""
    return f"measured: {len(trials)} trials with {tuning['meter']}, {kept} kept ({ended[tuning['stop']]}{remembered})"


def _passes(report: Report) -> Table:
    table = Table("pass", "rule", _right("times"), _right("nodes before"), _right("after"), box=None, pad_edge=False)
    for step in report.passes:
        rules = step.rules or (None,)
        for index, rule in enumerate(rules):
            table.add_row(
                step.name if index == 0 else "",
                rule.rule if rule is not None else "-",
                str(rule.count) if rule is not None else "",
                str(step.nodes_before) if index == 0 else "",
                str(step.nodes_after) if index == 0 else "",
            )
    return table


def _sizes(report: Report) -> Table:
    before, after = report.before, report.after
    table = Table("", _right("before"), _right("after"), _right("ratio"), box=None, pad_edge=False)
    rows: list[tuple[str, float, float, str]] = [
        ("nodes", before.nodes, after.nodes, ","),
        ("parameters", before.parameters, after.parameters, ","),
        ("weight bytes", before.weight_bytes, after.weight_bytes, ","),
        ("FLOPs", before.flops, after.flops, ","),
        (f"predicted µs on {report.device}", before.predicted_seconds * 1e6, after.predicted_seconds * 1e6, ",.1f"),
        ("peak activation bytes", before.peak_activation_bytes, after.peak_activation_bytes, ","),
    ]
    for name, old, new, form in rows:
        table.add_row(name, format(old, form), format(new, form), f"{new / old:.2f}" if old else "")
    return table


def _decisions(report: Report) -> Group:
    """One line a trade."""
    lines = []
    for decision in report.decisions:
        verdict = "taken" if decision.taken else "refused"
        line = f"{verdict}: {decision.rule} at {printable(decision.at, 80)}: {printable(decision.reason, 300)}"
        lines.append(Text(line, style="" if decision.taken else "yellow"))
    return Group(*lines)


def _refusals(refusals: tuple[Refusal, ...]) -> Group:
    """One line a reason."""
    lines = []
    for refusal in refusals:
        places = ", ".join(printable(p, 60) for p in refusal.places[:2]) + (", …" if refusal.count > 2 else "")
        if refusal.opset is not None:
            lines.append(Text(f"{_gain(refusal)} ({refusal.rule}: {places})"))
            continue
        times = "once" if refusal.count == 1 else f"{refusal.count} times"
        lines.append(Text(f"not done {times}: {refusal.rule} ({places}): {printable(refusal.reason, 300)}"))
    return Group(*lines)


def _gain(refusal: Refusal) -> str:
    """What a newer opset would bring."""
    count = "1 place" if refusal.count == 1 else f"{refusal.count} places"
    return f"{refusal.operator}: {count} would become one node with --opset {refusal.opset}"


def _proof(report: Report) -> Text:
    compared = "outputs" in report.verification["checks"]
    lines = [f"{'verified' if compared else 'NOT verified'}: {printable(str(report.verification['how']), 400)}"]
    lines += [f"not checked: {printable(str(point), 300)}" for point in report.verification["not_checked"]]
    return Text("\n".join(lines), style="green" if compared else "yellow")


def render_verification(found: Verification) -> RenderableType:
    """The result of a comparison that passed."""
    return Text(f"the outputs match: {printable(found.how, 400)}", style="green")


def render_size(name: str, model: Model, size: Size) -> RenderableType:
    """What a model holds."""
    table = Table(box=None, show_header=False, pad_edge=False)
    proto = model.proto
    opsets = ", ".join(f"{printable(domain) or 'ai.onnx'} {version}" for domain, version in model.opsets.items())
    rows = [
        ("model", printable(name)),
        ("made by", printable(f"{proto.producer_name} {proto.producer_version}".strip()) or "unknown"),
        ("IR version, opsets", f"{model.ir_version}; {opsets}"),
        ("inputs", ", ".join(_interface(t) for t in model.graph.inputs) or "none"),
        ("outputs", ", ".join(_interface(t) for t in model.graph.outputs) or "none"),
        ("nodes", f"{size.nodes:,} (Constant nodes not counted)"),
        ("levels", _levels(model)),
        ("functions", f"{len(model.functions):,}"),
        ("parameters", f"{size.parameters:,} in {size.weight_bytes:,} bytes"),
        ("FLOPs", f"{size.flops:,}"),
        ("peak activation bytes", f"{size.peak_activation_bytes:,}"),
    ]
    for label, value in rows:
        table.add_row(label, Text(value))
    operators = Table("operator", _right("nodes"), box=None, pad_edge=False)
    for operator, count in list(size.operators.items())[:MOST_OPERATORS]:
        operators.add_row(Text(printable(operator)), str(count))
    if len(size.operators) > MOST_OPERATORS:
        rest = sum(list(size.operators.values())[MOST_OPERATORS:])
        operators.add_row(f"{len(size.operators) - MOST_OPERATORS} more", str(rest))
    return Group(table, operators)


def _levels(model: Model) -> str:
    """How deep and how wide the main graph is: what must run in turn, and what could run at once."""
    found = levels(model.graph)
    widest = max((len(level) for level in found), default=0)
    return f"{len(found):,} in turn, up to {widest:,} nodes in one, {len(parts(model.graph)):,} independent parts"


def _interface(tensor: Tensor) -> str:
    if tensor.shape is None:
        return printable(tensor.name)
    dims = ", ".join("?" if d is None else str(d) for d in tensor.shape)
    return f"{printable(tensor.name)} [{printable(dims)}]"


def _right(title: str) -> Column:
    return Column(title, justify="right")
