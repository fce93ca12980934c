"""Slice between positions of which enough is known."""

from __future__ import annotations

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.constants.settling import Settled, put
from graphopt_passes.constants.symbols import Element, Symbol
from graphopt_passes.constants.values import KnownValues, known_values


class SettleSlice(Rule[Settled]):
    """Slice(x, starts, ends) with positions computed at run time = Slice with constants.

    Known positions stay; one that equals the size of the dimension of x that it cuts (steps above 0) becomes "the
    end", which is the largest integer.

    Opsets: 10 on. Exactness: exact.
    """

    roots = ("Slice",)

    def match(self, node: Node, facts: Facts) -> Settled | NoMatch:
        data = node.input(0)
        positions = [node.input(1), node.input(2)]
        if data is None or data.shape is None or None in positions:
            return NoMatch("nothing is known of the input, or the positions are attributes", node)
        if all(facts.is_constant(t) for t in positions):
            return NoMatch("the positions are constant already", node)
        values = known_values(facts)
        axes, steps = self._argument(node, 3, values), self._argument(node, 4, values)
        found = []
        for index in (1, 2):
            value = values.of(node.input(index))
            if value is None or value.elements.ndim != 1 or axes is None or steps is None:
                return NoMatch("the number of axes, the axes or the steps are known at run time only", node)
            written = self._written(list(value.elements), data, axes, steps, values)
            if written is None:
                return NoMatch("a position is known at run time only", node)
            largest = np.iinfo(numpy_dtype(value.dtype)).max
            array = np.array([largest if w is None else w for w in written], numpy_dtype(value.dtype))
            if not facts.is_constant(node.input(index)):
                found.append((index, array))
        return Settled(node, tuple(found))

    @staticmethod
    def _argument(node: Node, index: int, values: KnownValues) -> tuple[int, ...] | None:
        """The known values of `axes` or `steps`; what leaving them out means when they are left out."""
        if node.input(index) is not None:
            value = values.of(node.input(index))
            return value.ints if value is not None else None
        starts = values.of(node.input(1))
        if starts is None:
            return None
        return tuple(range(starts.elements.size)) if index == 3 else (1,) * starts.elements.size

    @staticmethod
    def _written(
        elements: list[Element], data: Tensor, axes: tuple[int, ...], steps: tuple[int, ...], values: KnownValues
    ) -> list[int | None] | None:
        """A number for each position, None for "the end"; None when one is neither."""
        if not len(elements) == len(axes) == len(steps) or data.shape is None:
            return None
        written: list[int | None] = []
        for element, axis, step in zip(elements, axes, steps, strict=True):
            if not isinstance(element, Symbol):
                written.append(int(element))
            elif (
                step > 0
                and -len(data.shape) <= axis < len(data.shape)
                and values.symbols.dimension(data, axis % len(data.shape)) is element
            ):
                written.append(None)
            else:
                return None
        return written

    def rewrite(self, found: Settled, edit: Rewriter) -> None:
        put(found, edit)
