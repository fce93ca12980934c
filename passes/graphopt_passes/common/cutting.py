"""New Slices and Splits, in the form of the graph's opset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter


def cut(tensor: Tensor, axis: int, start: int, stop: int, edit: Rewriter) -> Node:
    """Slice(tensor) to the positions [start, stop) of `axis`; attributes before opset 10, inputs from there on."""
    if edit.graph.opset < 10:
        return edit.node("Slice", [tensor], {"axes": (axis,), "starts": (start,), "ends": (stop,)})
    values = {"starts": start, "ends": stop, "axes": axis}
    inputs = [edit.constant(np.array([v], np.int64), f"{tensor.name}.{k}") for k, v in values.items()]
    return edit.node("Slice", [tensor, *inputs])


def divide(tensor: Tensor, sizes: Sequence[int], axis: int, edit: Rewriter) -> Node:
    """Split(tensor) along `axis` into parts of `sizes`: an attribute before opset 13, an input from there on."""
    if edit.graph.opset < 13:
        return edit.node("Split", [tensor], {"axis": axis, "split": tuple(sizes)}, outputs=len(sizes))
    parts = edit.constant(np.array(sizes, np.int64), f"{tensor.name}.sizes")
    return edit.node("Split", [tensor, parts], {"axis": axis}, outputs=len(sizes))
