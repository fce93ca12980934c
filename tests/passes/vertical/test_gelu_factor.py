"""The last factor of a GELU stays where runtimes look for it."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.targets import Target
from graphopt_passes.vertical.fold_before import FoldAffineBeforeMatmul
from tests.support.models import model
from tests.support.rewrites import check_rewrite, check_untouched

WEIGHTS = {
    "w": np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32),
    "root": np.float32(1.4142135),
    "one": np.float32(1),
    "half": np.float32(0.5),
}


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


def test_any_other_factor_moves() -> None:
    text = "g (float[2,4] x) => (float[2,3] y) { p = Mul(x, x) h = Mul(p, half) y = MatMul(h, w) }"
    check_rewrite(FoldAffineBeforeMatmul(), model(text, WEIGHTS), ["MatMul", "Mul"])
