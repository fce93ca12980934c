"""Shapes that follow from partly known shape arithmetic and that onnx's inference cannot tell.

Reshape, Expand, ConstantOfShape, Range, Resize and Slice take the shape of their result from a computed tensor. Where
its elements are known as numbers or symbols, so is the result's shape: inference is told, and goes on from there. A
table of 512 rows cut at T has min(T, 512) of them; what is added to it row by row has T.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from graphopt.facts import Facts
from graphopt.graph import Graph, Node, Shape, Tensor
from graphopt.inference import is_unclear
from graphopt.loop_claims import MADE_UP
from graphopt_passes.constants.arithmetic import minimum, product
from graphopt_passes.constants.symbols import Element, Symbol, Symbols, least_of
from graphopt_passes.constants.values import KnownValues, known_values

Place = tuple[Tensor, int]
_TO_THE_END = (1 << 63) - 1
_BROADCASTING = ("Add", "And", "Div", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Where")


@dataclass
class Claims:
    """Shapes of results; `doubtful` are dimensions, as results and places, that rest on what is yet to be shown."""

    shapes: dict[Tensor, Shape] = field(default_factory=dict)
    doubtful: set[Place] = field(default_factory=set)


def claimed_shapes(graph: Graph, facts: Facts, refused: frozenset[Place] | None = frozenset()) -> Claims:
    """The shapes of results in `graph` of which more is known than their types say.

    Of the dimensions that are doubtful as long as an input's shape is unknown, those `refused` are left out, or all
    of them with None.
    """
    values = known_values(facts)
    claims = Claims()
    for node in graph.nodes:
        reader = _READERS.get(node.op)
        result = node.output(0)
        if reader is None or result is None or not is_unclear(result):
            continue
        doubtful = doubtful_places(node, values)
        out = doubtful if refused is None else [place for place in doubtful if (result, place) in refused]
        elements = _reshaped(node, values, out) if node.op == "Reshape" else reader(node, values)
        if elements is None or (result.shape is not None and len(result.shape) != len(elements)):
            continue
        shape = _merged(result, elements, values)
        if shape != result.shape:
            claims.shapes[result] = shape
            claims.doubtful.update((result, place) for place in doubtful if place not in out)
    return claims


def doubtful_places(node: Node, values: KnownValues) -> list[int]:
    """The places at which a Reshape may have another dimension than its target says, since a 0 copies."""
    data, target = node.input(0), _elements(node.input(1), values) if node.op == "Reshape" else None
    if target is None or node.int_attr("allowzero", 0):
        return []
    dims = _dims(data, values)
    return [
        place
        for place, element in enumerate(target)
        if not _is_asked_for(place, target, dims) and not _copies_the_rest(data, place, element, values)
    ]


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
        elif (known is None or known.startswith(MADE_UP)) and _is_lasting(element):
            merged.append(values.symbols.name(element, result.graph))
        else:
            merged.append(known)
    return tuple(merged)


def _is_lasting(symbol: Symbol) -> bool:
    """Whether this is no product of dimensions with made-up names, of which inference may find out what they are."""
    if symbol.op != "Mul":
        return True
    named = [e for e in symbol.operands if isinstance(e, Symbol)]
    return all(_is_lasting(e) if e.op else not any(n.startswith(MADE_UP) for n in e.names.values()) for e in named)


def _elements(tensor: Tensor | None, values: KnownValues) -> list[Element] | None:
    value = values.of(tensor)
    return list(value.elements) if value is not None and value.elements.ndim == 1 else None


def _reshaped(node: Node, values: KnownValues, without: Collection[int] = ()) -> list[Element | None] | None:
    """The target but for some places; a 0 copies, and a -1 is what the other dimensions leave.

    Source: ONNX, Reshape.
    """
    data, target = node.input(0), _elements(node.input(1), values)
    if target is None or data is None:
        return None
    found: list[Element | None] = [e if e != -1 else None for e in target]
    if not node.int_attr("allowzero", 0):
        for place in (place for place, element in enumerate(target) if element == 0):
            known = data.shape is not None and place < len(data.shape)
            found[place] = values.symbols.dimension(data, place) if known else None
    found = [None if place in without else element for place, element in enumerate(found)]
    known_ones = [e for e in found if e is not None]
    dims = _dims(data, values)
    if -1 in target and dims is not None and len(known_ones) == len(found) - 1:
        found[target.index(-1)] = _left(dims, known_ones, values.symbols)
    return found


def _is_asked_for(place: int, target: list[Element], dims: list[Element] | None) -> bool:
    """Whether the result has the dimension that the target gives at `place`, also when that is 0 and copies.

    It does when the dimension that is copied is the same one, or a product with it. Where there is none to be copied,
    the run fails. When the input has the dimension elsewhere and all others of the result are above 0, nothing is to
    be reshaped, so that a 0 must be copied.

    Heads that are repeated for grouped queries are reshaped from [N, G, n, T, D] to [N, G·n, T, D], n > 1: that is
    taken for true, though with N and T both 0 the result has n in the place of T. It is as empty then, and what adds
    or multiplies it with anything of length T fails.
    """
    element = target[place]
    least = least_of(element)
    if not isinstance(element, Symbol) or (least is not None and least >= 1):
        return True
    if dims is None:
        return False
    if place >= len(dims):
        return True
    if _has_factor(dims[place], element):
        return True
    others = [(i, e, least_of(e)) for i, e in enumerate(target) if i != place]
    copied = dims[place]
    is_repeated = not isinstance(copied, Symbol) and copied > 1
    is_safe = [
        low is not None and (low > 0 or (low == 0 and is_repeated and i < len(dims) and dims[i] is e))
        for i, e, low in others
    ]
    return element in dims and all(is_safe)


def _copies_the_rest(data: Tensor | None, place: int, element: Element, values: KnownValues) -> bool:
    """Whether the dimension of `data` at `place` is 0 where `element` is.

    So it is in Reshape(x, [..., -1, ...]), the -1 at `place`, of a tensor x with the dimension `element`: where that is
    0 the tensor is empty, so that 0 is left, or the run fails. And in Flatten(x) on the side of `element`.
    """
    flatten = values.facts.producer(data, "Flatten")
    dims = _dims(flatten.input(0), values) if flatten is not None else None
    if flatten is not None and dims is not None:
        axis = flatten.int_attr("axis", 1)
        axis += len(dims) if axis < 0 else 0
        return element in (dims[:axis] if place == 0 else dims[axis:])
    reshape = values.facts.producer(data, "Reshape")
    target = values.facts.ints(reshape.input(1)) if reshape is not None else None
    if reshape is None or target is None or place >= len(target) or target[place] != -1:
        return False
    return element in (_dims(reshape.input(0), values) or ())


def _left(dims: list[Element], others: list[Element], symbols: Symbols) -> Element | None:
    """The product of `dims` divided by that of `others`, where it is a product of symbols and a number above 0.

    A run in which one of the others is 0 fails: of nothing, any number is left. So `others` must be what the result
    has, not only what is asked for.
    """
    free = [dim for dim in dims if isinstance(dim, Symbol)]
    for symbol in (e for e in others if isinstance(e, Symbol)):
        if symbol not in free:
            return None
        free.remove(symbol)
    number, divisor = (math.prod(e for e in es if not isinstance(e, Symbol)) for es in (dims, others))
    if number == 0 or divisor == 0 or number % divisor:
        return None
    return product([number // divisor, *free], symbols)


def _has_factor(element: Element, factor: Element) -> bool:
    """Whether a dimension is `factor` or a product with it, and so 0 when that is."""
    if element is factor:
        return True
    if not isinstance(element, Symbol) or element.op != "Mul":
        return False
    return any(_has_factor(e, factor) for e in element.operands)


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
