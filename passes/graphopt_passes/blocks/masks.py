"""Masks of attention: what runtimes ask of them beyond the operator's own words.

ONNX Runtime takes a row that holds nothing but the type's lowest number for one without any key and returns zeros,
where a Softmax gives equal weights; and it wants a row for each query. Both are mended here, where they can be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ml_dtypes import finfo
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Dim, Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import RewriteRefusedError
from graphopt_passes.common.folding import Folded, exact_values

# What a mask passes through on its way to the scores, its numbers unchanged.
_CARRIERS = ("Unsqueeze", "Squeeze", "Reshape", "Expand", "Slice", "Transpose", "Identity", "Gather", "Concat")
_MOST_STEPS = 6
_INTEGERS = (TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8)
# A constant that broadcasting enlarges stays a node above this size.
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Mask:
    """A mask; `filled` is the Where or Mul that makes it, where its input `index` is the type's lowest number."""

    tensor: Tensor
    filled: Node | None = None
    index: int = 0


def mask_of(tensor: Tensor, facts: Facts) -> Mask | None:
    """The mask; None where it holds the type's lowest number in a way that cannot be mended."""
    current: Tensor | None = tensor
    for _ in range(_MOST_STEPS):
        node = current.producer if current is not None else None
        if node is None or current is None:
            return Mask(tensor)
        if node.op == "Where":
            places = [i for i in (1, 2) if _is_lowest(node.input(i), facts)]
        elif node.op == "Mul":
            places = [i for i in (0, 1) if _is_lowest(node.input(i), facts)]
            if places and not _is_whole(node.input(1 - places[0]), facts):
                return None
        elif node.op in _CARRIERS:
            current = node.input(0)
            continue
        else:
            return Mask(tensor)
        if not places:
            return Mask(tensor)
        return Mask(tensor, node, places[0]) if current is tensor and len(places) == 1 else None
    return Mask(tensor)


def _is_lowest(tensor: Tensor | None, facts: Facts) -> bool:
    value = facts.scalar(tensor)
    if tensor is None or value is None or tensor.dtype is None:
        return False
    return float(value) == float(finfo(numpy_dtype(tensor.dtype)).min)  # type: ignore[no-untyped-call]


def _is_whole(tensor: Tensor | None, facts: Facts) -> bool:
    """Whether the numbers are whole: 1 − Cast(integers), or the cast itself."""
    node = facts.producer(tensor, "Sub", "Cast")
    if node is not None and node.op == "Sub":
        node = facts.producer(node.input(1), "Cast") if facts.scalar(node.input(0)) == 1 else None
    source = node.input(0) if node is not None else None
    return source is not None and source.dtype in _INTEGERS


def built_mask(masks: tuple[Mask, ...], queries: Dim, edit: Rewriter) -> Tensor | None:
    """The sum of `masks` as one tensor of rank 2 at least, with a row for each query; None when there are none.

    Raises RewriteRefusedError where the rows cannot be told, or a constant masks whole rows.
    """
    parts = [_mended(m, edit) for m in masks]
    if not parts:
        return None
    total = parts[0]
    for part in parts[1:]:
        total = _sum(total, part, edit)
    shape = total.shape
    if shape is None or (len(shape) > 1 and shape[-2] is not None and shape[-2] == queries):
        return total
    if not isinstance(queries, int):
        raise RewriteRefusedError("the mask has no row for each query, whose number is not static")
    return _with_rows(total, queries, edit)


def _mended(mask: Mask, edit: Rewriter) -> Tensor:
    node, constant = mask.filled, mask.tensor.constant
    if constant is not None:
        rows = np.asarray(constant.array())
        if rows.dtype != np.bool_ and bool((rows.astype(np.float64).max(-1, initial=-math.inf) < -1e30).any()):
            raise RewriteRefusedError("the mask leaves a query without any key")
    if node is None:
        return mask.tensor
    old = node.inputs[mask.index]
    assert old is not None
    assert old.dtype is not None
    assert old.constant is not None
    kind = numpy_dtype(old.dtype)
    lowest = np.asarray(finfo(kind).min, kind)  # type: ignore[no-untyped-call]
    raised = np.nextafter(lowest, np.asarray(0, kind)).reshape(old.constant.shape)
    inputs = list(node.inputs)
    inputs[mask.index] = edit.constant(raised, old.name)
    return edit.node(node.op_type, inputs, node.attrs).result  # without the name: the old node may stay


def _sum(a: Tensor, b: Tensor, edit: Rewriter) -> Tensor:
    if a.constant is not None and b.constant is not None:
        first, second = a.constant, b.constant
        shape = np.broadcast_shapes(first.shape, second.shape)
        if math.prod(shape) * first.nbytes // max(first.size, 1) <= _MOST_BYTES:
            return edit.constant(Folded(first.dtype, shape, lambda: exact_values(first) + exact_values(second)), a.name)
    return edit.node("Add", [a, b]).result


def _with_rows(mask: Tensor, queries: int, edit: Rewriter) -> Tensor:
    constant = mask.constant
    if constant is not None:
        shape = np.broadcast_shapes(constant.shape, (queries, 1))
        if math.prod(shape) * constant.nbytes // max(constant.size, 1) <= _MOST_BYTES:
            return edit.constant(np.ascontiguousarray(np.broadcast_to(constant.array(), shape)), mask.name)
    return edit.node("Expand", [mask, edit.constant(np.array([queries, 1], np.int64), "rows")]).result
