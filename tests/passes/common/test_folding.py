"""Constants that are computed later, once, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from graphopt.graph import ArrayConstant, Constant
from graphopt.rule import RewriteRefusedError
from graphopt_passes.common.folding import Folded, exact_values, fold, peak, sum_of_shifts

FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    asked = []

    def compute() -> np.ndarray:
        asked.append(1)
        return np.full((4, 2), 0.1)

    constant = fold(Folded(FLOAT, (4, 2), compute), bounds=(0.1, 0.1))
    assert not asked
    assert constant.array().dtype == np.float32
    assert asked


def test_a_chain_of_folds_is_rounded_once() -> None:
    third = np.float32(1 / 3)
    first = Folded(HALF, (1,), lambda: np.array([float(third)]))
    second = Folded(HALF, (1,), lambda: exact_values(first) * 3)
    assert second.array()[0] == np.float16(float(third) * 3)


@pytest.mark.parametrize("size", [3, 100_000])
def test_a_long_chain_needs_no_deep_recursion(size: int) -> None:
    constant: Constant = ArrayConstant(np.ones(size, np.float32))

    def next_of(source: Constant) -> Folded:
        return Folded(FLOAT, (size,), lambda: exact_values(source) + 1.0)

    for _ in range(2000 if size < 10 else 100):
        constant = next_of(constant)
        peak(constant)
    assert constant.array()[0] == (2001 if size < 10 else 101)


def test_what_the_type_does_not_hold() -> None:
    with pytest.raises(RewriteRefusedError, match="does not fit float16"):
        fold(Folded(HALF, (2,), lambda: np.array([1.0, 1e6])))
    with pytest.raises(RewriteRefusedError, match="too small"):
        fold(Folded(HALF, (2,), lambda: np.array([1e-6, 3.3e-7])))
    with pytest.raises(RewriteRefusedError, match="does not fit float"):
        fold(Folded(FLOAT, (2,), lambda: np.array([1e39, 1.0])), bounds=(1.0, 1e39))
    with pytest.raises(RewriteRefusedError, match="does not fit"):
        fold(Folded(FLOAT, (1,), lambda: np.array([np.nan])))


MAGIC = 1.5 * 2**23  # added to a float32 and taken away again, it rounds to an integer


@pytest.mark.parametrize(
    ("dtype", "shifts", "is_lost"),
    [
        (FLOAT, (MAGIC, -MAGIC), True),
        (FLOAT, (MAGIC, 1 - MAGIC), True),
        (FLOAT, (MAGIC, 0.3), True),
        (FLOAT, (MAGIC, 0.0), False),
        (FLOAT, (2000.0, 0.3), False),
        (FLOAT, (1000.0, -1000.0), False),
        (FLOAT, (5000.0, -2000.0), False),
        (FLOAT, (0.5, -0.5), False),
        (HALF, (1536.0, -1536.0), True),
        (HALF, (32.0, -32.0), False),
    ],
)
def test_shifts_that_round_others_are_not_summed(dtype: int, shifts: tuple[float, float], is_lost: bool) -> None:
    vectors = [np.array([1.0, shift]) for shift in shifts]
    if is_lost:
        with pytest.raises(RewriteRefusedError, match="so large that"):
            sum_of_shifts(dtype, *vectors)
    else:
        np.testing.assert_array_equal(sum_of_shifts(dtype, *vectors), [2.0, sum(shifts)])
