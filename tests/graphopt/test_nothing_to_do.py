"""A model in which nothing can be improved comes out equal, node for node and name for name."""

from __future__ import annotations

import numpy as np
import pytest

import graphopt
from tests.support.models import model

CONV = {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32), "b": np.ones(4, np.float32)}


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime", "portable"])
@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("g (float[N,3,8,8] x) => (float[N,4,A,B] y) { c = Conv(x, w, b) y = Relu(c) }", CONV),
        ("g (float[2,3] x) => (float[2,3] y, float[2,3] a) { a = Exp(x) y = Sin(a) }", None),
        ("g (float[2] x) => (float[2] y) { y = Identity(x) }", None),
    ],
)
def test_it_comes_out_equal(text: str, weights: dict[str, np.ndarray] | None, target: str) -> None:
    before = model(text, weights)
    before.producer_name, before.doc_string = "someone", "as it was"
    before.graph.node[0].name = "the first"
    result = graphopt.optimize(before, target=target)
    assert result.model.SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)
    assert not result.report.applied
