"""Shapes that follow from partly known shape arithmetic and that onnx's inference cannot tell.

Reshape, Expand, ConstantOfShape, Range, Resize and Slice take the shape of their result from a computed tensor. Where
its elements are known as numbers or symbols, so is the result's shape: inference is told, and goes on from there. A
table of 512 rows cut at T has min(T, 512) of them; what is added to it row by row has T.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphopt.facts import Facts
from graphopt.graph import Graph, Node, Shape, Tensor
from graphopt.inference import is_unclear
from graphopt.loop_claims import MADE_UP
from graphopt_passes.constants.arithmetic import minimum
from graphopt_passes.constants.symbols import Element, Symbol, least_of
from graphopt_passes.constants.values import KnownValues, known_values

_TO_THE_END = (1 << 63) - 1
_BROADCASTING = ("Add", "And", "Div", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Where")


def proven_shapes(graph: Graph, facts: Facts) -> dict[Tensor, Shape]:
    """The shapes of results in `graph` of which more is known than their types say."""
    values = known_values(facts)
    found = {}
    for node in graph.nodes:
        reader = _READERS.get(node.op)
        result = node.output(0)
        if reader is None or result is None or not is_unclear(result):
            continue
        elements = reader(node, values)
        if elements is None or (result.shape is not None and len(result.shape) != len(elements)):
            continue
        shape = _merged(result, elements, values)
        if shape != result.shape:
            found[result] = shape
    return found


def _merged(result: Tensor, elements: list[Element | None], values: KnownValues) -> Shape:
    """What the type says, made better by numbers and by names of dimensions."""
    old = result.shape if result.shape is not None else (None,) * len(elements)
    merged = []
    for known, element in zip(old, elements, strict=True):
        low = least_of(element) if element is not None else None
        if isinstance(known, int) or element is None or low is None or low < 0:
            merged.append(known)
        elif not isinstance(element, Symbol):
            merged.append(int(element))
        elif known is None or known.startswith(MADE_UP):
            merged.append(values.symbols.name(element, result.graph))
        else:
            merged.append(known)
    return tuple(merged)


def _elements(tensor: Tensor | None, values: KnownValues) -> list[Element] | None:
    value = values.of(tensor)
    return list(value.elements) if value is not None and value.elements.ndim == 1 else None


def _reshaped(node: Node, values: KnownValues) -> list[Element | None] | None:
    """The target; a 0 copies, and a -1 is what the other dimensions leave."""
    data, target = node.input(0), _elements(node.input(1), values)
    if target is None or data is None:
        return None
    found: list[Element | None] = [e if e != -1 else None for e in target]
    if not node.int_attr("allowzero", 0):
        for place in (place for place, element in enumerate(target) if element == 0):
            known = data.shape is not None and place < len(data.shape)
            found[place] = values.symbols.dimension(data, place) if known else None
    known_ones = [e for e in found if e is not None]
    dims = _dims(data, values)
    if -1 in target and dims is not None and len(known_ones) == len(found) - 1:
        found[target.index(-1)] = _left(dims, known_ones)
    return found


def _left(dims: list[Element], others: list[Element]) -> Element | None:
    """The product of `dims` divided by that of `others`, where nothing is left of it but one symbol.

    A run in which one of the others is 0 fails: of nothing, any number is left.
    """
    free = [dim for dim in dims if isinstance(dim, Symbol)]
    for symbol in (e for e in others if isinstance(e, Symbol)):
        if symbol not in free:
            return None
        free.remove(symbol)
    numbers, divisors = ([e for e in es if not isinstance(e, Symbol)] for es in (dims, others))
    return free[0] if len(free) == 1 and math.prod(numbers) == math.prod(divisors) != 0 else None


def _expanded(node: Node, values: KnownValues) -> list[Element | None] | None:
    """The target broadcast with the input's shape."""
    data, target = node.input(0), _elements(node.input(1), values)
    if target is None or data is None or data.shape is None:
        return None
    rank = max(len(target), len(data.shape))
    shape = [values.symbols.dimension(data, axis) for axis in range(len(data.shape))]
    wanted: list[Element] = [*(1 for _ in range(rank - len(target))), *target]
    given: list[Element] = [*(1 for _ in range(rank - len(shape))), *shape]
    return [_broadcast(a, b) for a, b in zip(given, wanted, strict=True)]


def _broadcast(a: Element, b: Element) -> Element | None:
    """The dimension that `a` and `b` give together, when it is sure."""
    if a is b or b == 1:
        return a
    if a == 1:
        return b
    number = next((e for e in (a, b) if not isinstance(e, Symbol)), None)
    if number is not None:
        return number
    return a if _is_cut_of(b, a) else b if _is_cut_of(a, b) else None


def _is_cut_of(cut: Element, whole: Element) -> bool:
    """Whether `cut` is the least of `whole` and a number above 1.

    Then they give `whole` together: where the number were less, neither of the two would be 1, and nothing broadcasts.
    """
    if not isinstance(cut, Symbol) or cut.op != "Min":
        return False
    others = [e for e in cut.operands if e is not whole]
    return len(others) == 1 and isinstance(others[0], int) and others[0] > 1


def _together(node: Node, values: KnownValues) -> list[Element | None] | None:
    """What the operands give by broadcasting."""
    if node.int_attr("broadcast", 0):  # before opset 7 one-sided broadcasting had an attribute
        return None
    shapes = [_dims(t, values) for t in node.inputs]
    rank = max((len(shape) for shape in shapes if shape is not None), default=0)
    found: list[Element | None] = [1] * rank
    for shape in shapes:
        if shape is None:
            return None
        padded = [*([1] * (rank - len(shape))), *shape]
        found = [_broadcast(a, b) if a is not None else None for a, b in zip(found, padded, strict=True)]
    return found


def _dims(tensor: Tensor | None, values: KnownValues) -> list[Element] | None:
    if tensor is None or tensor.shape is None:
        return None
    return [values.symbols.dimension(tensor, axis) for axis in range(len(tensor.shape))]


def _cut(node: Node, values: KnownValues) -> list[Element | None] | None:
    """A Slice of the first few: as many as are asked for, or as there are."""
    dims = _dims(node.input(0), values)
    starts, ends, axes, steps = (_elements(node.input(i), values) for i in (1, 2, 3, 4))
    if dims is None or starts is None or ends is None or node.input(0) is None:
        return None
    axes = axes if node.input(3) is not None else [*range(len(starts))]
    steps = steps if node.input(4) is not None else [1] * len(starts)
    if axes is None or steps is None or not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    found: list[Element | None] = [*dims]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if isinstance(axis, Symbol) or not -len(dims) <= axis < len(dims):
            return None
        low = least_of(end)
        if start != 0 or step != 1 or low is None or low < 0:
            found[axis] = None
        elif end != _TO_THE_END:
            found[axis] = minimum(end, dims[axis], values.symbols)
    return found


def _filled(node: Node, values: KnownValues) -> list[Element | None] | None:
    target = _elements(node.input(0), values)
    return None if target is None else [*target]


def _counted(node: Node, values: KnownValues) -> list[Element | None] | None:
    """Range from 0 by 1 has as many elements as its limit says."""
    start, limit, delta = (values.of(node.input(i)) for i in range(3))
    if start is None or limit is None or delta is None or start.ints != (0,) or delta.ints != (1,):
        return None
    return [next(iter(limit.elements.flat))]


def _resized(node: Node, values: KnownValues) -> list[Element | None] | None:
    """The sizes, where they are given for all axes and as they are."""
    target = _elements(node.input(3), values)
    plain = "axes" not in node.attrs and node.str_attr("keep_aspect_ratio_policy", "stretch") == "stretch"
    return [*target] if target and plain else None


_READERS: dict[str, Callable[[Node, KnownValues], list[Element | None] | None]] = {
    "Reshape": _reshaped,
    "Expand": _expanded,
    "ConstantOfShape": _filled,
    "Range": _counted,
    "Resize": _resized,
    "Slice": _cut,
    **dict.fromkeys(_BROADCASTING, _together),
}
