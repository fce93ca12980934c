"""Constants that hold one number a channel, and their joining when channels of several branches become one axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Constant, LazyConstant, Tensor
from graphopt.rewrite import Rewriter

Assemble = Callable[[Sequence[Array]], Array]


@dataclass(frozen=True)
class Axis:
    """The axis of channels: `index` from the front, in tensors of `rank` dimensions."""

    index: int
    rank: int

    @property
    def behind(self) -> int:
        """The number of dimensions after the channels."""
        return self.rank - self.index - 1


def concatenate(arrays: Sequence[Array]) -> Array:
    """The branches' arrays one after the other along their first axis."""
    return np.concatenate(arrays, axis=0)


def is_per_channel(tensor: Tensor | None, width: int, axis: Axis, facts: Facts) -> bool:
    """Whether a constant, broadcast to the branch's tensor, differs along the axis of channels only, or not at all."""
    constant = facts.constant(tensor)
    if constant is None or len(constant.shape) > axis.rank:
        return False
    place = len(constant.shape) - 1 - axis.behind
    others = [d for i, d in enumerate(constant.shape) if i != place]
    return all(d == 1 for d in others) and (place < 0 or constant.shape[place] in (1, width))


def join_channels(
    tensors: Sequence[Tensor], widths: Sequence[int], axis: Axis, facts: Facts, edit: Rewriter, assemble: Assemble
) -> Tensor:
    """One constant for all branches: the first one's when all are one equal number, else [width, 1, ...]."""
    constants = [_known(t) for t in tensors]
    if all(c.size == 1 for c in constants):
        values = {c.array().tobytes() for c in constants}
        if len(values) == 1:
            return tensors[0]
    return edit.constant(_joined(constants, widths, (1,) * axis.behind, assemble), tensors[0].name)


def join_vectors(tensors: Sequence[Tensor], widths: Sequence[int], edit: Rewriter, assemble: Assemble) -> Tensor:
    """One vector [width] for all branches, of constants with one number or one a channel."""
    return edit.constant(_joined([_known(t) for t in tensors], widths, (), assemble), tensors[0].name)


def _joined(
    constants: Sequence[Constant], widths: Sequence[int], tail: tuple[int, ...], assemble: Assemble
) -> LazyConstant:
    shape = (sum(widths), *tail)

    def compute() -> Array:
        flat = [np.broadcast_to(c.array().reshape(-1), (w,)) for c, w in zip(constants, widths, strict=True)]
        return assemble(flat).reshape(shape)

    return LazyConstant(constants[0].dtype, shape, compute)


def _known(tensor: Tensor) -> Constant:
    assert tensor.constant is not None
    return tensor.constant
