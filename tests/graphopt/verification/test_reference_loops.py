"""Loops of the reference agree with ONNX Runtime; operators are put right in functions too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from graphopt.verification.sessions import Failed, OnnxRuntime, Reference
from graphopt.verification.source import Located
from tests.support.models import model

STEP = "b (int64 i, bool c, float[2,3] s) => (bool d, float[2,3] t, float[2,3] u, float[2] v)"
SUMS = f"{STEP} {{ d = Identity(c) t = Add(s, x) u = Sin(t) v = ReduceSum<keepdims = 0>(t, axes) }}"
LOOPS = {
    "no condition": (f"r, u, v = Loop(n, , x) <body = {SUMS}>", {"n": np.int64(3)}),
    "no end but the condition": (
        "r, u, v = Loop( , yes, x) <body = b (int64 i, bool c, float[2,3] s) => (bool d, float[2,3] t, float[2,3] u,"
        " float[2] v) { d = Less(i, three) t = Add(s, x) u = Sin(t) v = ReduceSum<keepdims = 0>(t, axes) }>",
        {"yes": np.bool_(True), "three": np.int64(3)},
    ),
    "no iteration": (f"r, u, v = Loop(n, , x) <body = {SUMS}>", {"n": np.int64(0)}),
    "a false condition": (f"r, u, v = Loop(n, no, x) <body = {SUMS}>", {"n": np.int64(3), "no": np.bool_(False)}),
}
ROWS = "b (float[2] s, float[2] e) => (float[2] t, float[2] u, float[2] v) { t = Add(s, e) u = Sin(t) v = Cos(e) }"


def both(text: str, weights: dict[str, Any], feeds: dict[str, Any]) -> None:
    proto = model(text, weights)
    given, found = OnnxRuntime(Located(proto)).run(feeds), Reference(Located(proto)).run(feeds)
    assert given.keys() == found.keys()
    for name, expected in given.items():
        assert found[name].dtype == expected.dtype
        assert found[name].shape == expected.shape
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_what_onnx_runtime_makes_of_it(name: str) -> None:
    line, weights = LOOPS[name]
    text = f"g (float[2,3] x) => (float[2,3] r, float[K,2,3] u, float[K,2] v) {{ {line} }}"
    both(text, {**weights, "axes": np.array([1])}, {"x": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)})


@pytest.mark.parametrize("directions", ["", "scan_input_directions = [1],", "scan_output_directions = [0, 1],"])
@pytest.mark.parametrize(
    "axes", ["", "scan_input_axes = [1],", "scan_output_axes = [0, 1],", "scan_input_axes = [-1],"]
)
def test_a_scan_is_what_onnx_runtime_makes_of_it(axes: str, directions: str) -> None:
    line = f"r, u, v = Scan<num_scan_inputs = 1, {axes} {directions} body = {ROWS}>(s, x)"
    text = f"g (float[2,2] x, float[2] s) => (float[2] r, float[K,L] u, float[M,N] v) {{ {line} }}"
    both(text, {}, {"x": np.array([[1, 2], [4, 8]], np.float32), "s": np.array([0.5, 0.25], np.float32)})


def test_what_nothing_collects_must_be_declared() -> None:
    head = "b (int64 i, bool c, float[2] s) => (bool d, float[2] t, float[K] u)"
    body = f"{head} {{ d = Identity(c) t = Sin(s) u = Cos(s) }}"
    text = f"g (float[2] x) => (float[2] r, float[A,B] u) {{ r, u = Loop(n, , x) <body = {body}> }}"
    reference = Reference(Located(model(text, {"n": np.int64(0)})))
    with pytest.raises(Failed, match="is not declared"):
        reference.run({"x": np.zeros(2, np.float32)})


def test_a_function_has_the_operators_that_were_put_right() -> None:
    text = "g (double[3] x) => (double[3] y) { y = own.F(x) }"
    function = '<domain: "own", opset_import: ["" : 20]> F (a) => (b) { b = Gelu(a) }'
    proto = model(text, opset=20, functions=function, domains=', "own" : 1')
    x = np.array([-1.0, 0.0, 2.0])
    expected = [0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x]
    np.testing.assert_allclose(Reference(Located(proto)).run({"x": x})["y"], expected, rtol=1e-14)
