"""Arguments from text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphopt.errors import EngineError, ShapeError

_SHAPE = re.compile(r"(?P<name>.+?)=(?P<dims>\d+(?:[x,]\d+)*|scalar)")
_CAPABILITY = re.compile(r"(?:sm_?)?(\d+)\.?(\d)", re.IGNORECASE)


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`["input=1x3x224x224"]` as `{"input": (1, 3, 224, 224)}`; `scalar` for no dimensions. Raises ShapeError."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise ShapeError(f"'{text}' is no shape; write NAME=1x3x224x224.")
        name, dims = found["name"], found["dims"]
        if name in shapes:
            raise ShapeError(f"the shape of input '{name}' is given twice; give it once.")
        shapes[name] = () if dims == "scalar" else tuple(int(d) for d in re.split("[x,]", dims))
    return shapes


def parse_capabilities(texts: Sequence[str]) -> list[tuple[int, int]]:
    """`["8.9", "sm86"]` as `[(8, 9), (8, 6)]`. Raises EngineError."""
    result = []
    for text in texts:
        found = _CAPABILITY.fullmatch(text)
        if found is None:
            raise EngineError(f"'{text}' is no compute capability; write it like 8.9.")
        result.append((int(found[1]), int(found[2])))
    return result
