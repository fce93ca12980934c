"""Masks of attention: what runtimes ask of them beyond the operator's own words.

ONNX Runtime takes a row that holds nothing but the type's lowest number for one without any key and returns zeros,
where a Softmax gives equal weights; and it wants a row for each query. Both are mended here, where they can be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_dtypes import finfo
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Constant, Dim, Node, ProtoConstant, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import RewriteRefusedError
from graphopt_passes.common.folding import FLOATS, Folded, exact_values

_INTEGERS = (TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8)
_COMPARED = (TensorProto.FLOAT, TensorProto.DOUBLE)  # which Equal takes since opset 11, in every runtime
# Operators whose results are far from the lowest number of their type, and those that compute with weights and data.
_MODERATE = ("Sigmoid", "HardSigmoid", "Tanh", "Softmax", "Erf", "Sin", "Cos", "MatMul", "Gemm", "Conv")
_MOST_TENSORS = 64  # upstream of a mask; what is made from more may hold any number
# A constant that broadcasting enlarges stays a node above this size; a larger one is not searched either.
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Masks:
    """Masks whose sum is added to the scores.

    `filled` is the Where or Mul that makes the only one, where its input `index` is the only source of the type's
    lowest number; otherwise `may_hold_lowest` says whether the sum may hold it.
    """

    tensors: tuple[Tensor, ...]
    filled: Node | None = None
    index: int = 0
    may_hold_lowest: bool = False


def masks_of(tensors: Sequence[Tensor], facts: Facts) -> Masks:
    """The masks with what is known of their numbers."""
    maker = tensors[0].producer if len(tensors) == 1 else None
    if maker is not None:
        index = _filled(maker, facts)
        if index is not None:
            return Masks(tuple(tensors), maker, index)
        if _is_moderate(maker, facts):
            return Masks(tuple(tensors))
    return Masks(tuple(tensors), may_hold_lowest=any(_may_hold_lowest(t) for t in tensors))


def _is_moderate(node: Node, facts: Facts) -> bool:
    """Whether a Where chooses between two numbers, or a Mul gives a number where truth is 1, and none is the lowest."""

    def is_number(tensor: Tensor | None) -> bool:
        return facts.scalar(tensor) is not None and not _is_lowest(tensor, facts)

    if node.op == "Where":
        return is_number(node.input(1)) and is_number(node.input(2))
    a, b = node.input(0), node.input(1)
    return node.op == "Mul" and ((is_number(a) and _is_whole(b, facts)) or (is_number(b) and _is_whole(a, facts)))


def _filled(node: Node, facts: Facts) -> int | None:
    """The place of the lowest number in a Where or Mul that gives it as it is, or something else than it."""
    if node.op not in ("Where", "Mul"):
        return None
    first = 1 if node.op == "Where" else 0
    for index, other in ((first, first + 1), (first + 1, first)):
        beside = node.input(other)
        if _is_lowest(node.input(index), facts) and beside is not None:
            whole = node.op == "Mul"
            is_clean = _is_whole(beside, facts) if whole else not _may_hold_lowest(beside)
            return index if is_clean else None
    return None


def _is_lowest(tensor: Tensor | None, facts: Facts) -> bool:
    value = facts.scalar(tensor)
    if tensor is None or value is None or tensor.dtype not in FLOATS:
        return False
    return float(value) == _lowest(tensor.dtype)


def _lowest(dtype: int) -> float:
    return float(finfo(numpy_dtype(dtype)).min)  # type: ignore[no-untyped-call]


def _is_whole(tensor: Tensor | None, facts: Facts) -> bool:
    """Whether the numbers are whole: 1 − Cast(integers), or the cast itself."""
    node = facts.producer(tensor, "Sub", "Cast")
    if node is not None and node.op == "Sub":
        node = facts.producer(node.input(1), "Cast") if facts.scalar(node.input(0)) == 1 else None
    source = node.input(0) if node is not None else None
    return source is not None and source.dtype in _INTEGERS


def _may_hold_lowest(mask: Tensor) -> bool:
    """Whether a number that sums or products may bring to the end of the type's range stands anywhere upstream.

    Of integers a mask of float16 may hold any. What the model's caller gives may hold the lowest number too; there the
    operator's own words stand, which add it like any number.
    """
    dtype = mask.dtype
    if dtype not in FLOATS:
        return dtype is None  # truth values
    bound = _suspicious(dtype)
    seen: set[Tensor] = set()
    waiting: list[Tensor | None] = [mask]
    while waiting:
        tensor = waiting.pop()
        if tensor is None or tensor in seen or tensor.dtype == TensorProto.BOOL:
            continue
        if len(seen) == _MOST_TENSORS or tensor.dtype is None:
            return True
        if tensor.dtype not in FLOATS:
            if dtype == TensorProto.FLOAT16:
                return True
            continue  # no integer is that large
        seen.add(tensor)
        node = tensor.producer
        if tensor.constant is not None:
            if _is_extreme(tensor.constant, bound):
                return True
        elif node is None:
            if tensor.graph is not tensor.graph.model.graph:
                return True  # it enters a body or a function, from wherever
        elif node.op not in _MODERATE:
            if node.bodies or any(_is_extreme_attribute(value, bound) for value in node.attrs.values()):
                return True
            waiting += node.inputs
    return False


def _suspicious(dtype: int) -> float:
    """The root of the largest number, so that no product of two smaller ones reaches it; of float16 a quarter of it."""
    largest = -_lowest(dtype)
    return largest / 4 if dtype == TensorProto.FLOAT16 else math.sqrt(largest)


def _is_extreme(constant: Constant, bound: float) -> bool:
    if constant.nbytes > _MOST_BYTES:
        return True
    values = np.asarray(constant.array()).astype(np.float64)
    return bool((np.isfinite(values) & (np.abs(values) >= bound)).any())


def _is_extreme_attribute(value: object, bound: float) -> bool:
    """Of a Clip or a ConstantOfShape."""
    if isinstance(value, TensorProto):
        return value.data_type in FLOATS and _is_extreme(ProtoConstant(value), bound)
    return isinstance(value, float) and math.isfinite(value) and abs(value) >= bound


def built_mask(masks: Masks, queries: Dim, edit: Rewriter) -> Tensor | None:
    """The sum of `masks` for Attention: rank 2 at least, a row for each query; None when there are none.

    The type's lowest number becomes the next one. Raises RewriteRefusedError where the rows cannot be told, or a
    constant keeps a query from every key by −∞.
    """
    total = _total(masks, edit)
    if total is None:
        return None
    return _with_all_rows(_without_lowest(total, masks.may_hold_lowest, edit), queries, edit)


def added_mask(masks: Masks, queries: Dim, edit: Rewriter) -> Tensor | None:
    """The same for com.microsoft's operators, which add the lowest number like any other.

    Where it costs nothing it becomes the next one here too. Raises RewriteRefusedError like `built_mask`.
    """
    total = _total(masks, edit)
    return None if total is None else _with_all_rows(total, queries, edit)


def _total(masks: Masks, edit: Rewriter) -> Tensor | None:
    """The sum of the masks. Raises RewriteRefusedError for a constant that keeps a query from every key by −∞."""
    if not masks.tensors:
        return None
    if masks.filled is not None:
        return _refilled(masks.filled, masks.index, edit)
    total = masks.tensors[0]
    for part in masks.tensors[1:]:
        total = _sum(total, part, edit)
    if total.constant is not None and total.dtype in FLOATS and bool((_highest(total.constant) == -math.inf).any()):
        raise RewriteRefusedError("the mask leaves a query without any key")
    return total


def _highest(constant: Constant) -> np.ndarray[Any, Any]:
    """The highest number of each row."""
    return np.atleast_1d(np.asarray(constant.array()).astype(np.float64).max(-1, initial=-math.inf))


def _refilled(node: Node, index: int, edit: Rewriter) -> Tensor:
    old = node.inputs[index]
    assert old is not None
    assert old.dtype is not None
    assert old.constant is not None
    inputs = list(node.inputs)
    inputs[index] = edit.constant(_raised(old.dtype).reshape(old.constant.shape), old.name)
    return edit.node(node.op_type, inputs, node.attrs).result  # without the name: the old node may stay


def _raised(dtype: int) -> np.ndarray[Any, Any]:
    """The number above the lowest."""
    kind = numpy_dtype(dtype)
    return np.asarray(np.nextafter(np.asarray(_lowest(dtype), kind), np.asarray(0, kind)))


def _without_lowest(total: Tensor, may_hold_lowest: bool, edit: Rewriter) -> Tensor:
    """Where(total = lowest, raised, total), computed for a constant, and left out where no row needs it."""
    if total.dtype not in FLOATS:
        return total  # truth values
    lowest, raised = _lowest(total.dtype), _raised(total.dtype)
    if total.constant is not None:
        values = np.asarray(total.constant.array())
        needs_it = bool((_highest(total.constant) == lowest).any())
        return edit.constant(np.where(values == lowest, raised, values), total.name) if needs_it else total
    if not may_hold_lowest:
        return total
    compared, kind = total, np.dtype(numpy_dtype(total.dtype))
    if total.dtype not in _COMPARED:
        compared, kind = edit.node("Cast", [total], {"to": TensorProto.FLOAT}).result, np.dtype(np.float32)
    is_lowest = edit.node("Equal", [compared, edit.constant(np.asarray(lowest, kind), "lowest")]).result
    return edit.node("Where", [is_lowest, edit.constant(raised, "raised"), total]).result


def _sum(a: Tensor, b: Tensor, edit: Rewriter) -> Tensor:
    if a.constant is not None and b.constant is not None:
        first, second = a.constant, b.constant
        shape = np.broadcast_shapes(first.shape, second.shape)
        if math.prod(shape) * first.nbytes // max(first.size, 1) <= _MOST_BYTES:
            return edit.constant(Folded(first.dtype, shape, lambda: exact_values(first) + exact_values(second)), a.name)
    return edit.node("Add", [a, b]).result


def _with_all_rows(mask: Tensor, queries: Dim, edit: Rewriter) -> Tensor:
    shape, constant = mask.shape, mask.constant
    if shape is None or (len(shape) > 1 and shape[-2] is not None and shape[-2] == queries):
        return mask
    if not isinstance(queries, int):
        raise RewriteRefusedError("the mask has no row for each query, whose number is not static")
    if constant is not None:
        wide = np.broadcast_shapes(constant.shape, (queries, 1))
        if math.prod(wide) * constant.nbytes // max(constant.size, 1) <= _MOST_BYTES:
            return edit.constant(np.ascontiguousarray(np.broadcast_to(constant.array(), wide)), mask.name)
    return edit.node("Expand", [mask, edit.constant(np.array([queries, 1], np.int64), "rows")]).result
