"""Cases by number: the same seed and number give the same model on every machine with this version of hypothesis."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Protocol

from hypothesis import Phase, Verbosity, given, settings

from tests.fuzz.models import Case, cases

_BYTES = 1 << 15


class Drawing(Protocol):
    """Draws the case of a number, around a rule when one is named."""

    def __call__(self, number: int, theme: str = "") -> None: ...


def buffer(seed: int, number: int) -> bytes:
    """The random bytes that hypothesis turns into case `number` of a run."""
    return random.Random(f"{seed}/{number}").randbytes(_BYTES)


def case_of(
    seed: int, number: int, only: tuple[str, ...] = (), opset: int | None = None, theme: str = ""
) -> Case | None:
    """Case `number` of a run; None when the bytes do not suffice for a model."""
    found: list[Case] = []

    @settings(database=None, verbosity=Verbosity.quiet)
    @given(cases(only=only, opset=opset, theme=theme))
    def take(case: Case) -> None:
        found.append(case)

    take.hypothesis.fuzz_one_input(buffer(seed, number))
    return found[-1] if found else None


def stream(seed: int, visit: Callable[[Case], None]) -> Drawing:
    """A function that visits the case of a number and a theme; quicker than `case_of` for many of them."""

    @cache
    def target(theme: str) -> Callable[[bytes], object]:
        @settings(database=None, verbosity=Verbosity.quiet, phases=(Phase.generate,))
        @given(cases(theme=theme))
        def take(case: Case) -> None:
            visit(case)

        found: Callable[[bytes], object] = take.hypothesis.fuzz_one_input
        return found

    def draw(number: int, theme: str = "") -> None:
        target(theme)(buffer(seed, number))

    return draw
