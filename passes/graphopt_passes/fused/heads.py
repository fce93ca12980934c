"""Where the heads of queries, keys and values come from: columns of a tensor [B, S, N], however they were moved."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt_passes.blocks.terms import inner
from graphopt_passes.common.arguments import ints_argument, permutation
from graphopt_passes.common.dividing import divided_last_axis
from graphopt_passes.common.splits import split_axis, split_sizes

Perm = tuple[int, ...]
SWAP: Perm = (0, 2, 1, 3)  # [B, S, h, d] to [B, h, S, d], and back


@dataclass(frozen=True)
class Heads:
    """`heads` of `width` columns each, one after the other from column `start` of `source`, which is [B, S, N].

    `whole` is the tensor [B, S, heads · width] where the graph has one.
    """

    source: Tensor
    start: int
    heads: int
    width: int
    whole: Tensor | None = None

    @property
    def stop(self) -> int:
        """The column after the last."""
        return self.start + self.heads * self.width


def heads_of(tensor: Tensor | None, facts: Facts) -> Heads | None:
    """The heads that `tensor` [B, h, S, d] holds; None when it is not made by moving columns of one tensor [B, S, N].

    Nothing else reads what is between, but for other heads.
    """
    node = inner(tensor, facts, "Transpose", "Split", "Squeeze", "Gather")
    if node is None or tensor is None:
        return None
    if node.op == "Transpose":
        return rows_of(node.input(0), facts) if permutation(node, facts) == SWAP else None
    if node.op == "Split":
        return _split_heads(node, tensor, facts)
    return _stacked_heads(node, facts)


def rows_of(tensor: Tensor | None, facts: Facts) -> Heads | None:
    """The heads that `tensor` [B, S, h, d] holds."""
    reshape = inner(tensor, facts, "Reshape")
    divided = divided_last_axis(reshape, 2, facts) if reshape is not None else None
    whole = reshape.input(0) if reshape is not None else None
    if divided is None or whole is None or len(divided.leading) != 2:
        return None
    heads, width = divided.tail
    split = facts.producer(whole, "Split")
    axis = split_axis(split, facts) if split is not None else None
    if split is None or axis != 2:
        return Heads(whole, 0, heads, width, whole)
    sizes, source = split_sizes(split, axis, facts), split.input(0)
    if sizes is None or source is None:
        return None
    return Heads(source, sum(sizes[: split.outputs.index(whole)]), heads, width, whole)


def _split_heads(split: Node, tensor: Tensor, facts: Facts) -> Heads | None:
    """Heads of Split(Transpose(Reshape(source, [B, S, Σh, d])), axis=1)."""
    axis = split_axis(split, facts)
    sizes = split_sizes(split, axis, facts) if axis is not None else None
    transpose = inner(split.input(0), facts, "Transpose")
    if axis != 1 or sizes is None or transpose is None or permutation(transpose, facts) != SWAP:
        return None
    index = split.outputs.index(tensor)
    every = rows_of(transpose.input(0), facts)
    if every is None or sizes[index] < 1:
        return None
    return Heads(every.source, every.start + sum(sizes[:index]) * every.width, sizes[index], every.width)


def _stacked_heads(node: Node, facts: Facts) -> Heads | None:
    """Heads that a Gather, or a Split and a Squeeze, pick from a stack of several.

    The stack is Transpose(Reshape(source, [B, S, n, h, d]), (2, 0, 3, 1, 4)).
    """
    if node.op == "Gather":
        index, stacked = facts.ints(node.input(1)), node.input(0)
        picks = node.int_attr("axis", 0) == 0 and index is not None and facts.rank(node.input(1)) == 0
        place = index[0] if picks and index is not None else None
    else:
        axes, split = ints_argument(node, facts, "axes", 1), inner(node.input(0), facts, "Split")
        if axes is None or axes.values != (0,) or split is None or split_axis(split, facts) != 0:
            return None
        sizes, stacked = split_sizes(split, 0, facts), split.input(0)
        place = split.outputs.index(node.input(0)) if sizes is not None and set(sizes) == {1} else None
    transpose = facts.producer(stacked, "Transpose")
    reshape = inner(transpose.input(0), facts, "Reshape") if transpose is not None else None
    if place is None or transpose is None or reshape is None or permutation(transpose, facts) != (2, 0, 3, 1, 4):
        return None
    divided, source = divided_last_axis(reshape, 3, facts), reshape.input(0)
    if divided is None or source is None or stacked is None or len(stacked.consumers) > divided.tail[0]:
        return None
    count, heads, width = divided.tail
    place += count if place < 0 else 0
    return Heads(source, place * heads * width, heads, width) if 0 <= place < count else None
