"""Models of 16-bit types are as near to float32 after graphopt as before, up to the type's own error."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from benchmarks.half import TYPES, Errors, distance, measure, narrowed, page, run, widened
from models import zoo
from tests.passes.vertical.weights import normal
from tests.support.models import model

SMALL = ("conv_affine__dynamo_raw", "bert_tiny__legacy", "repvgg_a0__legacy", "vit_tiny_patch16_224__legacy")
LARGE = ("resnet18__train_infer", "googlenet__nofold", "llama_4L_256__legacy")
ZOO = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", ZOO)
def test_errors_stay_within_those_of_the_type(name: str, dtype: str) -> None:
    found = measure(zoo.load(name), name, dtype, zoo.inputs(name))
    assert found.nodes[1] < found.nodes[0]
    assert 0 < found.before < 3 * found.eps  # the yardstick itself is sane
    assert found.after <= 1.5 * found.before
    assert found.after <= 2 * found.eps


def test_rounding_takes_weights_inputs_and_casts_along() -> None:
    before = model(
        "g (float[2,3] x, int64[2,3] i) => (float[2,3] y) { f = Cast<to=1>(i) s = Add(x, f) y = Mul(s, w) }",
        {"w": np.array([1.001, -1e30, np.inf], np.float32)},
    )
    half = narrowed(before, "float16")
    assert [v.type.tensor_type.elem_type for v in (*half.graph.input, *half.graph.output)] == [10, 7, 10]
    assert half.graph.node[0].attribute[0].i == 10
    expected = np.array([1.001, -65504, np.inf]).astype(np.float16)
    np.testing.assert_array_equal(numpy_helper.to_array(half.graph.initializer[0]), expected)
    assert before.graph.input[0].type.tensor_type.elem_type == 1


@pytest.mark.parametrize("dtype", TYPES)
def test_each_result_is_rounded(dtype: str) -> None:
    before = model("g (float[4] x) => (float[4] y) { a = Mul(x, w) y = Add(a, w) }", {"w": normal(4)}, opset=22)
    short = narrowed(before, dtype)
    kind = TYPES[dtype][1]
    x = normal(4, seed=3).astype(kind)
    w = normal(4).astype(kind)
    (found,) = run(widened(short, dtype), {"x": x.astype(np.float32)})
    np.testing.assert_array_equal(found, ((x * w).astype(kind) + w).astype(kind).astype(np.float32))


def test_bodies_are_refused() -> None:
    text = "g (bool c, float[2] x) => (float[2] y) { y = If(c) <then_branch = t () => (float[2] a) { a = Relu(x) }, "
    text += "else_branch = e () => (float[2] b) { b = Neg(x) }> }"
    with pytest.raises(ValueError, match="body"):
        narrowed(model(text), "float16")


def test_distances_and_the_page() -> None:
    assert distance([np.array([1.0, 2.0])], [np.array([1.0, 2.0])]) == 0
    assert distance([np.zeros(3)], [np.ones(3)]) == 1
    text = page([Errors("some", "bfloat16", 0.0078125, 0.015625, (9, 4))])
    assert "| some | bfloat16 | 9 → 4 | 1.00 | 2.00 | 2.00 |" in text
    assert Errors("some", "float16", 1, 1, (1, 1)).eps == 2.0**-10
