"""What `explain`, `why`, `bisect` and `reduce` print."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.api import make_options, make_pipeline, open_source
from graphopt.diagnose import bisect, command_check, reduce_model, why
from graphopt.errors import ModelError
from graphopt.external import printable
from graphopt.model import check_place, read_proto
from graphopt.provenance import Origin, origins
from graphopt.targets import Target


def explain_file(path: Path, node: str | None) -> RenderableType:
    """Both ways: what each node was made of, and what became of each original node."""
    found = origins(read_proto(path))
    if node is None:
        changed = [o for o in found if o.rules]
        rest = Text(f"{len(found) - len(changed)} of {len(found)} nodes are as they were")
        return Group(_made_of(changed), rest) if changed else rest
    named = [o for o in found if o.node == node]
    became = [o for o in found if node in o.originals and o.node != node]
    if not named and not became:
        raise ModelError(
            f"no node is called '{printable(node)}', and none was made of one; `graphopt explain` lists all."
        )
    parts: list[RenderableType] = [_made_of(named)] if named else []
    if became:
        parts.append(Text(f"'{printable(node)}' went into: {', '.join(printable(o.node) for o in became)}"))
    return Group(*parts)


def _made_of(found: list[Origin]) -> Table:
    table = Table("node", "operator", "made of", "by", box=None, pad_edge=False)
    for origin in found:
        made_of = ", ".join(printable(name, 60) for name in origin.originals)
        by = ", ".join(printable(rule, 60) for rule in origin.rules) or "nothing: it is the model's own"
        table.add_row(Text(printable(origin.node)), Text(printable(origin.op_type)), Text(made_of), Text(by))
    return table


def why_file(path: Path, rule: str, node: str | None, pipeline: str, target: Target) -> RenderableType:
    """Each candidate's failed condition, nodes with the same condition on one line."""
    found = why(open_source(path, None)[1], make_pipeline(pipeline), make_options(target, (), ()), rule, node)
    by_reason: dict[str, list[str]] = defaultdict(list)
    for label, reason in found.conditions:
        by_reason[reason].append(label)
    table = Table("condition that failed", "times", "nodes", box=None, pad_edge=False)
    for reason, labels in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        names = ", ".join(printable(label, 60) for label in labels[:5]) + (", …" if len(labels) > 5 else "")
        table.add_row(Text(printable(reason, 300)), str(len(labels)), Text(names))
    places = ", ".join(printable(at, 60) for at in found.applied[:10])
    applied = Text(f"{found.rule} was applied {len(found.applied)} times{': ' + places if places else ''}")
    return Group(applied, table) if by_reason else Group(applied, Text("no candidate is left"))


def bisect_file(path: Path, check: str, pipeline: str, target: Target) -> RenderableType:
    """The first bad rewrite."""
    source = open_source(path, None)[1]
    found = bisect(source, make_pipeline(pipeline), make_options(target, (), ()), command_check(check))
    if found.first_bad is None:
        return Text(f"the check passes with all {found.total} rewrites")
    bad = found.first_bad
    consumed = ", ".join(printable(n.label, 60) for n in bad.consumed)
    made = ", ".join(printable(n.label, 60) for n in bad.made) or "nothing"
    return Text(
        f"the first bad rewrite is number {bad.number} of {found.total}: {bad.rule} at {printable(bad.at)}, "
        f"which took {consumed} and made {made} ({found.checks} checks); leave it out with --forbid {bad.rule}"
    )


def reduce_file(path: Path, output: Path, check: str) -> RenderableType:
    """The smaller model, written."""
    check_place(output)
    before = len(read_proto(path).graph.node)
    reduce_model(path, output, check)
    return Text(f"{before} nodes → {len(read_proto(output).graph.node)} nodes, written to {output}")
