"""A ScatterND that writes every row in order gives what it writes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.constants.scatters import DropFullScatter
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

ROWS = np.array([[0], [1], [2]], np.int64)


def scattering(
    indices: np.ndarray, kind: str = "float[3,4]", written: str = "float[3,4]", attrs: str = ""
) -> ModelProto:
    text = f"g ({kind} x, {written} u) => ({kind} y) {{ a = Neg(u) \n y = ScatterND{attrs}(x, i, a) }}"
    return model(text, {"i": indices}, opset=18)


def ranging(
    start: int = 0, step: int = 1, place: int = -1, dim: int = 0, kind: str = "float[N,4]", of: str = "x"
) -> ModelProto:
    text = (
        f"g ({kind} x, {kind} u) => ({kind} y) {{ a = Neg(u) \n s = Shape({of}) \n n = Gather<axis=0>(s, d) \n"
        "r = Range(z, n, k) \n i = Unsqueeze(r, p) \n y = ScatterND(x, i, a) }"
    )
    weights = {"d": dim, "z": start, "k": step, "p": [place]}
    return model(text, {name: np.array(value, np.int64) for name, value in weights.items()})


def test_constant_indices_of_all_rows() -> None:
    check_rewrite(DropFullScatter(), scattering(ROWS), ["Neg"])


def test_a_range_over_a_dimension_that_has_a_name() -> None:
    check_rewrite(DropFullScatter(), ranging(), ["Neg"], N=3)


def test_a_range_over_a_dimension_of_known_size() -> None:
    check_rewrite(DropFullScatter(), ranging(kind="float[3,4]", place=1), ["Neg"])


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        ("other order", scattering(ROWS[::-1]), "not be those of all rows"),
        ("a row is missing", scattering(ROWS[:2], written="float[2,4]"), "another shape than its data"),
        ("negative indices count too", scattering(ROWS - 3), "not be those of all rows"),
        ("it adds", scattering(ROWS, attrs='<reduction="add">'), "combines"),
        ("the range starts at 1", ranging(start=1), "not be those of all rows"),
        ("the range skips", ranging(step=2), "not be those of all rows"),
        ("the range is over another dimension", ranging(dim=1), "not be those of all rows"),
        ("dimensions without a name need not be equal", ranging(kind="float[?,4]"), "another shape than its data"),
        ("the rows are a column", ranging(place=0), "not be those of all rows"),
    ],
)
def test_other_scatters_stay(why: str, before: ModelProto, because: str) -> None:
    check_untouched(DropFullScatter(), before, because=because)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(rows=st.permutations([0, 1, 2]), start=st.integers(0, 1), dim=st.integers(0, 1))
def test_whatever_is_dropped_the_numbers_are_equal(rows: list[int], start: int, dim: int) -> None:
    for before in (scattering(np.array(rows, np.int64)[:, None]), ranging(start=start, dim=0 if start else dim)):
        after, log = apply(DropFullScatter(), before)
        if log.applications:
            check_numbers(before, after, exact=True, N=4)
