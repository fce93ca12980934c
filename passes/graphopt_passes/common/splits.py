"""Split in all its forms: sizes as attribute (to 12), as input (13 on), equal parts, `num_outputs` (18 on)."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt_passes.common.arguments import axis_of, ints_argument


def split_axis(node: Node, facts: Facts) -> int | None:
    """The axis of a Split, counted from the front; None when it is not known."""
    return axis_of(node, facts.rank(node.input(0)), 0)


def split_sizes(node: Node, axis: int, facts: Facts) -> tuple[int, ...] | None:
    """The sizes of a Split's parts along `axis`; None when they are not known.

    Without sizes the parts are equal; with `num_outputs` the last one is smaller where they cannot be (Split-18).
    """
    data = node.input(0)
    dim = data.shape[axis] if data is not None and data.shape is not None else None
    given = ints_argument(node, facts, "split", 1)
    if given is None:
        return None
    count = len(node.outputs)
    if given.values is not None:
        sizes = given.values
        right = len(sizes) == count and (not isinstance(dim, int) or sum(sizes) == dim)
        return sizes if right and min(sizes) >= 0 else None
    if not isinstance(dim, int):
        return None
    if dim % count == 0:
        return (dim // count,) * count
    size = -(-dim // count)
    last = dim - size * (count - 1)
    return (*((size,) * (count - 1)), last) if "num_outputs" in node.attrs and last >= 0 else None
