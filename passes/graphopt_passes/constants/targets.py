"""Operators that take a shape computed at run time, of which enough is known to write it down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Refused, Rule
from graphopt_passes.constants.folding import used_outputs
from graphopt_passes.constants.symbols import Element, Symbol
from graphopt_passes.constants.values import KnownValues, known_values


@dataclass(frozen=True)
class Settled:
    """Inputs of `node` that can be written down, by their index; attributes to give up."""

    node: Node
    inputs: tuple[tuple[int, Array], ...]
    without: str = ""


def _put(found: Settled, edit: Rewriter) -> None:
    """Gives the node its constants, in place."""
    node = found.node
    if found.without and found.without in node.attrs:
        node = edit.like(node, **{found.without: None})
        edit.replace(found.node, node)
    for index, array in found.inputs:
        old = node.input(index)
        edit.set_input(node, index, edit.constant(array, f"{node.label}.settled"))
        maker = old.producer if old is not None else None
        if maker is not None and not used_outputs(maker):
            edit.erase(maker)


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
        elements = _with_inferred(list(wanted.elements), node.output(0), values)
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
        _put(found, edit)


def _with_inferred(elements: list[Element], result: Tensor | None, values: KnownValues) -> list[Element]:
    """The elements of a target shape, those that are symbols replaced by what inference knows of the result."""
    if result is None or result.shape is None or len(result.shape) != len(elements):
        return elements
    inferred = [values.symbols.dimension(result, axis) for axis in range(len(elements))]
    return [
        known if isinstance(element, Symbol) and _is_better(known) else element
        for element, known in zip(elements, inferred, strict=True)
    ]


def _is_better(known: Element) -> bool:
    """Inferred zeros are left alone: written into a shape they mean something else."""
    return not isinstance(known, Symbol) and known > 0


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
        elements = _with_inferred(list(wanted.elements), node.output(0), values)
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
        _put(found, edit)


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
        _put(found, edit)
