"""Reshape to a shape of which enough is known."""

from __future__ import annotations

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Refused, Rule
from graphopt_passes.constants.settling import Settled, put, with_inferred
from graphopt_passes.constants.symbols import Element, Symbol
from graphopt_passes.constants.values import KnownValues, known_values


class SettleReshape(Rule[Settled]):
    """Reshape(x, t) = Reshape(x, c), t computed at run time, c a constant with at most one -1 and zeros that copy.

    An element of t that is known stays; one that equals the dimension of x at its own place becomes 0 (copied); a
    single other one becomes -1. With -1 no other dimension may be 0 at run time, since then nothing could be inferred:
    so it is used only where all others are numbers above 0. What inference says of the result counts as known too.

    Opsets: 5 on (`allowzero` of 14 is honoured). Exactness: exact.
    """

    roots = ("Reshape",)

    def match(self, node: Node, facts: Facts) -> Settled | NoMatch:
        data, target = node.input(0), node.input(1)
        if data is None or target is None:
            return NoMatch("the shape is an attribute", node)
        if target.constant is not None:
            return NoMatch("the shape is constant already", node)
        values = known_values(facts)
        wanted = values.of(target)
        if wanted is None or wanted.elements.ndim != 1:
            return NoMatch("the number of dimensions is not known", node)
        literal_zero = node.int_attr("allowzero", 0) != 0
        elements = with_inferred(list(wanted.elements), node.output(0), values)
        numbers = [self._number(e, i, data, literal_zero, values) for i, e in enumerate(elements)]
        if literal_zero and any(e == 0 for e in elements if not isinstance(e, Symbol)):
            return NoMatch("a dimension of size 0 is asked for", node)
        written = self._written(numbers, data)
        if isinstance(written, str):
            return Refused(written, node) if len(numbers) - numbers.count(None) else NoMatch(written, node)
        return Settled(node, ((1, np.array(written, np.int64)),), "allowzero")

    @staticmethod
    def _number(element: Element, place: int, data: Tensor, literal_zero: bool, values: KnownValues) -> int | None:
        """The number that may be written for an element: itself, or 0 for a copied dimension; None for neither."""
        if not isinstance(element, Symbol):
            return int(element)
        if data.shape is not None and place < len(data.shape) and values.symbols.dimension(data, place) is element:
            return 0
        return None

    @staticmethod
    def _written(numbers: list[int | None], data: Tensor) -> list[int] | str:
        """The constant shape, or why there is none."""
        missing = numbers.count(None)
        if missing == 0:
            return [n for n in numbers if n is not None]
        if missing > 1:
            return "more than one dimension of the shape is known at run time only"
        if -1 in numbers:
            return "a dimension of the shape is known at run time only, and another is inferred already"
        for place, number in enumerate(numbers):
            if number == 0:
                copied = data.shape[place] if data.shape is not None and place < len(data.shape) else None
                if not isinstance(copied, int) or copied <= 0:
                    return "one dimension would be inferred beside a copied one, which fails when that one is 0"
        return [-1 if n is None else n for n in numbers]

    def rewrite(self, found: Settled, edit: Rewriter) -> None:
        put(found, edit)
