"""Slices that tile an axis of one tensor: one Split."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import axis_slices, normalized_axes
from graphopt_passes.common.cutting import divide
from graphopt_passes.concats.segments import END, cut_of, length

# A tensor with more readers is left alone.
MOST_READERS = 256


@dataclass(frozen=True)
class Tiles:
    """Slices of `source` along `axis` with the sizes `sizes`, in order, that are all of it together."""

    source: Tensor
    axis: int
    slices: tuple[Node, ...]
    sizes: tuple[int, ...]


class SlicesToSplit(Rule[Tiles]):
    """x[0:a], x[a:b], x[b:] = Split(x, (a, b - a, |x| - b)).

    The Slices have one axis, the same for all, and step 1; the size of x along it is a known number. Slices that
    overlap these stay. Opsets: all (sizes are an attribute before 13). Exact.
    """

    roots = ("Slice",)

    def match(self, node: Node, facts: Facts) -> Tiles | NoMatch:
        source, slices = node.input(0), axis_slices(node, facts)
        rank = facts.rank(source)
        if source is None or source.constant is not None or slices is None or len(slices) != 1 or rank is None:
            return NoMatch("it is no Slice of one axis with known borders", node)
        axes = normalized_axes((slices[0].axis,), rank)
        size = length(source, axes[0]) if axes is not None else None
        if axes is None or size is None or slices[0].step != 1 or len(source.consumers) > MOST_READERS:
            return NoMatch("the size of its axis is not known", node)
        tiles = _tiles(source, axes[0], node, facts)
        borders = [0]
        chosen = []
        while borders[-1] < size and borders[-1] in tiles:
            stop, tile = tiles[borders[-1]]
            borders.append(stop)
            chosen.append(tile)
        if borders[-1] != size or len(chosen) < 2 or chosen[0] is not node:
            return NoMatch("it is not the first of Slices that tile their tensor", node)
        sizes = tuple(b - a for a, b in pairwise(borders))
        return Tiles(source, axes[0], tuple(chosen), sizes)

    def rewrite(self, found: Tiles, edit: Rewriter) -> None:
        edit.replace_each(found.slices, divide(found.source, found.sizes, found.axis, edit))


def _tiles(source: Tensor, axis: int, first: Node, facts: Facts) -> dict[int, tuple[int, Node]]:
    """Non-empty Slices of `source` along `axis` in the graph of `first`, by their start: where they stop, and the node.

    Of several that start at one place the first is taken, at the place of `first` that one.
    """
    size = length(source, axis)
    found: dict[int, tuple[int, Node]] = {}
    for reader in (first, *source.consumers):
        result = reader.output(0)
        if reader.op != "Slice" or reader.graph is not first.graph or result is None or not result.is_used:
            continue
        part = cut_of(result, axis, facts)
        if part is None or part.source is not source or not isinstance(part.start, int):
            continue
        stop = size if part.stop == END else part.stop
        if isinstance(stop, int) and stop > part.start:
            found.setdefault(part.start, (stop, reader))
    return found
