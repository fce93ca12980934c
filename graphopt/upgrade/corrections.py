"""Where onnx's version converter alone would change the numbers, or write what no runtime takes.

Each correction follows the operators' definitions in Operators.md and Changelog.md of ONNX.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import NodeProto, helper

from graphopt.graph import Node, numpy_dtype
from graphopt.upgrade.conversion import Converted, plain_proto

# corrects in place, or says why there is no right way
Correction = Callable[[Node, Converted], "str | None"]

_SOFTMAXES = ("Softmax", "LogSoftmax", "Hardmax")
_LARGEST = float(np.finfo(np.float32).max)


def own_way(node: Node, before: int, after: int) -> Converted | None:
    """What stands for `node` where the converter has no way, or a longer one; None to ask the converter."""
    if node.op in _SOFTMAXES and before < 13 <= after:
        return _along_one_axis(node)
    if node.op == "BatchNormalization" and before < 14 <= after:
        return _training_for_the_result(node)
    return None


def correct(node: Node, made: Converted, before: int, after: int) -> str | None:
    """Mends what the converter made of `node`; a sentence when that cannot be done."""
    for op_types, since, correction in _CORRECTIONS:
        if node.op in op_types and before < since <= after:
            problem = correction(node, made)
            if problem is not None:
                return problem
    if node.op in _SOFTMAXES and before < 13 <= after:
        return _along_many_axes(node, made, after)
    return None


def _along_one_axis(node: Node) -> Converted | None:
    """Softmax and its like along one axis, where that is what it does.

    Before 13 they flatten to [product of dims before axis, product of the others] and work on rows of that. Where at
    most one of the others is not 1, that is the same along this one axis; no Reshape is needed.
    """
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    axis = node.int_attr("axis", 1)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    wide = [k for k in range(axis, len(shape)) if shape[k] != 1]
    if len(wide) > 1:
        return None
    proto = plain_proto(node)
    del proto.attribute[:]
    proto.attribute.append(helper.make_attribute("axis", wide[0] if wide else len(shape) - 1))
    return Converted([proto])


def _along_many_axes(node: Node, made: Converted, after: int) -> str | None:
    """The converter flattens, and reshapes back to Shape(x): a 0 in that is a size, not a dimension to be copied."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is not None and all(isinstance(d, int) and d > 0 for d in shape):
        return None
    for proto in made.nodes:
        if proto.op_type == "Reshape" and after < 14:
            return "over several axes of a tensor that may be empty it needs a Reshape of opset 14"
        if proto.op_type == "Reshape":
            proto.attribute.append(helper.make_attribute("allowzero", 1))
    return None


def _training_for_the_result(node: Node) -> Converted | None:
    """A BatchNormalization that trains, as its further outputs tell before 14, where only its result is read.

    From 14 on `training_mode` tells it, and the last two outputs are no more. The result is the same: normalized by
    the mean and variance of the batch.
    """
    further = [t for t in node.outputs[1:] if t is not None]
    if not further or any(t.is_used for t in further) or node.int_attr("spatial", 1) != 1:
        return None
    proto = plain_proto(node)
    kept = [a for a in proto.attribute if a.name != "spatial"]
    del proto.attribute[:], proto.output[3:]
    proto.attribute.extend([*kept, helper.make_attribute("training_mode", 1)])
    return Converted([proto])


def _hardmax(node: Node, made: Converted) -> str | None:
    return None if node.int_attr("axis", 1) == -1 else "Hardmax over several axes has no equal from opset 13 on"


def _resize(node: Node, made: Converted) -> str | None:
    """Before 11 a pixel lay at output index / scale; nearest took the one below where it enlarged."""
    mode = node.str_attr("mode", "nearest")
    scales = _scales(node)
    if mode == "nearest" and (scales is None or min(scales) < 1):
        return "how it rounds where it makes smaller was not defined before opset 11"
    resize = made.nodes[-1]
    _set(resize, "coordinate_transformation_mode", "asymmetric")
    if mode == "nearest":
        _set(resize, "nearest_mode", "floor")
    return None


def _pixels(node: Node, made: Converted) -> str | None:
    mode = node.str_attr("coordinate_transformation_mode", "half_pixel")
    return f"its mode {mode} was removed at opset 13" if mode == "tf_half_pixel_for_nn" else None


def _scales(node: Node) -> list[float] | None:
    written = node.attrs.get("scales")
    if written is not None:
        return [float(s) for s in written]
    constant = node.inputs[1].constant if len(node.inputs) > 1 and node.inputs[1] is not None else None
    return None if constant is None else [float(s) for s in constant.array().reshape(-1)]


def _bounds(node: Node, made: Converted) -> str | None:
    """Numbers that were attributes, which are float, become inputs of the data's type; bounds that bound nothing go."""
    dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
    if dtype is None:
        return "the type of its data is not known"
    if node.op == "Clip" and dtype == onnx.TensorProto.DOUBLE and not {"min", "max"} <= node.attrs.keys():
        return "it bounds doubles by the largest float32 where it names no bound, and from opset 11 on it does not"
    last = made.nodes[-1]
    _drop(last, "value")  # the converter leaves it where the mode does not read it
    for index, name in enumerate(last.input):
        tensor = made.constants.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        value = onnx.numpy_helper.to_array(tensor)
        is_none = node.op == "Clip" and value.item() * (-1 if index == 1 else 1) >= _LARGEST
        if is_none and dtype != onnx.TensorProto.DOUBLE:  # the largest float bounds doubles
            last.input[index] = ""  # no bound at all, which every type has
            del made.constants[name]
        else:
            with np.errstate(over="ignore"):
                made.constants[name] = onnx.numpy_helper.from_array(value.astype(numpy_dtype(dtype)), name)
    while not last.input[-1]:
        del last.input[-1]
    return None


def _training(node: Node, made: Converted) -> str | None:
    if len([t for t in node.outputs if t is not None]) > 1:
        return "it trains, and more than its result is read"
    return None


def _mask(node: Node, made: Converted) -> str | None:
    """From 12 on the mask is True throughout at inference; before it was not filled, and ONNX Runtime gives zeros."""
    is_read = len(node.outputs) > 1 and node.outputs[1] is not None and node.outputs[1].is_used
    return "what the mask of a Dropout holds was not defined before opset 12" if is_read else None


def _transform(node: Node, made: Converted) -> str | None:
    """DFT's axis was an attribute, 1 by default; it became an input, -2 by default."""
    return None if "axis" in node.attrs or len(made.nodes[-1].input) > 2 else "its default axis changed at opset 20"


def _set(node: NodeProto, name: str, value: str) -> None:
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.s = value.encode()
            return
    node.attribute.append(helper.make_attribute(name, value))


def _drop(node: NodeProto, name: str) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


# operators, the opset that changed them, what to do when a model passes it
_CORRECTIONS: tuple[tuple[tuple[str, ...], int, Correction], ...] = (
    (("Upsample", "Resize"), 11, _resize),
    (("Clip", "Pad"), 11, _bounds),
    (("Dropout",), 12, _mask),
    (("Hardmax",), 13, _hardmax),
    (("Resize",), 13, _pixels),
    (("BatchNormalization",), 14, _training),
    (("DFT",), 20, _transform),
)
