"""Cases by number: the same seed and number give the same model on every machine with this version of hypothesis."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import Phase, Verbosity, given, settings

from tests.fuzz.models import Case, cases

_BYTES = 1 << 15


def buffer(seed: int, number: int) -> bytes:
    """The random bytes that hypothesis turns into case `number` of a run."""
    return random.Random(f"{seed}/{number}").randbytes(_BYTES)


def case_of(seed: int, number: int, only: tuple[str, ...] = (), opset: int | None = None) -> Case | None:
    """Case `number` of a run; None when the bytes do not suffice for a model."""
    found: list[Case] = []

    @settings(database=None, verbosity=Verbosity.quiet)
    @given(cases(only=only, opset=opset))
    def take(case: Case) -> None:
        found.append(case)

    take.hypothesis.fuzz_one_input(buffer(seed, number))
    return found[-1] if found else None


def stream(seed: int, visit: Callable[[Case], None]) -> Callable[[int], None]:
    """A function that visits the case of a number; quicker than `case_of` for many of them."""

    @settings(database=None, verbosity=Verbosity.quiet, phases=(Phase.generate,))
    @given(cases())
    def take(case: Case) -> None:
        visit(case)

    target = take.hypothesis.fuzz_one_input
    return lambda number: target(buffer(seed, number))
