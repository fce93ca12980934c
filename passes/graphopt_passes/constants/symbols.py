"""Integers that are not known but have an identity: the elements of partly known shapes.

Equal symbols are equal numbers, whatever these are; nothing is proven by what a symbol is not.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from graphopt.graph import Graph, Tensor

# Names of dimensions that this analysis found; they stay inside and are never written to a file.
_NAMED = "computed__"
# Constants up to this may be multiplied with or added to dimensions: these are far from 2^32.
_FARTHEST = 1 << 31


class Symbol:
    """An integer that only the run time knows. `least` is a lower bound, None when there is none.

    `is_dimension` marks the size of one dimension of a tensor, which every integer type can hold. `op` and `operands`
    say of what the integer is the result; they are empty where it is none. `reach` is how many times the dimensions of
    which it is made it may be, as far as constants say; `is_far` where that, or what it is made of, may be any integer.
    """

    __slots__ = ("is_dimension", "least", "names", "op", "operands", "reach")

    def __init__(self, least: int | None = None, is_dimension: bool = False) -> None:
        self.least = least
        self.is_dimension = is_dimension
        self.reach = 1
        self.op = ""
        self.operands: tuple[Element, ...] = ()
        self.names: dict[Graph, str] = {}

    @property
    def is_far(self) -> bool:
        """Whether it may lie at an end of the 64 bits, where sums and products wrap around."""
        return self.reach > _FARTHEST


# bool is an int here: comparisons of shapes are elements too
Element = int | Symbol


class Symbols:
    """One Symbol for each equal expression: dimension names of one graph, and operations on symbols."""

    def __init__(self) -> None:
        self._interned: dict[Hashable, Symbol] = {}
        self._counts: set[frozenset[Element]] = set()

    def note_count(self, tensor: Tensor) -> None:
        """Takes into account that two free dimensions times known ones above 0 are how many elements `tensor` has."""
        dims = [self.dimension(tensor, axis) for axis in range(len(tensor.shape or ()))]
        free = [dim for dim in dims if isinstance(dim, Symbol)]
        if len(free) == 2 and 0 not in dims:
            self._counts.add(frozenset(free))

    def is_count(self, a: Element, b: Element) -> bool:
        """Whether a tensor has a · b elements or more, so that the product is an integer of 64 bits."""
        return frozenset((a, b)) in self._counts

    def dimension(self, tensor: Tensor, axis: int) -> Element:
        """The size of dimension `axis` of a tensor of known rank.

        A dimension's name counts in its own graph only (and in the branches of an If): the names of a loop's body may
        mean another number in each iteration.
        """
        assert tensor.shape is not None
        dim = tensor.shape[axis]
        if isinstance(dim, int):
            return dim
        if dim is None:
            return self._intern((tensor, axis, "dimension"), 0, True)
        scope = _scope(tensor.graph)
        symbol = self._intern((scope, dim), 0, True)
        symbol.names.setdefault(scope, dim)
        return symbol

    def name(self, symbol: Symbol, graph: Graph) -> str:
        """The name that a dimension of a tensor in `graph` gets when its size is `symbol`."""
        scope = _scope(graph)
        name = symbol.names.get(scope)
        if name is None:
            name = symbol.names[scope] = f"{_NAMED}{len(self._interned)}"
            self._interned[scope, name] = symbol
        return name

    def opaque(self, tensor: Tensor, position: int) -> Symbol:
        """Element `position` of a tensor of which nothing is known."""
        symbol = self._intern((tensor, position), None, False)
        symbol.reach = _FARTHEST + 1
        return symbol

    def expression(self, op: str, operands: tuple[Element, ...], least: int | None = None) -> Symbol:
        """`op` applied to `operands`; equal expressions are one symbol.

        A sum or product that a large constant, or a number that is no dimension, may carry beyond 64 bits wraps around
        there: it has no bound.
        """
        reach = _reach(op, operands)
        wraps = op in ("Add", "Mul") and reach > _FARTHEST
        symbol = self._intern((op, *operands), None if wraps else least, False)
        symbol.op, symbol.operands, symbol.reach = op, operands, reach
        return symbol

    def _intern(self, key: Hashable, least: int | None, is_dimension: bool) -> Symbol:
        symbol = self._interned.get(key)
        if symbol is None:
            symbol = self._interned[key] = Symbol(least, is_dimension)
        return symbol


def _reach(op: str, operands: tuple[Element, ...]) -> int:
    each = [e.reach if isinstance(e, Symbol) else max(1, abs(int(e))) for e in operands]
    return math.prod(each) if op == "Mul" else sum(each) if op in ("Add", "Sub") else max(each, default=1)


def least_of(element: Element) -> int | None:
    """A number that the element is never below."""
    return element.least if isinstance(element, Symbol) else int(element)


def _scope(graph: Graph) -> Graph:
    """The graph in which the names of `graph`'s dimensions have one meaning."""
    while graph.parent is not None and graph.parent.op == "If" and graph.parent.graph is not None:
        graph = graph.parent.graph
    return graph
