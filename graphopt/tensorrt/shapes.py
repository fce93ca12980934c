"""Optimization profiles: the shapes that an engine takes where a dimension is known at run time only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from graphopt.errors import EngineError, ShapeError
from graphopt.external import printable

Shape: TypeAlias = "tuple[int, ...]"


@dataclass(frozen=True)
class ShapeRange:
    """The smallest shape of an input, the one that TensorRT tunes for, and the largest."""

    min: Shape
    opt: Shape
    max: Shape

    def __str__(self) -> str:
        shapes = [self.opt] if self.min == self.opt == self.max else [self.min, self.opt, self.max]
        return "/".join("x".join(map(str, shape)) for shape in shapes)


ShapeSpec: TypeAlias = "str | Sequence[int] | ShapeRange"


@dataclass(frozen=True)
class Hint:
    """The range of a dimension of unknown size, by what its name says it is."""

    min: int
    opt: int
    max: int


BATCH = Hint(1, 1, 8)
SEQUENCE = Hint(1, 128, 512)
EXTENT = Hint(224, 224, 224)  # fixed: a range of image sizes is seldom valid down to its smallest

_BY_NAME = (
    (re.compile(r"batch|^(n|b|bs)$"), BATCH),
    (re.compile(r"seq|len|time|token|past|total|^(s|t|l)$"), SEQUENCE),
    (re.compile(r"height|width|^(h|w)$"), EXTENT),
)


def parse_shape(spec: ShapeSpec) -> ShapeRange:
    """`1x3x224x224`, `1x3x224x224/4x3x224x224/8x3x224x224` (min/opt/max) or a sequence of sizes, as a range.

    Raises ShapeError when it is neither, or when a smallest size exceeds a larger one.
    """
    if isinstance(spec, ShapeRange):
        found = spec
    elif isinstance(spec, str):
        shapes = [_sizes(part, spec) for part in spec.split("/")]
        if len(shapes) not in (1, 3):
            raise ShapeError(f"'{printable(spec)}' is no shape; give one, or three as min/opt/max.")
        found = ShapeRange(shapes[0], shapes[len(shapes) // 2], shapes[-1])
    else:
        shape = tuple(int(size) for size in spec)
        found = ShapeRange(shape, shape, shape)
    ranks = {len(shape) for shape in (found.min, found.opt, found.max)}
    ordered = all(0 <= a <= b <= c for a, b, c in zip(found.min, found.opt, found.max, strict=False))
    if len(ranks) != 1 or not ordered:
        raise ShapeError(f"'{found}' is no range of shapes; give as many sizes thrice, none below its minimum.")
    return found


def profile_for(network: Any, shapes: Mapping[str, ShapeSpec]) -> dict[str, ShapeRange]:
    """The range of every input of a parsed network; `shapes` wins over what the dimensions' names say.

    Raises ShapeError when a shape names no input or does not fit it, EngineError when a size cannot be guessed.
    """
    inputs = {tensor.name: tensor for tensor in map(network.get_input, range(network.num_inputs))}
    for name in shapes:
        if name not in inputs:
            known = ", ".join(printable(each) for each in inputs) or "none"
            raise ShapeError(f"the model has no input '{printable(name)}'; its inputs are: {known}.")
    return {name: _range_of(tensor, shapes.get(name)) for name, tensor in inputs.items()}


def is_static(network: Any) -> bool:
    """Whether every input's shape is known, so that an engine needs no profile."""
    return all(min(network.get_input(i).shape, default=0) >= 0 for i in range(network.num_inputs))


def _range_of(tensor: Any, spec: ShapeSpec | None) -> ShapeRange:
    name = printable(tensor.name)
    dims = tuple(tensor.shape)
    if tensor.is_shape_tensor:
        raise EngineError(
            f"input '{name}' carries a shape, and an engine needs its values when it is built; "
            "make it a constant of the model."
        )
    if spec is None:
        hints = [_hint(tensor, axis, size, len(dims)) for axis, size in enumerate(dims)]
        return ShapeRange(tuple(h.min for h in hints), tuple(h.opt for h in hints), tuple(h.max for h in hints))
    found = parse_shape(spec)
    fits = len(found.opt) == len(dims) and all(
        size < 0 or (low == high == size) for size, low, high in zip(dims, found.min, found.max, strict=True)
    )
    if not fits:
        declared = "x".join("?" if size < 0 else str(size) for size in dims) or "a scalar"
        raise ShapeError(f"shape {found} does not fit input '{name}', which is {declared}.")
    return found


def _hint(tensor: Any, axis: int, size: int, rank: int) -> Hint:
    """A known size as it is; a sum of named sizes (`past + sequence`) term by term; else by name, then by position."""
    if size >= 0:
        return Hint(size, size, size)
    terms = [_term(term) for term in str(tensor.get_dimension_name(axis) or "").split("+")]
    known = [term for term in terms if term is not None]
    if len(known) == len(terms):
        return Hint(sum(h.min for h in known), sum(h.opt for h in known), sum(h.max for h in known))
    if axis == 0:
        return BATCH
    return EXTENT if rank >= 4 and axis >= 2 else SEQUENCE


def _term(text: str) -> Hint | None:
    term = text.strip().lower()
    if term.isdecimal():
        return Hint(int(term), int(term), int(term))
    return next((hint for pattern, hint in _BY_NAME if pattern.search(term)), None)


def _sizes(text: str, whole: str) -> Shape:
    parts = text.strip().split("x") if text.strip() else []
    if not all(part.strip().isdecimal() for part in parts):
        raise ShapeError(f"'{printable(whole)}' is no shape; write it like 1x3x224x224.")
    return tuple(int(part) for part in parts)
