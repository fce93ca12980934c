"""What each operator does to partly known values: one evaluator an operator, None where it cannot tell.

Evaluators follow the operator's definition in every opset (attributes that became inputs are read in both forms).
An evaluator returns one value an output, or None when it knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from graphopt.graph import Node
from graphopt_passes.common.arguments import axis_of, axis_slices, ints_argument, normalized_axes, permutation
from graphopt_passes.common.slicing import as_slice
from graphopt_passes.constants.arithmetic import COMPARISONS, ELEMENTWISE, UNARY, choose, product, remainder
from graphopt_passes.constants.symbols import Element, Symbol
from graphopt_passes.constants.values import INTEGERS, MOST_ELEMENTS, Elements, KnownValues, Value

Outputs = Sequence[Value | None]
Evaluator = Callable[[Node, KnownValues], Outputs | None]


def _object_array(elements: Sequence[Element], shape: tuple[int, ...] | None = None) -> Elements:
    result = np.empty(len(elements), object)
    for position, element in enumerate(elements):
        result[position] = element
    return result if shape is None else result.reshape(shape)


def _moved(node: Node, values: KnownValues, move: Callable[[Elements], Elements | None]) -> Outputs | None:
    """The one output of an operator that moves its first input's elements."""
    data = values.of(node.input(0))
    if data is None:
        return None
    try:
        elements = move(data.elements)
    except (ValueError, IndexError):  # the model is wrong here: its runtime will say so
        return None
    if elements is None:
        return None
    if not isinstance(elements, np.ndarray):  # numpy hands out the element of a 0-d array of objects
        elements = _object_array([elements], ())
    return [Value(data.dtype, elements)]


# -- reading shapes ----------------------------------------------------------------------------------------------


def _shape(node: Node, values: KnownValues) -> Outputs | None:
    data = node.input(0)
    if data is None or data.shape is None:
        return None
    dims = [values.symbols.dimension(data, axis) for axis in range(len(data.shape))]
    kept = dims[node.int_attr("start", 0) : node.attrs.get("end")]
    return [Value(TensorProto.INT64, _object_array(kept))]


def _size(node: Node, values: KnownValues) -> Outputs | None:
    data = node.input(0)
    if data is None or data.shape is None:
        return None
    dims = [values.symbols.dimension(data, axis) for axis in range(len(data.shape))]
    if 0 in dims:
        return [Value(TensorProto.INT64, _object_array([0], ()))]
    total = product(dims, values.symbols)
    return [Value(TensorProto.INT64, _object_array([total], ()))]


# -- moving elements ---------------------------------------------------------------------------------------------


def _identity(node: Node, values: KnownValues) -> Outputs | None:
    return _moved(node, values, lambda x: x)


def _cast(node: Node, values: KnownValues) -> Outputs | None:
    data, to = values.of(node.input(0)), node.int_attr("to", 0)
    if data is None or to not in INTEGERS:
        return None
    return [Value(to, _object_array([_cast_element(e, to, values) for e in data.elements.flat], data.elements.shape))]


def _cast_element(element: Element, to: int, values: KnownValues) -> Element:
    if to == TensorProto.BOOL:
        return element != 0 if not isinstance(element, Symbol) else values.symbols.expression("bool", (element,), 0)
    if not isinstance(element, Symbol):
        return int(element)
    # every integer type holds a dimension and everything from it holds a 64-bit number
    if to == TensorProto.INT64 or element.is_dimension:
        return element
    return values.symbols.expression("int32", (element,))


def _gather(node: Node, values: KnownValues) -> Outputs | None:
    index = values.of(node.input(1))
    if index is None or not index.is_known:
        return None
    indices = index.elements.astype(np.int64)
    return _moved(node, values, lambda x: np.take(x, indices, node.int_attr("axis", 0)))


def _slice(node: Node, values: KnownValues) -> Outputs | None:
    parts = axis_slices(node, values.facts)
    if parts is None:
        return None

    def cut(x: Elements) -> Elements | None:
        axes = normalized_axes(tuple(p.axis for p in parts), x.ndim)
        if axes is None:
            return None
        index: list[slice] = [slice(None)] * x.ndim
        for axis, part in zip(axes, parts, strict=True):
            index[axis] = as_slice(part.start, part.end, part.step, x.shape[axis])
        return x[tuple(index)]

    return _moved(node, values, cut)


def _concat(node: Node, values: KnownValues) -> Outputs | None:
    parts = [values.of(t) for t in node.inputs]
    known = [p for p in parts if p is not None]
    if not known or len(known) != len(parts):
        return None
    rest = [p.elements for p in known[1:]]
    axis = node.int_attr("axis", 1)  # the default of opset 1
    return _moved(node, values, lambda x: np.concatenate([x, *rest], axis))


def _unsqueeze(node: Node, values: KnownValues) -> Outputs | None:
    axes = ints_argument(node, values.facts, "axes", 1)
    if axes is None or axes.values is None:
        return None
    places = axes.values
    return _moved(node, values, lambda x: np.expand_dims(x, places))


def _squeeze(node: Node, values: KnownValues) -> Outputs | None:
    axes = ints_argument(node, values.facts, "axes", 1)
    if axes is None or axes.values == ():  # ONNX Runtime takes no axes for all of size 1
        return None
    places = axes.values
    return _moved(node, values, lambda x: np.squeeze(x, places))


def _reshape(node: Node, values: KnownValues) -> Outputs | None:
    target = ints_argument(node, values.facts, "shape", 1)
    if target is None or target.values is None:
        return None
    wanted = target.values

    def shaped(x: Elements) -> Elements | None:
        copies = node.int_attr("allowzero", 0) == 0
        if copies and any(d == 0 and i >= x.ndim for i, d in enumerate(wanted)):
            return None
        return x.reshape([x.shape[i] if d == 0 and copies else d for i, d in enumerate(wanted)])

    return _moved(node, values, shaped)


def _transpose(node: Node, values: KnownValues) -> Outputs | None:
    order = permutation(node, values.facts)
    return None if order is None else _moved(node, values, lambda x: np.transpose(x, order))


def _expand(node: Node, values: KnownValues) -> Outputs | None:
    target = values.of(node.input(1))
    wanted = target.ints if target is not None else None
    if wanted is None or np.prod(wanted, dtype=object) > MOST_ELEMENTS:
        return None
    return _moved(node, values, lambda x: np.broadcast_to(x, np.broadcast_shapes(x.shape, wanted)))


def _split(node: Node, values: KnownValues) -> Outputs | None:
    data, sizes = values.of(node.input(0)), ints_argument(node, values.facts, "split", 1)
    if data is None or sizes is None:
        return None
    axis = axis_of(node, data.elements.ndim, 0)
    if axis is None:
        return None
    total = data.elements.shape[axis]
    lengths = sizes.values if sizes.values is not None else _even_parts(total, len(node.outputs))
    if sum(lengths) != total or len(lengths) != len(node.outputs):
        return None
    borders = [int(b) for b in np.cumsum(lengths)[:-1]]
    return [Value(data.dtype, part) for part in np.split(data.elements, borders, axis)]


def _even_parts(total: int, count: int) -> tuple[int, ...]:
    """Sizes of a Split that gives none: equal, the last one smaller when it must be (Split-18)."""
    size = -(-total // count)
    return (*(size for _ in range(count - 1)), total - size * (count - 1))


# -- computing elements ------------------------------------------------------------------------------------------


def _elementwise(node: Node, values: KnownValues) -> Outputs | None:
    parts = [values.of(t) for t in node.inputs]
    known = [p for p in parts if p is not None]
    if not known or len(known) != len(parts) or (len(known) == 1 and node.op not in ("Max", "Min")):
        return None
    if node.int_attr("broadcast", 0):  # before opset 7 one-sided broadcasting had an attribute
        return None
    compute = remainder if node.op == "Mod" and node.int_attr("fmod", 0) else ELEMENTWISE[node.op]
    try:
        shape = np.broadcast_shapes(*(p.elements.shape for p in known))
    except ValueError:
        return None
    if np.prod(shape, dtype=object) > MOST_ELEMENTS:
        return None
    columns = [np.broadcast_to(p.elements, shape).flat for p in known]
    made = [reduce(lambda a, b: compute(a, b, values.symbols), row) for row in zip(*columns, strict=True)]
    dtype = int(TensorProto.BOOL) if node.op in COMPARISONS else known[0].dtype
    return [Value(dtype, _object_array([_unbounded(e, node.op, dtype, values) for e in made], shape))]


def _unbounded(element: Element, op: str, dtype: int, values: KnownValues) -> Element:
    """What 32-bit symbols give may wrap: it is not what 64-bit ones give, and its lower bound does not hold."""
    narrow = dtype == TensorProto.INT32 and op in ("Add", "Mul", "Sub", "Neg", "Abs")
    if not narrow or not isinstance(element, Symbol) or element.is_dimension or _is_within(element):
        return element
    return values.symbols.expression("int32", (element,))


def _is_within(element: Symbol) -> bool:
    """Whether it is a difference, or the negative, of what no dimension exceeds."""
    sizes = [e.is_dimension if isinstance(e, Symbol) else 0 <= e < 1 << 31 for e in element.operands]
    return element.op in ("Sub", "Neg") and all(sizes)


def _unary(node: Node, values: KnownValues) -> Outputs | None:
    data, compute = values.of(node.input(0)), UNARY[node.op]
    if data is None:
        return None
    made = [_unbounded(compute(e, values.symbols), node.op, data.dtype, values) for e in data.elements.flat]
    return [Value(data.dtype, _object_array(made, data.elements.shape))]


def _where(node: Node, values: KnownValues) -> Outputs | None:
    condition, a, b = (values.of(node.input(i)) for i in range(3))
    if condition is None or a is None or b is None:
        return None
    try:
        parts = np.broadcast_arrays(condition.elements, a.elements, b.elements)
    except ValueError:
        return None
    if parts[0].size > MOST_ELEMENTS:
        return None
    rows = zip(*(p.flat for p in parts), strict=True)
    made = [choose(c, x, y, values.symbols) for c, x, y in rows]
    return [Value(a.dtype, _object_array(made, parts[0].shape))]


def _constant_of_shape(node: Node, values: KnownValues) -> Outputs | None:
    target = values.of(node.input(0))
    wanted = target.ints if target is not None else None
    if wanted is None or any(d < 0 for d in wanted) or np.prod(wanted, dtype=object) > MOST_ELEMENTS:
        return None
    fill: Any = numpy_helper.to_array(node.attrs["value"]) if "value" in node.attrs else np.zeros(1, np.float32)
    dtype = node.attrs["value"].data_type if "value" in node.attrs else TensorProto.FLOAT
    if dtype not in INTEGERS or fill.size != 1:
        return None
    count = int(np.prod(wanted, dtype=object))
    return [Value(dtype, _object_array([fill.reshape(-1)[0].item()] * count, wanted))]


def _range(node: Node, values: KnownValues) -> Outputs | None:
    parts = [values.of(node.input(i)) for i in range(3)]
    numbers = [p.ints for p in parts if p is not None]
    if len(numbers) != 3 or any(n is None or len(n) != 1 for n in numbers) or parts[0] is None:
        return None
    (start,), (limit,), (delta,) = (n for n in numbers if n is not None)
    if delta == 0 or (limit - start) / delta > MOST_ELEMENTS:  # len() of a range fails beyond 2^63
        return None
    return [Value(parts[0].dtype, _object_array(list(range(start, limit, delta))))]


def _product(node: Node, values: KnownValues) -> Outputs | None:
    """ReduceProd over all elements or over the axis of a vector."""
    data, axes = values.of(node.input(0)), ints_argument(node, values.facts, "axes", 1)
    if data is None or axes is None or data.elements.ndim != 1:
        return None
    if not axes.values and node.int_attr("noop_with_empty_axes", 0):
        return [data]
    if axes.values and normalized_axes(axes.values, 1) is None:
        return None
    total = product(data.elements.flat, values.symbols)
    element = _unbounded(total, "Mul", data.dtype, values)
    return [Value(data.dtype, _object_array([element], (1,) if node.int_attr("keepdims", 1) else ()))]


# Operators that read their input's shape only, so that its value is never asked for.
SHAPE_READERS = frozenset({"Shape", "Size"})

EVALUATORS: dict[str, Evaluator] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _identity,
    "Cast": _cast,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Expand": _expand,
    "Split": _split,
    "Where": _where,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "ReduceProd": _product,
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(UNARY, _unary),
}
