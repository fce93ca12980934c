"""A constant shift behind a Conv whose weights are computed is its bias."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.vertical.computed_weights import AddBiasToConv
from tests.passes.vertical.weights import normal
from tests.support.models import Arrays, model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

LARGER = "g (float[2,4,8,8] x, float[6,4,3,3] w) => (float[a,b,c,d,e] y) { c = Conv(x, w) \n y = Add(c, t) }"


def shifted(
    shift: Arrays | None = None,
    weight: str = "float[6,4,3,3] w",
    body: str = "c = Conv(x, w) \n y = Add(c, t)",
    out: str = "",
) -> ModelProto:
    extra = f", {weight}" if weight else ""
    text = f"g (float[2,4,8,8] x{extra}) => (float[a,b,c,d] y{out}) {{ {body} }}"
    return model(text, {"t": normal(6, 1, 1)} if shift is None else shift)


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (), (1,), (1, 1, 1)])
def test_the_shift_becomes_the_bias(shape: tuple[int, ...]) -> None:
    after = check_rewrite(AddBiasToConv(), shifted({"t": normal(*shape)}), ["Conv"])
    assert list(after.graph.initializer[0].dims) == [6]


def test_the_constant_may_come_first() -> None:
    check_rewrite(AddBiasToConv(), shifted(body="c = Conv(x, w) \n y = Add(t, c)"), ["Conv"])


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        (
            "it has a bias",
            shifted(body="c = Conv(x, w, b) \n y = Add(c, t)", weight="float[6,4,3,3] w, float[6] b"),
            "has a bias",
        ),
        (
            "constant weights are another rule's",
            shifted({"t": normal(6, 1, 1), "w": normal(6, 4, 3, 3)}, ""),
            "constant weights",
        ),
        ("channels unknown", shifted(weight="float[n,4,3,3] w"), "number of channels is not known"),
        ("along the width", shifted({"t": normal(6)}), "not one number a channel"),
        ("it makes the data larger", model(LARGER, {"t": normal(1, 1, 6, 1, 1)}), "not one number a channel"),
        (
            "a second reader",
            shifted(body="c = Conv(x, w) \n y = Add(c, t) \n z = Neg(c)", out=", float[e,f,g,h] z"),
            "feeds it alone",
        ),
        ("the shift is computed", shifted({}, "float[6,4,3,3] w, float[6,1,1] t"), "not one of its inputs is constant"),
    ],
)
def test_other_shifts_stay(why: str, before: ModelProto, because: str) -> None:
    check_untouched(AddBiasToConv(), before, because=because)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    group=st.sampled_from([1, 2]),
    strides=st.integers(1, 2),
    shape=st.sampled_from([(), (6, 1, 1), (1, 6, 1, 1), (1, 1), (7, 1)]),
)
def test_whatever_moves_the_numbers_are_equal(group: int, strides: int, shape: tuple[int, ...]) -> None:
    body = f"c = Conv<group={group}, strides=[1,{strides}], pads=[1,1,0,0]>(x, w) \n y = Add(c, t)"
    before = shifted({"t": np.asarray(normal(*shape))}, f"float[6,{4 // group},3,3] w", body)
    after, log = apply(AddBiasToConv(), before)
    assert bool(log.applications) == (shape != (7, 1))
    check_numbers(before, after, exact=False)
