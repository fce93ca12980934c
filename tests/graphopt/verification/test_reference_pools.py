"""Pools by whole arrays agree with ONNX Runtime for every way to lay the windows."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphopt.verification.sessions import OnnxRuntime, Reference
from graphopt.verification.source import Located

KERNELS = [
    {"kernel_shape": [3, 3]},
    {"kernel_shape": [3, 2], "strides": [2, 3]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 2]},
    {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "auto_pad": "VALID", "strides": [3, 1]},
    {"kernel_shape": [2, 2], "dilations": [2, 3], "pads": [1, 1, 1, 1]},
]


@pytest.mark.parametrize("size", [(7, 9), (8, 6)])
@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize(("op", "window"), list(itertools.product(["MaxPool", "AveragePool", "Counted"], KERNELS)))
def test_pools_agree_with_the_runtime(
    op: str, window: dict[str, object], ceil_mode: int, size: tuple[int, int]
) -> None:
    attributes = {**window, "ceil_mode": ceil_mode}
    if op == "Counted":
        op, attributes = "AveragePool", {**attributes, "count_include_pad": 1}
    shape = [2, 3, *size]
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, ["N", "C", "H", "W"])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(proto)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = OnnxRuntime(Located(proto)).run({"x": x})["y"]
    got = Reference(Located(proto)).run({"x": x})["y"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_normalization_across_channels_agrees_with_the_runtime(size: int) -> None:
    shape = [2, 7, 3, 3]
    graph = helper.make_graph(
        [helper.make_node("LRN", ["x"], ["y"], size=size, alpha=0.5, beta=0.6, bias=1.5)],
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, shape)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = OnnxRuntime(Located(proto)).run({"x": x})["y"]
    np.testing.assert_allclose(Reference(Located(proto)).run({"x": x})["y"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", KERNELS)
@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8])
def test_the_largest_of_other_types_is_that_of_their_numbers_in_float(kind: int, window: dict[str, object]) -> None:
    shape = [2, 3, 8, 6]
    values = np.random.default_rng(0).integers(0, 100, shape)
    results = {}
    for each in (kind, TensorProto.FLOAT):
        graph = helper.make_graph(
            [helper.make_node("MaxPool", ["x"], ["y"], **window)],
            "g",
            [helper.make_tensor_value_info("x", each, shape)],
            [helper.make_tensor_value_info("y", each, ["N", "C", "H", "W"])],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        given = values.astype(helper.tensor_dtype_to_np_dtype(each))
        results[each] = Reference(Located(proto)).run({"x": given})["y"]
    assert results[kind].dtype == helper.tensor_dtype_to_np_dtype(kind)
    np.testing.assert_array_equal(results[kind].astype(np.float32), results[TensorProto.FLOAT])
