"""x + c − c with c = 1.5 · 2²³ rounds x to an integer, and is written to do so: no rule makes it x."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.rule import Rule
from graphopt_passes.vertical.branches import MergeParallelConvs
from graphopt_passes.vertical.compose import ComposeProducts
from graphopt_passes.vertical.fold_after import FoldBatchNormIntoConv, FoldShiftIntoConv
from graphopt_passes.vertical.fold_before import FoldAffineBeforeConv, FoldAffineBeforeMatmul
from graphopt_passes.vertical.fold_into_readers import FoldAffineIntoReaders
from graphopt_passes.vertical.parts import JoinScaledChannels
from graphopt_passes.vertical.sums import MergeParallelConvTransposes, MergeParallelProducts
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, check_untouched

C = 1.5 * 2**23
WEIGHTS = {
    "up": np.float32(C),
    "down": np.float32(-C),
    "six_up": np.full(6, C, np.float32),
    "six_down": np.full(6, -C, np.float32),
    "small": np.float32(2.0**-20),
    "w": normal(6, 4, 1, 1),
    "v": normal(6, 4, 1, 1, seed=1),
    "wt": normal(4, 6, 1, 1),
    "vt": normal(4, 6, 1, 1, seed=1),
    "m": normal(8, 6),
    "n": normal(8, 6, seed=1),
    "sixth": np.full(6, 2.0**-20, np.float32),
    "beta": np.full(6, -C * 2.0**-20, np.float32),
    "zero": np.zeros(6, np.float32),
    "one": np.ones(6, np.float32),
    "front": np.array([0, 1]),
    "back": np.array([2, 3]),
}
MEANT = "which may be meant"
CONV, PRODUCTS, TRANSPOSED = MergeParallelConvs(), MergeParallelProducts(), MergeParallelConvTransposes()


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (CONV, "a = Conv(x, w, six_up) b = Conv(x, v, six_down) y = Add(a, b)"),
        (CONV, "a = Conv(x, w) b = Conv(x, v) c = Add(a, up) d = Add(c, down) y = Add(d, b)"),
        (CONV, "a = Conv(x, w, six_up) b = Conv(x, v) d = Add(a, down) y = Add(d, b)"),
        (TRANSPOSED, "a = ConvTranspose(x, wt) b = ConvTranspose(x, vt) c = Add(a, up) d = Add(c, down) y = Add(d, b)"),
        (TRANSPOSED, "a = ConvTranspose(x, wt, six_up) b = ConvTranspose(x, vt, six_down) y = Add(a, b)"),
        (PRODUCTS, "a = MatMul(x, m) b = MatMul(x, n) c = Add(a, up) d = Add(down, c) y = Add(d, b)"),
        (FoldShiftIntoConv(), "a = Conv(x, w, six_up) y = Add(a, down)"),
        (FoldBatchNormIntoConv(), "a = Conv(x, w, six_up) "
         "y = BatchNormalization<epsilon=0.0>(a, sixth, beta, zero, one)"),
        (JoinScaledChannels(), "f = Gather<axis=1>(x, front) g = Gather<axis=1>(x, back) h = Add(f, up) "
         "i = Add(h, down) y = Concat<axis=1>(i, g)"),
        (JoinScaledChannels(), "f = Gather<axis=1>(x, front) g = Gather<axis=1>(x, back) h = Add(f, up) "
         "i = Mul(h, small) j = Sub(i, seven) y = Concat<axis=1>(j, g)"),
    ],
)  # fmt: skip
def test_it_is_left_alone(rule: Rule[Any], text: str) -> None:
    full = f"g (float[2,4,5,8] x) => (float[A,B,C,D] y) {{ {text} }}"
    seven = np.float32(C) * np.float32(2.0**-20)
    check_untouched(rule, model(full, used({**WEIGHTS, "seven": seven}, full)), MEANT)


def test_an_ordinary_constant_among_the_terms_stays_a_term() -> None:
    text = "g (float[2,4,5,5] x) => (float[A,B,C,D] y) { a = Conv(x, w) b = Conv(x, v) c = Add(a, k) y = Add(c, b) }"
    after, log = apply(CONV, model(text, used({**WEIGHTS, "k": np.float32(1000)}, text)))
    assert len(log.applications) == 1
    assert sorted(n.op_type for n in after.graph.node) == ["Add", "Conv"]


FAR = {"far": np.float32(1e6), "near": np.float32(100), "a": np.full((6, 8), 0.5, np.float32),
       "b": normal(6, 8) * np.float32(1e-4), "k": normal(4, 6, 1, 1), "i": np.eye(6, dtype=np.float32),
       "minus": np.full(6, -1e6, np.float32), "front": np.array([0, 1, 2]), "back": np.array([3, 4, 5]),
       "s": np.float32(0.3)}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "shape", "text"),
    [
        (FoldAffineBeforeMatmul(), "2,6", "d = Sub(x, FAR) y = Gemm(d, a)"),
        (FoldAffineBeforeMatmul(), "2,6", "d = Sub(x, FAR) y = Gemm(d, b)"),
        (FoldAffineBeforeConv(), "2,6,5,5", "d = Sub(x, FAR) y = Conv(d, k)"),
        (FoldAffineIntoReaders(), "2,6", "d = Sub(x, FAR) p = Gemm(d, a) q = Gemm(d, b) y = Add(p, q)"),
        (JoinScaledChannels(), "2,6,5,5",
         "p = Gather<axis=1>(x, front) q = Gather<axis=1>(x, back) d = Sub(p, FAR) e = Mul(d, s) f = Mul(q, s) "
         "y = Concat<axis=1>(e, f)"),
    ],
)  # fmt: skip
def test_products_of_a_large_shift_would_cancel(rule: Rule[Any], shape: str, text: str) -> None:
    """x near 10⁶ minus 10⁶ is exact; W·x and W·10⁶ are rounded to their size, of which little is left."""
    graph = f"g (float[{shape}] x) => (float[{','.join('ABCD'[: shape.count(',') + 1])}] y) {{ TEXT }}"
    used_by = {name: value for name, value in FAR.items() if name in text.lower().replace("(", " ").replace(",", " ")}
    far = model(graph.replace("TEXT", text.replace("FAR", "far")), used_by)
    check_untouched(rule, far, "so large")
    near = model(graph.replace("TEXT", text.replace("FAR", "near")), used_by | {"near": FAR["near"]})
    assert apply(rule, near)[1].applications


def test_a_large_bias_between_two_products() -> None:
    text = "g (float[2,6] x) => (float[2,8] y) { h = Gemm(x, i, minus) y = Gemm(h, b) }"
    check_untouched(ComposeProducts(), model(text, {name: FAR[name] for name in ("i", "minus", "b")}), "so large")
