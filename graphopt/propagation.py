"""How much onnx would write down when its shape inference propagates values: asked before, since it has no limit.

onnx follows the elements of shapes through eleven operators, and takes any vector of static length for a shape of so
many unknown elements: a vector of 2^40 numbers behind a Gather, or sixty Concats that each double their input, take
all memory. Here the longest such list is bounded from above, in one pass over the nodes.

Source: onnx, `defs/data_propagators.h` and `DataPropagationContextImpl::getInputData`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from onnx import TensorProto

from graphopt.graph import Constant, Dim, Graph, Model, Node, Tensor
from graphopt.graph.exporter import as_dim

# The most elements that onnx may write down for one tensor.
MOST_ELEMENTS = 1 << 20

# what onnx propagates: the elements of the output are at most those of the longest input
_FOLLOWED = frozenset(("Add", "Cast", "Gather", "Mul", "Slice", "Squeeze", "Sub", "Unsqueeze"))
# what makes a tensor whose size is a value of its inputs; of these the second operand, or the only one, is a shape
_SIZED = frozenset(("ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "TopK", "Upsample"))
_GROWING = _SIZED | {"Concat", "Reshape", "Slice", "Constant"}
_SHAPED = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1}
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)
_UNBOUNDED = 1 << 64
_FEW = 64  # integers of a constant that are looked at: longer ones are no shapes


class _Bound(NamedTuple):
    """Of a tensor: elements as a vector (1 for what has more dimensions), elements, greatest absolute integer."""

    length: int = 1
    elements: int = 1
    value: int = 1


_NOTHING = _Bound()


def is_bounded(model: Model) -> bool:
    """Whether onnx writes down at most `MOST_ELEMENTS` elements for each tensor of the model's graph and bodies.

    What an operator that is not named here makes of a size is not followed.
    """
    if not any(_grows(graph) for graph in (model.graph, *model.graph.bodies())):
        return True
    known: dict[Tensor, _Bound] = {}
    return all(_is_bounded(graph, known) for graph in (model.graph, *model.graph.bodies()))


def _grows(graph: Graph) -> bool:
    """Whether vectors may be longer than what enters the graph, or that is too long: mostly not, and quickly told."""
    entering = [*graph.inputs, *graph.initializers]
    if any(tensor.shape is not None and len(tensor.shape) == 1 and _is_long(tensor.shape[0]) for tensor in entering):
        return True
    return not _GROWING.isdisjoint({node.op for node in graph.nodes})


def _is_long(dim: Dim) -> bool:
    return isinstance(dim, int) and dim > MOST_ELEMENTS


def _is_bounded(graph: Graph, known: dict[Tensor, _Bound]) -> bool:
    """Notes the bounds of a graph's tensors in `known`; outer graphs come first."""
    for tensor in graph.inputs:
        dims = [as_dim(dim) for dim in tensor.info.type.tensor_type.shape.dim] if tensor.info is not None else []
        _note(known, tensor, _of([dim if isinstance(dim, int) else 1 for dim in dims], 1))
    for tensor in graph.initializers:
        if tensor.constant is not None:
            _note(known, tensor, _of_constant(tensor.constant))
    for node in graph.sorted_nodes():
        output = node.outputs[0] if node.outputs else None
        if output is None:
            continue
        bound = _of_constant(output.constant) if output.constant is not None else _of_node(node, known)
        if bound is not _NOTHING:
            if bound.length > MOST_ELEMENTS and (node.op in _FOLLOWED or node.op == "Concat"):
                return False
            _note(known, output, bound)
    return True


def _note(known: dict[Tensor, _Bound], tensor: Tensor, bound: _Bound) -> None:
    if bound != _NOTHING:
        known[tensor] = _Bound(*(min(number, _UNBOUNDED) for number in bound))


def _of(dims: list[int], value: int) -> _Bound:
    elements = math.prod(max(1, dim) for dim in dims)
    return _Bound(elements if len(dims) == 1 else 1, elements, value)


def _of_constant(constant: Constant) -> _Bound:
    value = 1
    if constant.dtype in _INTEGERS and 0 < constant.size <= _FEW:
        value = max(1, *(abs(int(number)) for number in constant.array().flat))
    return _of(list(constant.shape), value)


def _of_node(node: Node, known: dict[Tensor, _Bound]) -> _Bound:
    op = node.op
    if op == "Shape":
        return _Bound(2, 2)
    if op not in _FOLLOWED and op not in _SIZED and op not in ("Concat", "Reshape"):
        first = known.get(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
        return _NOTHING if first is None or first.elements == 1 else _Bound(1, first.elements)
    bounds = [known.get(tensor, _NOTHING) if tensor is not None else _NOTHING for tensor in node.inputs] or [_NOTHING]
    if op == "Slice" and len(bounds) > 4 and bounds[4].value > MOST_ELEMENTS:
        return _Bound(_UNBOUNDED, _UNBOUNDED)  # onnx counts in steps until its integers overflow, and for ever on
    if op in _FOLLOWED or op == "Concat":
        lengths = [bound.length for bound in bounds]
        length = sum(lengths) if op == "Concat" else max(lengths)
        return _Bound(length, length, _value(op, [bound.value for bound in bounds]))
    if op in _SHAPED and any(bound.length > 1 for bound in bounds[_SHAPED[op] :]):
        return _NOTHING  # more than one dimension: onnx does not take it for a shape
    if op == "Reshape":
        return _Bound(bounds[0].elements, bounds[0].elements)
    if bounds[0].length != bounds[0].elements:
        return _NOTHING  # as above
    length = bounds[0].length * max(bound.value for bound in bounds)
    return _Bound(length, length)


def _value(op: str, values: list[int]) -> int:
    if op == "Mul":
        return math.prod(values)
    return sum(values) if op in ("Add", "Sub") else max(values)
