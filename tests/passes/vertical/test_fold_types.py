"""Folding into weights of every type: rounded once, refused where the type does not hold the numbers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

import graphopt
from graphopt_passes.vertical.fold_after import (
    FoldBatchNormIntoConv,
    FoldBatchNormIntoMatmul,
    FoldScaleIntoConv,
    FoldScaleIntoMatmul,
    FoldShiftIntoConv,
    FoldShiftIntoMatmul,
)
from tests.passes.vertical.weights import normal, statistics, used
from tests.support.models import feeds, model, run
from tests.support.rewrites import apply, check_untouched

CONV_RULES = (FoldBatchNormIntoConv(), FoldScaleIntoConv(), FoldShiftIntoConv())
MATMUL_RULES = (FoldBatchNormIntoMatmul(), FoldScaleIntoMatmul(), FoldShiftIntoMatmul())
ALL_RULES = (*CONV_RULES, *MATMUL_RULES)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_types(dtype: Any) -> None:
    name = {"float16": "float16", "float64": "double", "bfloat16": "bfloat16"}[np.dtype(dtype).name]
    proto = model(
        f"""g ({name}[1,4,8,8] x) => ({name}[N,C,H,W] y) {{
              c = Conv(x, w) k = Mul(c, s) l = Add(k, s) y = BatchNormalization(l, g, b, m, v) }}""",
        {"w": normal(6, 4, 3, 3, dtype=dtype), "s": normal(6, 1, 1, dtype=dtype), **statistics(6, dtype)},
        opset=22,
    )
    result, log = apply(ALL_RULES, proto)
    assert [n.op_type for n in result.graph.node] == ["Conv"]
    assert len(log.applications) == 3
    exact = reference(proto)
    got = onnx.numpy_helper.to_array(result.graph.initializer[0])
    assert got.dtype == dtype
    # rounded once: within half a unit in the last place of the product in float64, which has a few roundings itself
    error = np.abs(got.astype(np.float64) - exact)
    assert np.all(error <= np.abs(exact) * max(float(ml_dtypes.finfo(dtype).eps) / 2, 1e-15))


def reference(proto: onnx.ModelProto) -> np.ndarray[Any, Any]:
    """The folded weight of `test_other_types` in float64."""
    w = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer}
    scale = w["s"].reshape(-1) * (w["g"] / np.sqrt(w["v"] + float(np.float32(1e-5))))
    return np.asarray(w["w"] * scale.reshape(-1, 1, 1, 1))


@pytest.mark.parametrize(
    ("dtype", "factor", "why"),
    [
        (np.float16, 1e4, "does not fit float16"),
        (np.float16, 1e-6, "too small to keep its precision in float16"),
        (np.float32, 1e38, "does not fit float"),
    ],
)
def test_weights_that_the_type_does_not_hold(dtype: Any, factor: float, why: str) -> None:
    name = {"float16": "float16", "float32": "float"}[np.dtype(dtype).name]
    weight = (normal(6, 4, 3, 3) * 100).astype(dtype) if factor > 1 else normal(6, 4, 3, 3, dtype=dtype)
    proto = model(
        f"g ({name}[1,4,8,8] x) => ({name}[N,C,H,W] y) {{ c = Conv(x, w) y = Mul(c, s) }}",
        {"w": weight, "s": np.full((6, 1, 1), factor, dtype)},
    )
    check_untouched(FoldScaleIntoConv(), proto, why)


def test_a_bias_that_overflows() -> None:
    proto = model(
        "g (float16[1,4,8,8] x) => (float16[N,C,H,W] y) { c = Conv(x, w, a) y = Add(c, t) }",
        {"w": normal(6, 4, 3, 3, dtype=np.float16), "a": np.full(6, 6e4, np.float16), "t": np.float16(6e4)},
    )
    check_untouched(FoldShiftIntoConv(), proto, "a folded bias is not finite")


ROUNDS = [
    "g (float[1,6,5,5] x) => (float[1,6,5,5] y) { c = Conv(x, w1, b) a = Add(c, big) y = Sub(a, big) }",
    "g (float[1,6,5,5] x) => (float[1,6,5,5] y) { c = Conv(x, w1, bigs) y = BatchNormalization(c, g, b, bigs, v) }",
    "g (float[2,6] x) => (float[2,6] y) { c = Gemm(x, w2, b) a = Add(c, big) y = Sub(a, big) }",
    "g (float[1,6,5,5] x) => (float[1,6,5,5] y) { a = Add(x, big) y = Conv(a, eye, minus) }",
]


@pytest.mark.parametrize("text", ROUNDS)
def test_a_large_number_that_is_added_to_round_and_taken_away_stays(text: str) -> None:
    magic = np.float32(1.5 * 2**23)
    weights = {
        **statistics(6),
        "w1": normal(6, 6, 1, 1),
        "w2": normal(6, 6),
        "b": normal(6),
        "big": magic,
        "bigs": np.full(6, magic),
        "minus": np.full(6, -magic),
        "eye": np.eye(6, dtype=np.float32).reshape(6, 6, 1, 1),
    }
    before = model(text, used(weights, text))
    inputs = feeds(before)
    np.testing.assert_array_equal(run(graphopt.optimize(before).model, inputs)[0], run(before, inputs)[0])
