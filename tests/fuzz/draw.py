"""Choices: the one source of randomness, kept small so that hypothesis can shrink it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

T = TypeVar("T")


@cache
def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


class Draw:
    """Draws from hypothesis. A choice shrinks to its first option, a chance to no, a number to its low end."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low if low == high else self._draw(_integers(low, high))

    def choice(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[self.integer(0, len(options) - 1)]

    def weighted(self, options: Sequence[tuple[T, int]]) -> T:
        """One of the (option, weight) pairs."""
        at = self.integer(0, sum(weight for _, weight in options) - 1)
        for option, weight in options:
            if at < weight:
                return option
            at -= weight
        raise AssertionError("the weights changed while they were read")

    def chance(self, percent: int) -> bool:
        """True in that many cases of a hundred; shrinks to False."""
        return percent > 0 and self.integer(0, 99) >= 100 - percent

    def order(self, count: int) -> list[int]:
        """A permutation of range(count); shrinks to the identity."""
        left = list(range(count))
        return [left.pop(self.integer(0, len(left) - 1)) for _ in range(count)]

    def some(self, options: Sequence[T], least: int = 0) -> list[T]:
        """A subset in the options' order, of at least that many."""
        count = self.integer(min(least, len(options)), len(options))
        return [options[at] for at in sorted(self.order(len(options))[:count])]

    def parts(self, total: int, count: int) -> list[int]:
        """Positive sizes, that many, whose sum is total (total >= count)."""
        sizes = [1] * count
        for _ in range(total - count):
            sizes[self.integer(0, count - 1)] += 1
        return sizes

    def random(self) -> np.random.Generator:
        """Numbers whose exact values do not matter."""
        return np.random.default_rng(self.integer(0, 0xFFFF))

    def floats(self, shape: Sequence[int], scale: float = 1.0, dtype: Any = np.float32) -> np.ndarray:
        """Normal values, in rare cases all zeros, all ones, or with a negative zero first."""
        values = (self.random().standard_normal(tuple(shape)) * scale).astype(dtype)
        special = self.integer(0, 39)
        if special == 37:
            values = np.zeros_like(values)
        elif special == 38:
            values = np.ones_like(values)
        elif special == 39 and values.size:
            values.flat[0] = -0.0
        return values
