"""Heads of keys and values that an Expand repeats for several queries each (grouped-query attention)."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Tensor
from graphopt_passes.blocks.terms import inner
from graphopt_passes.common.arguments import ints_argument


def shared_heads(tensor: Tensor, facts: Facts) -> tuple[Tensor, int] | None:
    """The tensor [B, G, L, D] whose heads `tensor` = Reshape(Expand(Unsqueeze(·, 2))), [B, G·n, L, D], repeats; and n.

    Head h of the result is head ⌊h / n⌋, as Attention takes them.
    """
    reshape = inner(tensor, facts, "Reshape")
    expand = inner(reshape.input(0), facts, "Expand") if reshape is not None else None
    unsqueeze = inner(expand.input(0), facts, "Unsqueeze", "Reshape") if expand is not None else None
    source = unsqueeze.input(0) if unsqueeze is not None else None
    if source is None or expand is None or unsqueeze is None or source.shape is None or tensor.shape is None:
        return None
    single, many, shape, result = unsqueeze.result.shape, expand.result.shape, source.shape, tensor.shape
    if many is None or len(shape) != 4 or len(many) != 5 or len(result) != 4:
        return None
    if unsqueeze.op == "Unsqueeze":
        axes = ints_argument(unsqueeze, facts, "axes", 1)
        if axes is None or axes.values not in ((2,), (-3,)):
            return None
    elif single != (*shape[:2], 1, *shape[2:]) or None in shape:
        return None
    heads, times = shape[1], many[2]
    if not isinstance(heads, int) or not isinstance(times, int) or times < 2 or result[1] != heads * times:
        return None
    # only the new axis grows, and the Reshape keeps the batch and the width
    kept = [(many[0], shape[0]), (many[1], shape[1]), (many[3], shape[2]), (many[4], shape[3])]
    kept += [(result[0], shape[0]), (result[2], shape[2]), (result[3], shape[3])]
    return (source, times) if all(a is not None and a == b for a, b in kept) else None
