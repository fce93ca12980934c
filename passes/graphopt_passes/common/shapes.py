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
