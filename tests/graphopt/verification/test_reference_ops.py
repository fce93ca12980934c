"""Operators of the float64 runs agree with ONNX Runtime, in every opset, and with their formulas in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphopt.verification.sessions import OnnxRuntime, Reference
from graphopt.verification.source import Located

SHAPE = [2, 3, 4, 5]


def _one(op: str, opset: int, kind: int = TensorProto.FLOAT, **attributes: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", kind, SHAPE)],
        [helper.make_tensor_value_info("y", kind, SHAPE)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [7, 11, 12, 13, 18])
@pytest.mark.parametrize("attributes", [{}, {"axis": 0}, {"axis": 1}, {"axis": 2}, {"axis": 3}], ids=str)
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_an_axis_means_what_the_opset_says(op: str, attributes: dict[str, int], opset: int) -> None:
    proto = _one(op, opset, **attributes)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    expected = OnnxRuntime(Located(proto)).run({"x": x})["y"]
    np.testing.assert_allclose(Reference(Located(proto)).run({"x": x})["y"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_a_norm_is_of_absolute_values(p: int) -> None:
    proto = _one("LpNormalization", 11, axis=1, p=p)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    x[0, :, 0, 0] = 0
    expected = OnnxRuntime(Located(proto)).run({"x": x})["y"]
    np.testing.assert_allclose(Reference(Located(proto)).run({"x": x})["y"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_computed_in_float64(approximate: str) -> None:
    x = np.random.default_rng(0).standard_normal(SHAPE)
    got = Reference(Located(_one("Gelu", 20, TensorProto.DOUBLE, approximate=approximate))).run({"x": x})["y"]
    if approximate == "none":
        expected = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.flat]
    else:
        expected = [0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x.flat]
    np.testing.assert_allclose(np.ravel(np.asarray(got)), expected, rtol=1e-14, atol=1e-16)
