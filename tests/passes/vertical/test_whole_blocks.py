"""What ends a block that ONNX Runtime fuses as a whole stays where it looks for it."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.targets import Target
from graphopt_passes.vertical.fold_before import FoldAffineBeforeMatmul
from tests.support.models import model
from tests.support.rewrites import check_rewrite, check_untouched

WEIGHTS = {
    "w": np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32),
    "scale": np.array([1, 2, 3, 4], np.float32),
    "root": np.float32(1.4142135),
    "one": np.float32(1),
    "two": np.float32(2),
    "half": np.float32(0.5),
    "epsilon": np.float32(1e-5),
}
RMS = "p = Pow(x, two) m = ReduceMean<axes = [-1], keepdims = 1>(p) e = Add(m, epsilon) r = Sqrt(e) n = Div(x, r)"


@pytest.mark.parametrize("curve", ["Erf", "Tanh"])
@pytest.mark.parametrize("order", ["p, half", "half, p"])
def test_a_gelu_keeps_its_half(curve: str, order: str) -> None:
    text = (
        f"g (float[2,4] x) => (float[2,3] y) {{ d = Div(x, root) e = {curve}(d) a = Add(e, one) p = Mul(x, a) "
        f"h = Mul({order}) y = MatMul(h, w) }}"
    )
    check_untouched(
        FoldAffineBeforeMatmul(), model(text, WEIGHTS), because="last factor of a GELU", target=Target.ONNXRUNTIME
    )


@pytest.mark.parametrize("order", ["n, scale", "scale, n"])
def test_an_rms_normalization_keeps_its_scale(order: str) -> None:
    before = model(f"g (float[2,4] x) => (float[2,3] y) {{ {RMS} h = Mul({order}) y = MatMul(h, w) }}", WEIGHTS)
    check_untouched(FoldAffineBeforeMatmul(), before, because="RMSNormalization", target=Target.ONNXRUNTIME)
    check_rewrite(FoldAffineBeforeMatmul(), before, ["Add", "Div", "MatMul", "Pow", "ReduceMean", "Sqrt"])


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.ONNXRUNTIME])
def test_any_other_factor_moves(target: Target) -> None:
    text = "g (float[2,4] x) => (float[2,3] y) { p = Mul(x, x) h = Mul(p, half) y = MatMul(h, w) }"
    check_rewrite(FoldAffineBeforeMatmul(), model(text, WEIGHTS), ["MatMul", "Mul"], target=target)
