"""All built-in snippets: importing this package fills the table."""

from tests.fuzz.snippets import (
    combining,
    control,
    decomposed,
    elementwise,
    horizontal,
    layout,
    linear,
    movement,
    noops,
    quantized,
    reductions,
    shapes,
    spatial,
    vertical,
)

__all__ = [
    "combining",
    "control",
    "decomposed",
    "elementwise",
    "horizontal",
    "layout",
    "linear",
    "movement",
    "noops",
    "quantized",
    "reductions",
    "shapes",
    "spatial",
    "vertical",
]
