"""Which types an operator takes: by its schema in the opset, so that unknown types and operators take none."""

from __future__ import annotations

import pytest
from onnx import TensorProto

from graphopt_passes.common.types import takes

FLOAT, HALF, BFLOAT16, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("op", "opset", "dtype", "expected"),
    [
        ("Softplus", 21, FLOAT, True),
        ("Softplus", 21, BFLOAT16, False),
        ("Softplus", 22, BFLOAT16, True),
        ("LeakyRelu", 15, BFLOAT16, False),
        ("LeakyRelu", 16, BFLOAT16, True),
        ("LeakyRelu", 5, HALF, True),
        ("Gelu", 20, DOUBLE, True),
        ("Attention", 23, TensorProto.INT64, False),
        ("Relu", 13, TensorProto.INT8, False),
        ("Relu", 14, TensorProto.INT8, True),
        ("Gather", 13, TensorProto.STRING, True),
        ("Identity", 25, TensorProto.FLOAT8E4M3FN, True),
    ],
)
def test_the_schema_of_the_opset_decides(op: str, opset: int, dtype: int, expected: bool) -> None:
    assert takes(op, opset, dtype) is expected


@pytest.mark.parametrize(
    ("op", "opset", "dtype"),
    [
        ("Relu", 17, None),
        ("Relu", 17, TensorProto.UNDEFINED),
        ("Relu", 17, 1000),
        ("Gelu", 19, FLOAT),
        ("NoSuchOperator", 17, FLOAT),
        ("Upsample", 10, FLOAT),
        ("Constant", 17, FLOAT),
    ],
    ids=["unknown", "undefined", "no-type", "too-early", "no-operator", "deprecated", "no-input"],
)
def test_what_is_not_known_takes_nothing(op: str, opset: int, dtype: int | None) -> None:
    assert not takes(op, opset, dtype)
