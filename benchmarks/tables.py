"""Markdown tables, and the numbers in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; all columns but the first are aligned right."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def geometric_mean(values: Iterable[float]) -> float | None:
    """The geometric mean, or None of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def median(values: Iterable[float]) -> float | None:
    """The median, or None of nothing."""
    listed = sorted(values)
    middle = len(listed) // 2
    if not listed:
        return None
    return listed[middle] if len(listed) % 2 else (listed[middle - 1] + listed[middle]) / 2


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many digits behind the point, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"
