"""Shapes that follow from partly known shape arithmetic and that onnx's inference cannot tell.

Reshape, Expand, ConstantOfShape, Range and Resize take the shape of their result from a computed tensor. Where its
elements are known as numbers or symbols, so is the result's shape: inference is told, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable

from graphopt.facts import Facts
from graphopt.graph import Graph, Node, Shape, Tensor
from graphopt.inference import is_unclear
from graphopt.loop_claims import MADE_UP
from graphopt_passes.constants.symbols import Element, Symbol, least_of
from graphopt_passes.constants.values import KnownValues, known_values


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
    """The target; a -1 is not known here, and a 0 copies."""
    data, target = node.input(0), _elements(node.input(1), values)
    if target is None or data is None:
        return None
    if node.int_attr("allowzero", 0):
        return [e if e != -1 else None for e in target]
    found: list[Element | None] = []
    for place, element in enumerate(target):
        if element == 0:
            known = data.shape is not None and place < len(data.shape)
            found.append(values.symbols.dimension(data, place) if known else None)
        else:
            found.append(element if element != -1 else None)
    return found


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
    return next((e for e in (a, b) if not isinstance(e, Symbol)), None)


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
}
