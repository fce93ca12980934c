"""Operators whose result's shape onnx infers wrongly, and what is sure of it.

Compared with ONNX Runtime and with the specification, for onnx 1.23:

- MaxPool, AveragePool, LpPool with `ceil_mode` before opset 22: onnx counts a last window that starts in the padding at
  the end. Opset 22 writes down that there is none, which is what runtimes always did.
- Einsum: where one operand has 1 and broadcasts, onnx takes the first operand's dimension.
- Resize and Upsample by scales: the product is rounded down, by onnx of the exact numbers, by runtimes of float32.
- Squeeze with no axes in an empty tensor: onnx removes nothing, ONNX Runtime all ones.
- Slice along axes, or by steps, of which not even the rank is known: onnx takes the first axes, and steps of 1. In
  opset 10 a dimension that is no number keeps its name, whatever is cut.
- Squeeze and Unsqueeze before opset 11 by axes that do not ascend, or are negative: onnx passes some over.
- Pools and ConvTranspose that keep the size (`auto_pad`) and round up, dilate or add output padding besides.
- Range of floats: counted by onnx in float64, but for the difference, by runtimes in float32.
- DFT of a length that is known at run time only: onnx keeps the signal's; STFT without `onesided`: onnx takes 0, the
  definition 1.
- What is read of a sequence or an optional: onnx takes all elements for alike, down to the names of dimensions; what
  a Loop, an If or a body's input holds may have any shape.
- Slice backwards up to the largest integer: nothing by the definition, all to the far end in ONNX Runtime.
- Attention of three dimensions whose value has an unknown width: onnx takes 0; its `qk_matmul_output` with past keys.

Not put right: what ONNX Runtime makes of empty tensors against the definitions (a MatMul of no columns does not
broadcast, a reduction over a negative axis keeps it), and a PRelu whose slope is wider than its data, which ONNX does
not allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper

from graphopt.graph import Array, Dim, Shape
from graphopt.loop_claims import MADE_UP

POOLS = frozenset(("AveragePool", "LpPool", "MaxPool"))
# Since this opset the pools' last window is defined, and onnx infers it.
PLAIN_POOLS = 22
# What reads an element of a sequence, or what an optional holds.
READERS = frozenset(("SequenceAt", "OptionalGetElement", "ConcatFromSequence"))
# What makes sequences and optionals whose elements' numbers onnx knows, and what gives them on.
MAKERS = frozenset(("SequenceConstruct", "SplitToSequence", "Optional"))
# Stands for what makes a model's inputs.
CALLER = NodeProto()
LIST = NodeProto(op_type="SequenceConstruct")  # and of a sequence that was made and to which more was added
PASSERS = frozenset(("SequenceInsert", "SequenceErase", "Identity"))
SUSPECTS = (
    POOLS
    | READERS
    | {
        *("Attention", "ConvTranspose", "DFT", "Einsum", "NonZero", "Range", "Resize", "Slice", "Squeeze", "STFT"),
        *("Unsqueeze", "Upsample"),
    }
)
# The opset of the Slice whose result keeps the names of dimensions; those since which axes may be negative, and since
# which DFT has its axis as an input.
_NAMING_SLICE = 10
_ANY_AXES = 11
# An end that ONNX Runtime takes for none at all.
LARGEST = ((1 << 31) - 1, (1 << 63) - 1)
_DFT_AXES = 20
_LABEL = re.compile(r"\.\.\.|[a-zA-Z]")

Values = Callable[[int], Array | None]


def is_suspect(node: NodeProto, version: int) -> bool:
    """Whether onnx may infer a wrong shape for a node of this form, whatever its inputs are."""
    op = node.op_type
    if op not in SUSPECTS or node.domain not in ("", "ai.onnx"):
        return False
    given = {a.name: a for a in node.attribute}
    if op in POOLS:
        ceil = given.get("ceil_mode")
        rounds_up = ceil is not None and (ceil.i != 0 or bool(ceil.ref_attr_name))
        return (version < PLAIN_POOLS and rounds_up) or _keeps_size_besides(given, "dilations")
    if op == "ConvTranspose":
        return _keeps_size_besides(given, "output_padding")
    if op == "Einsum":
        return len(node.input) > 1
    if op == "Slice":
        return version == _NAMING_SLICE or any(node.input[3:5])
    if op == "Resize":
        policy = given.get("keep_aspect_ratio_policy")
        return _scales_index(node, version) is not None or (policy is not None and policy.s != b"stretch")
    if op == "DFT":
        return len(node.input) > 1 and bool(node.input[1])
    if op == "STFT":
        return "onesided" not in given
    if op in ("Squeeze", "Unsqueeze") and "axes" in given:
        axes = list(given["axes"].ints)
        return not axes or (version < _ANY_AXES and (axes != sorted(set(axes)) or axes[0] < 0))
    return (
        op in READERS
        or op in ("Attention", "NonZero", "Range", "Upsample")
        or (op == "Squeeze" and len(node.input) > 1)
    )


def _keeps_size_besides(given: dict[str, AttributeProto], name: str) -> bool:
    """Whether the output is to be as large as the input, and an attribute that is 0 or 1 by default says otherwise."""
    pads, other = given.get("auto_pad"), given.get(name)
    plain = 1 if name == "dilations" else 0
    return pads is not None and pads.s.startswith(b"SAME") and other is not None and any(n != plain for n in other.ints)


def true_shape(
    node: NodeProto,
    version: int,
    inputs: Sequence[Shape | None],
    values: Values,
    found: Shape,
    maker: NodeProto | None = None,
) -> Shape | None:
    """What is sure of the shape of a suspect's results, for which onnx found `found`; None where not even the rank is.

    `inputs` are the shapes of its inputs, `values` gives the value of one of them by its index where it is constant.
    `maker` is what made the sequence or optional that it reads: one of `MAKERS`, `CALLER`, or None for anything else.
    """
    op = node.op_type
    if op in READERS:
        return _element(node, maker, found)
    if op == "Unsqueeze" or (op == "Squeeze" and _attributes(node).get("axes")):
        return None  # a suspect only by its axes
    if op == "Squeeze":
        return _squeezed(node, values, found)
    if op == "Range":
        return found if _counts_alike(values) else (None,)
    if op == "NonZero":  # of a single number ONNX Runtime gives one row, and the standard none
        return found if inputs and inputs[0] else (None,) * len(found)
    if not inputs or inputs[0] is None:
        return None
    if op == "Slice":
        return _sliced(node, version, inputs, values, found)
    if op == "Attention":
        return found if _is_plain_attention(node, inputs) else None
    if op == "DFT":
        return (
            found if version < _DFT_AXES or values(1) is not None else (found[0], *[None] * (len(found) - 2), found[-1])
        )
    if op == "STFT":
        return (*found[:2], None, *found[3:])
    if op in POOLS:
        return _pooled(node, inputs[0], found)
    if op == "ConvTranspose":
        return (*found[:2], *[None] * (len(found) - 2))
    if node.op_type == "Einsum":
        return _summed(node, inputs, found)
    return _scaled(node, version, inputs[0], values, found)


def _element(node: NodeProto, maker: NodeProto | None, found: Shape) -> Shape | None:
    """The numbers hold for all elements, and of names what all share: those of the other axes of what was split, the
    model's own where tensors are listed (onnx keeps one that is everywhere the same)."""
    if maker is None:
        return None
    if maker.op_type == "Optional" and node.op_type == "OptionalGetElement":
        return found
    if maker.op_type == "SplitToSequence" and node.op_type == "SequenceAt" and found:
        given = _attributes(maker)
        if given.get("keepdims", 1) == 0 and len(maker.input) == 1:
            return found  # its axis is gone
        cut = given.get("axis", 0) % len(found)
        return tuple([dim if isinstance(dim, int) or axis != cut else None for axis, dim in enumerate(found)])
    named = maker is not CALLER
    return tuple([d if isinstance(d, int) or (named and d and not d.startswith(MADE_UP)) else None for d in found])


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}


def _sliced(
    node: NodeProto, version: int, inputs: Sequence[Shape | None], values: Values, found: Shape
) -> Shape | None:
    given = [shape for name, shape in zip(node.input[3:5], inputs[3:5], strict=True) if name]
    if None in given:
        return (None,) * len(found)
    starts, ends, axes, steps = (values(index) for index in range(1, 5))
    if len(node.input) > 3 and node.input[3]:
        cut = None if axes is None else [int(axis) % len(found) for axis in axes.reshape(-1)]
    else:
        cut = None if starts is None else list(range(starts.size))
    if any(node.input[4:5]) and not _is_clear(ends, steps):
        return tuple([None if cut is None or axis in cut else dim for axis, dim in enumerate(found)])
    if version != _NAMING_SLICE:
        return found
    return tuple(
        [
            dim if isinstance(dim, int) or (cut is not None and axis not in cut) else None
            for axis, dim in enumerate(found)
        ]
    )


def _is_clear(ends: Array | None, steps: Array | None) -> bool:
    """Whether no step leads backwards up to the largest integer."""
    if steps is None or (steps > 0).all():
        return steps is not None
    return ends is not None and ends.shape == steps.shape and not np.isin(ends[steps < 0], LARGEST).any()


def _is_plain_attention(node: NodeProto, inputs: Sequence[Shape | None]) -> bool:
    """Whether the value's width is known where it is divided into heads, and no scores of past keys are asked for."""
    has_past = any(node.input[4:6])
    if has_past and any(node.output[3:]):
        return False
    query, value = inputs[0], inputs[2] if len(inputs) > 2 else None
    return query is not None and value is not None and (len(query) == 4 or isinstance(value[-1], int))


def _counts_alike(values: Values) -> bool:
    """Whether a Range has one number of elements, however it is rounded; of integers, or unknown ones, it has."""
    ends = [values(index) for index in range(3)]
    if any(end is None or end.size != 1 for end in ends):
        return True
    start, limit, delta = (end.reshape(()) for end in ends if end is not None)
    if start.dtype.kind in "iu" or not delta:
        return True
    single, double = np.float32, np.float64
    forms = ((single, single), (double, double), (single, double))  # the type of the difference, of the quotient
    return len({float(np.ceil(q(d(limit) - d(start)) / q(delta))) for d, q in forms}) == 1


def _squeezed(node: NodeProto, values: Values, found: Shape) -> Shape | None:
    axes = values(1) if len(node.input) > 1 and node.input[1] else None
    empty = axes.size == 0 if axes is not None else len(node.input) < 2
    return None if empty else found


def _pooled(node: NodeProto, data: Shape, found: Shape) -> Shape | None:
    """The shape by the formula of opset 22: a window that starts behind the data and its padding before is no window.

    Where `auto_pad` asks for the same size besides, runtimes and onnx differ.
    """
    attributes = _attributes(node)
    spatial = len(data) - 2
    pads = attributes.get("pads") or [0] * (2 * spatial)
    strides = attributes.get("strides") or [1] * spatial
    if len(found) != len(data) or len(pads) != 2 * spatial or len(strides) != spatial:
        return None
    if attributes.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER"):
        return (*found[:2], *[None] * spatial)
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
        return tuple([None if isinstance(dim, int) and axis in axes else dim for axis, dim in enumerate(found)])
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
