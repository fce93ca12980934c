"""Operators whose result's shape onnx infers wrongly, and what is sure of it.

Compared with ONNX Runtime and with the specification, for onnx 1.23:

- MaxPool, AveragePool, LpPool with `ceil_mode` before opset 22: onnx counts a last window that starts in the padding at
  the end. Opset 22 writes down that there is none, which is what runtimes always did.
- Einsum: where one operand has 1 and broadcasts, onnx takes the first operand's dimension.
- Resize and Upsample by scales: the product is rounded down, by onnx of the exact numbers, by runtimes of float32.
- Squeeze with no axes in an empty tensor: onnx removes nothing, ONNX Runtime all ones.
- Slice along axes, or by steps, of which not even the rank is known: onnx takes the first axes, and steps of 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from graphopt.graph import Array, Dim, Shape

POOLS = frozenset(("AveragePool", "LpPool", "MaxPool"))
# Since this opset the pools' last window is defined, and onnx infers it.
PLAIN_POOLS = 22
SUSPECTS = POOLS | {"Einsum", "Resize", "Slice", "Squeeze", "Upsample"}
_LABEL = re.compile(r"\.\.\.|[a-zA-Z]")

Values = Callable[[int], Array | None]


def is_suspect(node: NodeProto, version: int) -> bool:
    """Whether onnx may infer a wrong shape for a node of this form, whatever its inputs are."""
    op = node.op_type
    if op not in SUSPECTS or node.domain not in ("", "ai.onnx"):
        return False
    if op in POOLS:
        ceil = next((a for a in node.attribute if a.name == "ceil_mode"), None)
        return version < PLAIN_POOLS and ceil is not None and (ceil.i != 0 or bool(ceil.ref_attr_name))
    if op == "Einsum":
        return len(node.input) > 1
    if op == "Slice":
        return any(node.input[3:5])
    if op == "Resize":
        return _scales_index(node, version) is not None
    return op == "Upsample" or len(node.input) > 1 or any(a.name == "axes" and not a.ints for a in node.attribute)


def true_shape(
    node: NodeProto, version: int, inputs: Sequence[Shape | None], values: Values, found: Shape
) -> Shape | None:
    """What is sure of the shape of a suspect's results, for which onnx found `found`; None where not even the rank is.

    `inputs` are the shapes of its inputs, `values` gives the value of one of them by its index where it is constant.
    """
    if node.op_type == "Squeeze":
        return _squeezed(node, values, found)
    if node.op_type == "Slice":
        given = [shape for name, shape in zip(node.input[3:5], inputs[3:5], strict=True) if name]
        return found if None not in given else (None,) * len(found)
    if not inputs or inputs[0] is None:
        return None
    if node.op_type in POOLS:
        return _pooled(node, inputs[0], found)
    if node.op_type == "Einsum":
        return _summed(node, inputs, found)
    return _scaled(node, version, inputs[0], values, found)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}


def _squeezed(node: NodeProto, values: Values, found: Shape) -> Shape | None:
    axes = values(1) if len(node.input) > 1 and node.input[1] else None
    empty = axes.size == 0 if axes is not None else len(node.input) < 2
    return None if empty else found


def _pooled(node: NodeProto, data: Shape, found: Shape) -> Shape | None:
    """The shape by the formula of opset 22: a window that starts behind the data and its padding before is no window.

    Where `auto_pad` asks for the same size, there is nothing to round up.
    """
    attributes = _attributes(node)
    spatial = len(data) - 2
    pads = attributes.get("pads") or [0] * (2 * spatial)
    strides = attributes.get("strides") or [1] * spatial
    if len(found) != len(data) or len(pads) != 2 * spatial or len(strides) != spatial:
        return None
    if attributes.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
        return found
    dims = list(found)
    for axis, (size, out, before, stride) in enumerate(zip(data[2:], found[2:], pads, strides, strict=False), 2):
        if not isinstance(size, int) or not isinstance(out, int):
            dims[axis] = None if isinstance(out, int) else out
        elif (out - 1) * stride >= size + before:
            dims[axis] = out - 1
    return tuple(dims)


def _summed(node: NodeProto, inputs: Sequence[Shape | None], found: Shape) -> Shape | None:
    """An output's dimension is sure where all operands agree on its label, or where one has a number above 1."""
    equation = _attributes(node).get("equation", b"").decode(errors="replace").replace(" ", "")
    terms, _, result = equation.partition("->")
    known: dict[object, set[Dim]] = {}
    ranks: list[int] = []
    operands = terms.split(",")
    if len(operands) != len(inputs):
        return None
    for term, shape in zip(operands, inputs, strict=True):
        labels = _labels(term, len(shape)) if shape is not None else None
        if labels is None or shape is None or len(labels) != len(shape):
            return None
        ranks.append(len(shape) - len(_LABEL.findall(term.replace("...", ""))))
        for label, dim in zip(labels, shape, strict=True):
            known.setdefault(label, set()).add(dim)
    letters = _LABEL.findall(terms.replace("...", ""))
    if "->" not in equation:
        result = "..." * ("..." in terms) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    labels = _labels(result, max(ranks) + len(result.replace("...", "")))
    if labels is None or len(labels) != len(found):
        return None
    return tuple([_agreed(known.get(label, {None}), dim) for label, dim in zip(labels, found, strict=True)])


def _labels(term: str, rank: int) -> list[object] | None:
    """One label a dimension: a letter, or for what an ellipsis stands for the place counted from its end."""
    parts = _LABEL.findall(term)
    if "".join(parts) != term or parts.count("...") > 1:
        return None
    hidden = rank - len(parts) + parts.count("...")
    found: list[object] = []
    for part in parts:
        found.extend(range(-hidden, 0) if part == "..." else [part])
    return found


def _agreed(dims: set[Dim], found: Dim) -> Dim:
    if len(dims) == 1:
        return found
    numbers = [dim for dim in dims if isinstance(dim, int) and dim > 1]
    return numbers[0] if len(numbers) == 1 else None


def _scales_index(node: NodeProto, version: int) -> int | None:
    """Which input of a Resize has the scales; None where the sizes are given."""
    if version < 11:
        return 1
    sized = len(node.input) > 3 and node.input[3]
    return None if sized else 2


def _scaled(node: NodeProto, version: int, data: Shape, values: Values, found: Shape) -> Shape | None:
    """A dimension is sure where the product with its scale is rounded down to one number in float32 and exactly."""
    attributes = _attributes(node)
    if len(found) != len(data):
        return None
    given = attributes.get("scales")
    if given is None:
        index = 1 if node.op_type == "Upsample" else _scales_index(node, version)
        array = values(index) if index is not None else None
        given = array.reshape(-1).tolist() if array is not None else None
    axes = [axis % len(data) for axis in attributes.get("axes") or range(len(data))] if data else []
    if given is None or len(given) != len(axes):
        return tuple([None if isinstance(dim, int) else dim for dim in found])
    dims = list(found)
    for axis, scale in zip(axes, given, strict=True):
        size = data[axis]
        if isinstance(dims[axis], int) and not (isinstance(size, int) and _rounds_alike(size, scale)):
            dims[axis] = None
    return tuple(dims)


def _rounds_alike(size: int, scale: float) -> bool:
    exact = float(size) * float(np.float32(scale))
    rounded = float(np.float32(size) * np.float32(scale))
    return bool(np.floor(exact) == np.floor(rounded))
