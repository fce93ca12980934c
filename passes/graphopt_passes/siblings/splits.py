"""Split in the form of the graph's opset: sizes are an attribute before 13, an input from 13 on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter


def split(tensor: Tensor, sizes: Sequence[int], axis: int, edit: Rewriter) -> Node:
    """Split(tensor) along `axis` into parts of `sizes`."""
    if edit.graph.opset < 13:
        return edit.node("Split", [tensor], {"axis": axis, "split": tuple(sizes)}, outputs=len(sizes))
    parts = edit.constant(np.array(sizes, np.int64), f"{tensor.name}.sizes")
    return edit.node("Split", [tensor, parts], {"axis": axis}, outputs=len(sizes))
