"""Guards about shapes: what broadcasting, slicing and reshaping surely leave as it is."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Shape, Tensor


def broadcasts_into(small: Shape | None, large: Shape | None) -> bool:
    """Whether broadcasting a tensor of shape `small` with one of shape `large` surely gives `large`.

    A scalar does whatever `large` is. Each other dimension of `small`, counted from the back, must be 1 or the same
    number or symbol as in `large`.
    """
    if small is None:
        return False
    if not small:
        return True
    if large is None or len(small) > len(large):
        return False
    aligned = large[len(large) - len(small) :]
    return all(s == 1 or (s is not None and s == d) for s, d in zip(small, aligned, strict=True))


def reshape_keeps(target: tuple[int, ...], shape: Shape | None, *, zero_copies: bool) -> bool:
    """Whether Reshape to `target` surely gives `shape` back, the shape of its input.

    `zero_copies`: an entry 0 copies the input's dimension (`allowzero` is 0). One entry −1 is what the others leave.
    """
    if shape is None or len(target) != len(shape):
        return False
    unsure = [
        i
        for i, (t, d) in enumerate(zip(target, shape, strict=True))
        if not ((t == 0 and zero_copies) or (t == d and t >= 0))
    ]
    return not unsure or (len(unsure) == 1 and target[unsure[0]] == -1)


def is_same(facts: Facts, a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors surely have the same shape: one tensor, or equal numbers and symbols."""
    return a is not None and (a is b or facts.same_shape(a, b))


def reshape_target(source: Shape | None, result: Shape | None) -> tuple[int, ...] | None:
    """The constant with which Reshape surely turns `source` into `result`, whatever the symbols stand for.

    One dimension that is no number becomes −1; several become 0 where `source` has them at the same place. None when
    that does not do, and for empty tensors: 0 copies, and −1 beside a dimension that may be 0 is an error.
    """
    if result is None or 0 in result:
        return None
    unknown = [i for i, d in enumerate(result) if not isinstance(d, int)]
    if len(unknown) <= 1:
        return tuple(d if isinstance(d, int) else -1 for d in result)
    if source is None or any(i >= len(source) or result[i] is None or source[i] != result[i] for i in unknown):
        return None
    return tuple(d if isinstance(d, int) else 0 for d in result)
