"""Reshapes that divide the last axis into several, or join the last two, and surely leave the others as they are."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from graphopt.facts import Facts
from graphopt.graph import Node, Shape


@dataclass(frozen=True)
class Divided:
    """Entries of a Reshape's target: `leading` as they are written (0, −1 or numbers), `tail` as numbers."""

    leading: tuple[int, ...]
    tail: tuple[int, ...]


def divided_last_axis(node: Node, into: int, facts: Facts) -> Divided | None:
    """How the Reshape `node` divides the last axis of its input into `into` ones; None when it may do anything else.

    The last axis must be a known number; the others may be unknown: an entry 0 copies one, and a single −1 is what
    the product leaves, so the dimension at its place when all others stay.
    """
    source = node.input(0)
    target = facts.ints(node.input(1)) if node.op == "Reshape" else None
    if source is None or not source.shape or target is None or len(target) != len(source.shape) - 1 + into:
        return None
    size, leading, tail = source.shape[-1], target[:-into], target[-into:]
    if not isinstance(size, int) or not _keeps(leading, source.shape, node) or target.count(-1) > 1:
        return None
    if -1 in tail:
        known = prod(t for t in tail if t != -1)
        if known <= 0 or size % known:
            return None
        tail = tuple(size // known if t == -1 else t for t in tail)
    return Divided(leading, tail) if min(tail) > 0 and prod(tail) == size else None


def joins_last_axes(node: Node, facts: Facts) -> bool:
    """Whether the Reshape `node` joins the last two axes of its input, of known sizes, and does nothing else."""
    source = node.input(0)
    target = facts.ints(node.input(1)) if node.op == "Reshape" else None
    if source is None or source.shape is None or target is None or len(target) != len(source.shape) - 1:
        return False
    outer, inner = source.shape[-2:] if len(source.shape) > 1 else (None, None)
    if not isinstance(outer, int) or not isinstance(inner, int) or outer * inner < 1 or target.count(-1) > 1:
        return False
    return target[-1] in (-1, outer * inner) and _keeps(target[:-1], source.shape, node)


def _keeps(leading: tuple[int, ...], shape: Shape, node: Node) -> bool:
    """Whether entries of a Reshape's target keep the dimensions at their places, provided that the others do too."""
    if 0 in leading and node.int_attr("allowzero", 0):
        return False
    return all(t in (0, -1) or (t == dim and t > 0) for t, dim in zip(leading, shape, strict=False))
