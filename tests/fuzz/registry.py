"""The table of snippets: small functions that put a piece of graph behind a tensor.

A snippet is `function(draw, builder, tensor) -> Tensor | tuple of Tensors | None`. It reads `tensor`, adds nodes
through `builder.emit` and gives back what later snippets may read. It says which tensors it takes (`takes`), from which
opset on it works (`since`) and, when it draws what a rule looks for, the names of these rules (`rules`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnx import TensorProto

from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw

Made = Any  # Tensor | Sequence[Tensor] | None
Function = Callable[[Draw, Builder, Tensor], Made]
FLOAT, DOUBLE, HALF = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16
INTEGERS = (TensorProto.INT64, TensorProto.INT32)


@dataclass(frozen=True)
class Kind:
    """What a snippet takes: which tensors fit, and how a new graph input that fits is drawn."""

    name: str
    fits: Callable[[Tensor], bool]
    fresh: Callable[[Draw], tuple[int, tuple[int, ...]]]


def _dims(draw: Draw, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw.integer(1, 5) for _ in range(draw.integer(low, high)))


def _image(draw: Draw) -> tuple[int, tuple[int, ...]]:
    return FLOAT, (draw.integer(1, 2), draw.choice([4, 2, 6, 8, 3, 1]), draw.integer(5, 8), draw.integer(5, 8))


def _spatial(draw: Draw) -> tuple[int, tuple[int, ...]]:
    rank = draw.choice([2, 1, 3])
    return FLOAT, (draw.integer(1, 2), draw.choice([4, 2, 6, 3, 1]), *(draw.integer(4, 7) for _ in range(rank)))


def _any(draw: Draw) -> tuple[int, tuple[int, ...]]:
    kind = draw.choice([FLOAT] * 6 + [TensorProto.INT64, TensorProto.INT32, DOUBLE, HALF])
    return kind, _dims(draw, 0, 4)


def _is_image(t: Tensor) -> bool:
    return t.dtype == FLOAT and t.rank == 4 and min(t.shape) >= 1 and min(t.shape[2:]) >= 4 and t.shape[1] <= 12


def _is_spatial(t: Tensor) -> bool:
    return t.dtype == FLOAT and t.rank in (3, 4, 5) and min(t.shape) >= 1 and min(t.shape[2:]) >= 3 and t.shape[1] <= 12


ANY = Kind("any", lambda t: True, _any)
FLOATS = Kind("floats", lambda t: t.dtype == FLOAT, lambda d: (FLOAT, _dims(d, 0, 4)))
RANKED = Kind("ranked", lambda t: t.dtype == FLOAT and t.rank >= 1, lambda d: (FLOAT, _dims(d, 1, 4)))
MATRIX = Kind("matrix", lambda t: t.dtype == FLOAT and t.rank >= 2 and t.size > 0, lambda d: (FLOAT, _dims(d, 2, 4)))
FLAT = Kind("flat", lambda t: t.dtype == FLOAT and t.rank == 2 and t.size > 0, lambda d: (FLOAT, _dims(d, 2, 2)))
IMAGE = Kind("image", _is_image, _image)
SPATIAL = Kind("spatial", _is_spatial, _spatial)
TOKENS = Kind(
    "tokens",
    lambda t: t.dtype == FLOAT and t.rank == 3 and t.size > 0 and t.shape[2] % 4 == 0,
    lambda d: (FLOAT, (d.integer(1, 2), d.integer(2, 5), d.choice([4, 8, 12]))),
)
INTEGER = Kind("integer", lambda t: t.dtype in INTEGERS, lambda d: (d.choice(INTEGERS), _dims(d, 0, 3)))
NUMBERS = Kind(
    "numbers",
    lambda t: t.dtype in (FLOAT, DOUBLE, *INTEGERS),
    lambda d: (d.choice([FLOAT, *INTEGERS, DOUBLE]), _dims(d, 0, 3)),
)
BOOLEAN = Kind("boolean", lambda t: t.dtype == TensorProto.BOOL, lambda d: (TensorProto.BOOL, _dims(d, 0, 3)))


@dataclass(frozen=True)
class Snippet:
    """One entry of the table."""

    name: str
    weight: int
    takes: Kind
    since: int
    before: int
    rules: tuple[str, ...]
    function: Function


SNIPPETS: dict[str, Snippet] = {}


def snippet(
    name: str,
    weight: int = 10,
    takes: Kind = FLOATS,
    since: int = 7,
    before: int = 10_000,
    rules: tuple[str, ...] = (),
) -> Callable[[Function], Function]:
    """Put a function into the table; a name can be taken once only."""

    def register(function: Function) -> Function:
        if name in SNIPPETS:
            raise ValueError(f"two snippets are named {name!r}")
        SNIPPETS[name] = Snippet(name, weight, takes, since, before, rules, function)
        return function

    return register


def usable(opset: int, rule: str = "") -> list[tuple[Snippet, int]]:
    """The snippets that exist in an opset, each with its weight; with `rule` those that draw what it looks for."""
    entries = (entry for entry in SNIPPETS.values() if not rule or rule in entry.rules)
    return [(entry, entry.weight) for entry in entries if entry.since <= opset < entry.before]
