"""What `benchmarks.peers` found, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from benchmarks.tables import geometric_mean, median, number, table
from benchmarks.tool import PEERS, TOOLS

if TYPE_CHECKING:
    from benchmarks.peers import Attempt, Row

MIB = 1024 * 1024

Figure = Callable[["Attempt"], float]


def render(rows: Sequence[Row], machine: str, repeats: int) -> str:
    """The page: nodes, where a peer has fewer, time, memory, and what went wrong."""
    parts = [
        "# graphopt and its peers",
        "Written by `make bench`; do not edit. " + machine + ".",
        "## Nodes",
        "Nodes of bodies count, nodes of functions count once for each call, Constant nodes do not. Every result is\n"
        "compared with the original on two inputs. † uses operators outside the ONNX standard, ✗ is wrong: neither\n"
        "counts for the best peer. *crash* and *timeout* left no result.",
        _nodes(rows),
        _shortfalls(rows),
        "## Time",
        f"Seconds of the whole process, imports, load and save included, output checks off; the least of {repeats}.",
        _figures(rows, lambda made: made.seconds, 2),
        "## Processor time",
        "The same in seconds of processor time, which the machine's other work disturbs less.",
        _figures(rows, lambda made: made.cpu_seconds, 2),
        "## Memory",
        "Peak resident memory of the whole process in MiB.",
        _figures(rows, lambda made: made.peak_bytes / MIB, 0),
        "## What went wrong",
        _problems(rows),
    ]
    return "\n\n".join(parts) + "\n"


def best_peer(row: Row) -> int | None:
    """The fewest nodes of any peer's right result in standard operators."""
    counted = [made.nodes for tool, made in row.attempts.items() if tool in PEERS and made.counts]
    return min((nodes for nodes in counted if nodes is not None), default=None)


def excess(row: Row) -> int:
    """How many nodes more than the best peer graphopt keeps."""
    ours, best = row.attempts["graphopt"].nodes, best_peer(row)
    return max(ours - best, 0) if ours is not None and best is not None else 0


def _nodes(rows: Sequence[Row]) -> str:
    header = ["model", "before", *PEERS, "best peer", "graphopt", ""]
    lines = [
        [
            row.model,
            row.nodes,
            *(_cell(row.attempts[tool]) for tool in PEERS),
            "-" if (best := best_peer(row)) is None else best,
            _cell(row.attempts["graphopt"]),
            f"{over} more" if (over := excess(row)) else "",
        ]
        for row in rows
    ]
    return table(header, lines)


def _cell(made: Attempt) -> str:
    if made.nodes is None:
        return made.status
    return f"{made.nodes}{' †' if made.foreign else ''}{' ✗' if made.status == 'wrong' else ''}"


def _shortfalls(rows: Sequence[Row]) -> str:
    short = [f"{row.model} ({excess(row)})" for row in rows if excess(row)]
    if not short:
        return f"graphopt keeps no more nodes than the best peer on all {len(rows)} models."
    return f"graphopt keeps more nodes than the best peer on {len(short)} of {len(rows)} models: {', '.join(short)}."


def _figures(rows: Sequence[Row], figure: Figure, digits: int) -> str:
    """A figure of each tool on each model, then means, and ratios over the models that both finished."""
    lines: list[list[object]] = [
        [row.model, *(number(_done(row, tool, figure), digits) for tool in TOOLS)] for row in rows
    ]
    lines.append(["**geometric mean**", *(number(geometric_mean(_all(rows, tool, figure)), digits) for tool in TOOLS)])
    lines.append(["**median**", *(number(median(_all(rows, tool, figure)), digits) for tool in TOOLS)])
    lines.append(["**graphopt's, divided by it**", *(number(_ratio(rows, tool, figure)) for tool in TOOLS)])
    return table(["model", *TOOLS], lines)


def _done(row: Row, tool: str, figure: Figure) -> float | None:
    made = row.attempts[tool]
    return None if made.status in ("crash", "timeout") else figure(made)


def _all(rows: Sequence[Row], tool: str, figure: Figure) -> list[float]:
    return [value for row in rows if (value := _done(row, tool, figure)) is not None]


def _ratio(rows: Sequence[Row], tool: str, figure: Figure) -> float | None:
    pairs = [(_done(row, "graphopt", figure), _done(row, tool, figure)) for row in rows]
    return geometric_mean(ours / theirs for ours, theirs in pairs if ours is not None and theirs is not None)


def _problems(rows: Sequence[Row]) -> str:
    lines = [
        f"- {tool} on {row.model}: {made.status}; {' '.join(made.problem.split())[-200:]}".rstrip("; ")
        for row in rows
        for tool, made in row.attempts.items()
        if made.status != "ok"
    ]
    lines += [
        f"- {tool} on {row.model}: {', '.join(made.foreign)} †"
        for row in rows
        for tool, made in row.attempts.items()
        if made.foreign
    ]
    return "\n".join(lines) or "Nothing."
