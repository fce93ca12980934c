"""Constant Resizes are folded in the forms that have one meaning, and in no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from graphopt.verification.sessions import OnnxRuntime, Reference
from graphopt.verification.source import Located
from graphopt_passes.constants import FoldConstants
from graphopt_passes.constants.resizes import COORDINATES, ROUNDINGS
from tests.support.models import model, run
from tests.support.rewrites import apply_pass

FORMS = [
    *((f'mode = "linear", coordinate_transformation_mode = "{c}"') for c in COORDINATES),
    *(
        f'mode = "nearest", coordinate_transformation_mode = "{c}", nearest_mode = "{r}"'
        for c in COORDINATES
        for r in ROUNDINGS
    ),
]
SHAPES = [(1, 2, 4, 4), (1, 3, 5, 7), (2, 1, 1, 3), (1, 2, 6)]
SIZES = [(8, 8), (3, 2), (5, 11), (1, 9), (15, 3)]


def resize(form: str, shape: tuple[int, ...], size: tuple[int, ...], opset: int = 13, extra: str = "") -> ModelProto:
    """x + Resize(c)."""
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sizes = np.array([*shape[:2], *size[: len(shape) - 2]])
    dims = ",".join("ABCD"[: len(shape)])
    text = f"g (float x) => (float[{dims}] y) {{ r = Resize<{form}{extra}>(c, , , n) y = Add(x, r) }}"
    return model(text, {"c": values, "n": sizes}, opset=opset)


@pytest.mark.parametrize("opset", [13, 18, 19])
@pytest.mark.parametrize("form", FORMS)
def test_implementations_agree_on_what_is_folded(form: str, opset: int) -> None:
    for shape in SHAPES:
        for size in SIZES:
            proto = resize(form, shape, size, opset)
            given: dict[str, Any] = {"x": np.zeros((), np.float32)}
            one, other = (engine(Located(proto)).run(given)["y"] for engine in (OnnxRuntime, Reference))
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_folds(form: str) -> None:
    before = resize(form, (1, 2, 4, 4), (8, 6))
    after, _ = apply_pass(FoldConstants(), before)
    assert [n.op_type for n in after.graph.node] == ["Add"]
    given = {"x": np.full((), 1.5, np.float32)}
    np.testing.assert_array_equal(run(before, given)[0], run(after, given)[0])


@pytest.mark.parametrize(
    ("form", "extra"),
    [
        ('mode = "cubic"', ""),
        ('mode = "linear", coordinate_transformation_mode = "align_corners"', ""),
        ('mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"', ""),
        ('mode = "nearest", nearest_mode = "floor"', ""),
        ('mode = "nearest", nearest_mode = "ceil"', ""),
        ('mode = "linear"', ", antialias = 1"),
        ('mode = "linear"', ', keep_aspect_ratio_policy = "not_larger"'),
    ],
)
def test_leaves_what_implementations_differ_in(form: str, extra: str) -> None:
    after, _ = apply_pass(FoldConstants(), resize(form, (1, 2, 4, 4), (8, 6), 19, extra))
    assert [n.op_type for n in after.graph.node] == ["Resize", "Add"]


def test_leaves_other_axes_and_other_types() -> None:
    channels = resize('mode = "nearest"', (1, 2, 4, 4), (8, 6))
    channels.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([1, 4, 4, 4]), "n"))
    text = 'g (double x) => (double[A,B,C,D] y) { r = Resize<mode = "linear">(c, , , n) y = Add(x, r) }'
    double = model(text, {"c": np.ones((1, 2, 4, 4)), "n": np.array([1, 2, 8, 8])})
    for proto in (channels, double):
        after, _ = apply_pass(FoldConstants(), proto)
        assert [n.op_type for n in after.graph.node] == ["Resize", "Add"]
