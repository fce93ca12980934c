"""Which Resizes are computed at compile time: those for which two implementations of ONNX's definition agree.

ONNX Runtime computes what is folded. Where it differs from the definition, that is its own affair at run time, and in
the model it would be ours: it does for align_corners, for half_pixel_symmetric, and for rounding up or down where a
coordinate is whole but for its last bit.
"""

from __future__ import annotations

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node

SINCE = 13
COORDINATES = ("asymmetric", "half_pixel", "pytorch_half_pixel")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil")
RANKS = (3, 4)


def is_settled(node: Node, facts: Facts) -> bool:
    """Whether a Resize of float32 in opset 13 or later has a form of which all implementations give the same."""
    before, after = facts.static_shape(node.input(0)), facts.static_shape(node.output(0))
    if before is None or after is None or len(before) not in RANKS or before[:2] != after[:2]:
        return False
    data = node.input(0)
    plain = (
        not node.int_attr("antialias", 0)
        and "axes" not in node.attrs
        and node.str_attr("keep_aspect_ratio_policy", "stretch") == "stretch"
    )
    mode = node.str_attr("mode", "nearest")
    is_sure = mode == "linear" or (
        mode == "nearest" and node.str_attr("nearest_mode", "round_prefer_floor") in ROUNDINGS
    )
    is_float = data is not None and data.dtype == TensorProto.FLOAT
    coordinates = node.str_attr("coordinate_transformation_mode", "half_pixel")
    return is_float and plain and is_sure and coordinates in COORDINATES and facts.opset(node) >= SINCE
