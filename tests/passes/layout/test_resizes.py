"""Enlargements by whole factors compose; whatever rounds halves, shrinks or is not known does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.layout.resizes import ComposeResizes
from tests.support.models import Arrays
from tests.support.rewrites import check_rewrite, check_untouched
from tests.support.shapes import shaped_model

F = np.float32
FLOOR = '<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">'


def chain(first: str = FLOOR, second: str = FLOOR, more: str = "", opset: int = 13, **weights: object) -> ModelProto:
    arrays: Arrays = {"a": np.array([1, 1, 2, 2], F), "b": np.array([1, 1, 2, 3], F)}
    arrays |= {k: np.asarray(v) for k, v in weights.items()}
    extra = ", float[] z" if "z =" in more else ""
    text = (
        f"g (float[N,2,3,4] x) => (float[] y{extra}) {{ m = Resize{first}(x, , a) y = Resize{second}(m, , b) {more} }}"
    )
    return shaped_model(text, arrays, opset=opset)


@pytest.mark.parametrize("opset", [13, 18, 19])
def test_they_compose(opset: int) -> None:
    after = check_rewrite(ComposeResizes(), chain(opset=opset), ["Resize"], N=2)
    assert [d.dim_value for d in after.graph.output[0].type.tensor_type.shape.dim][1:] == [2, 12, 24]


HALF = FLOOR.replace("asymmetric", "half_pixel")
NEAR = [
    ("half pixels", chain(first=HALF)),
    ("half pixels behind", chain(second=HALF)),
    ("another rounding", chain(second=FLOOR.replace("floor", "ceil"))),
    ("linear", chain(first=FLOOR.replace("nearest", "linear", 1))),
    ("a part of an element", chain(a=np.array([1, 1, 1.5, 2], F))),
    ("it shrinks", chain(b=np.array([1, 1, 0.5, 1], F))),
    ("huge factors", chain(b=np.array([1, 1, 1024, 1], F))),
    ("the inner is read twice", chain(more="z = Relu(m)")),
]


@pytest.mark.parametrize(("why", "before"), NEAR, ids=[n[0] for n in NEAR])
def test_near_misses_stay(why: str, before: ModelProto) -> None:
    check_untouched(ComposeResizes(), before)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(*(st.integers(1, 7) for _ in range(4)), st.integers(1, 9), st.integers(1, 9))
def test_numbers_hold(a: int, b: int, c: int, d: int, height: int, width: int) -> None:
    text = f"g (float[1,1,{height},{width}] x) => (float[] y) {{ m = Resize{FLOOR}(x, , a) y = Resize{FLOOR}(m, , b) }}"
    weights: Arrays = {"a": np.array([1, 1, a, b], F), "b": np.array([1, 1, c, d], F)}
    check_rewrite(ComposeResizes(), shaped_model(text, weights, opset=13), ["Resize"])
