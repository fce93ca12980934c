"""Quantization before opset 19 agrees with ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.verification.sessions import OnnxRuntime, Reference
from graphopt.verification.source import Located
from tests.support.models import model

X = np.array([[-300.0, -2.5, -0.5, 0.0], [0.5, 1.5, 2.5, 900.0], [1e-3, 127.0, 7.25, -128.5]], np.float32)


def both(text: str, weights: dict[str, Any], feeds: dict[str, Any], opset: int) -> None:
    proto = model(text, weights, opset=opset)
    expected, found = (engine(Located(proto)).run(feeds)["y"] for engine in (OnnxRuntime, Reference))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize(
    ("opset", "attributes", "shape"),
    [(10, "", ()), (13, "", ()), (13, "", (4,)), (13, "<axis = 0>", (3,)), (13, "<axis = -1>", (4,))],
)
def test_there_and_back(kind: Any, opset: int, attributes: str, shape: tuple[int, ...]) -> None:
    scale = np.linspace(0.5, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    zero = np.arange(scale.size).astype(kind).reshape(shape)
    name = {np.int8: "int8", np.uint8: "uint8"}[kind]
    text = f"g (float[3,4] x) => ({name}[3,4] y) {{ y = QuantizeLinear{attributes}(x, s, z) }}"
    both(text, {"s": scale, "z": zero}, {"x": X}, opset)
    values = np.clip(np.rint(X), np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)
    text = f"g ({name}[3,4] x) => (float[3,4] y) {{ y = DequantizeLinear{attributes}(x, s, z) }}"
    both(text, {"s": scale, "z": zero}, {"x": values}, opset)


def test_without_a_zero_point() -> None:
    both("g (float[3,4] x) => (uint8[3,4] y) { y = QuantizeLinear(x, s) }", {"s": np.float32(0.5)}, {"x": X}, 13)
    given = {"x": np.array([[-5, 7]], np.int8)}
    both("g (int8[1,2] x) => (float[1,2] y) { y = DequantizeLinear(x, s) }", {"s": np.float32(0.5)}, given, 13)
