"""Expand to a shape of which enough is known."""

from __future__ import annotations

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.constants.settling import Settled, put, with_inferred
from graphopt_passes.constants.symbols import Symbol
from graphopt_passes.constants.values import known_values


class SettleExpand(Rule[Settled]):
    """Expand(x, t) = Expand(x, c), t computed at run time, c a constant.

    An element of t that is known stays; one that equals the dimension of x that it meets, or meets one above 1, adds
    nothing and becomes 1.

    Opsets: 8 on. Exactness: exact.
    """

    roots = ("Expand",)

    def match(self, node: Node, facts: Facts) -> Settled | NoMatch:
        data, target = node.input(0), node.input(1)
        if data is None or target is None or target.constant is not None or data.shape is None:
            return NoMatch("the shape is constant already, or nothing is known of the input", node)
        values = known_values(facts)
        wanted = values.of(target)
        if wanted is None or wanted.elements.ndim != 1:
            return NoMatch("the number of dimensions is not known", node)
        elements = with_inferred(list(wanted.elements), node.output(0), values)
        offset = len(elements) - len(data.shape)
        written = []
        for place, element in enumerate(elements):
            if not isinstance(element, Symbol):
                written.append(int(element))
                continue
            met = values.symbols.dimension(data, place - offset) if place >= offset else None
            if met is not element and (not isinstance(met, int) or met <= 1):
                return NoMatch("it widens by a dimension that is known at run time only", node)
            written.append(1)
        return Settled(node, ((1, np.array(written, np.int64)),))

    def rewrite(self, found: Settled, edit: Rewriter) -> None:
        put(found, edit)
