"""Line charts with logarithmic axes as SVG, by hand: no plotting library is needed to regenerate a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis: data from `low` to `high`, both positive, onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        share = (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """The powers of ten within the axis."""
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        return [10.0**power for power in range(first, last + 1)]


def chart(title: str, x_label: str, y_label: str, series: Mapping[str, Points]) -> str:
    """The chart of several named series of positive points; a series without points is left out."""
    drawn = {name: sorted(points) for name, points in series.items() if points}
    across, up = _axes([point for points in drawn.values() for point in points])
    parts = [_text(LEFT, TOP - 16, title, size=15), *_frame(across, up, x_label, y_label)]
    for index, (name, points) in enumerate(drawn.items()):
        parts += _line(name, points, across, up, COLOURS[index % len(COLOURS)], TOP + 14 + 20 * index)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _axes(points: Points) -> tuple[Axis, Axis]:
    """Axes that hold all points, each at least one decade long and ending at powers of ten."""

    def ends(values: list[float]) -> tuple[float, float]:
        low = 10.0 ** math.floor(math.log10(min(values, default=1.0)))
        high = 10.0 ** math.ceil(math.log10(max(values, default=10.0)))
        return low, max(high, low * 10)

    across = Axis(*ends([x for x, _ in points]), LEFT, WIDTH - RIGHT)
    return across, Axis(*ends([y for _, y in points]), HEIGHT - BOTTOM, TOP)


def _frame(across: Axis, up: Axis, x_label: str, y_label: str) -> list[str]:
    parts = []
    for tick in across.ticks():
        x = across.at(tick)
        parts.append(f'<line x1="{x:.1f}" y1="{up.start}" x2="{x:.1f}" y2="{up.end}" stroke="#ddd"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{tick:,.0f}", anchor="middle"))
    for tick in up.ticks():
        y = up.at(tick)
        parts.append(f'<line x1="{across.start}" y1="{y:.1f}" x2="{across.end}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{tick:g}", anchor="end"))
    parts.append(_text((across.start + across.end) / 2, HEIGHT - 10, x_label, anchor="middle"))
    parts.append(_text(8, TOP - 16, y_label))
    return parts


def _line(name: str, points: Points, across: Axis, up: Axis, colour: str, legend: float) -> list[str]:
    pixels = [(across.at(x), up.at(y)) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in pixels]
    side = WIDTH - RIGHT + 12
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *dots,
        f'<line x1="{side}" y1="{legend - 4}" x2="{side + 18}" y2="{legend - 4}" stroke="{colour}" stroke-width="2"/>',
        _text(side + 24, legend, name),
    ]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'
