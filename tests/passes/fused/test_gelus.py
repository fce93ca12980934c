"""GELUs of a product and its bias as ONNX Runtime's BiasGelu and FastGelu."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.fused.gelus import FuseBiasGelu
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_untouched

RULE = FuseBiasGelu()
WEIGHTS = {
    "w": normal(4, 6, seed=1),
    "w3": normal(2, 4, 6, seed=1),
    "b": normal(6, seed=2),
    "row": normal(1, 6, seed=3),
    "root": np.float32(math.sqrt(2)),
    "one": np.float32(1),
    "half": np.float32(0.5),
    "cubic": np.float32(0.044715),
    "c": np.float32(math.sqrt(2 / math.pi)),
    "three": np.float32(3),
}
PRODUCT = "m = MatMul(z, w) x = Add(m, b)"
ERF = "d = Div(x, root) e = Erf(d) o = Add(e, one) p = Mul(x, o) y = Mul(p, half)"
TANH = (
    "c3 = Pow(x, three) l = Mul(c3, cubic) i = Add(x, l) j = Mul(i, c) e = Tanh(j) o = Add(e, one) "
    "p = Mul(x, half) y = Mul(p, o)"
)
OPERATOR = "y = Gelu(x)"
APPROXIMATE = 'y = Gelu<approximate="tanh">(x)'


def graph(*parts: str, inputs: str = "float[2,5,4] z", opset: int = 20, outputs: str = "", rank: int = 3) -> ModelProto:
    text = f"g ({inputs}) => (float[{','.join('ABCD'[:rank])}] y{outputs}) {{ {' '.join(parts)} }}"
    return model(text, used(WEIGHTS, text), opset=opset)


@pytest.mark.parametrize(
    ("gelu", "operator"), [(ERF, "BiasGelu"), (OPERATOR, "BiasGelu"), (TANH, "FastGelu"), (APPROXIMATE, "FastGelu")]
)
@pytest.mark.parametrize("product", [PRODUCT, PRODUCT.replace("(m, b)", "(b, m)")])
@pytest.mark.parametrize(("inputs", "rank"), [("float[2,5,4] z", 3), ("float[B,S,4] z", 3), ("float[7,4] z", 2)])
def test_the_gelu_adds_the_bias(gelu: str, operator: str, product: str, inputs: str, rank: int) -> None:
    before = graph(product, gelu, inputs=inputs, rank=rank)
    result, log = apply(RULE, before, Target.ONNXRUNTIME)
    assert [n.op_type for n in result.graph.node] == ["MatMul", operator]
    assert len(log.applications) == 1
    assert not apply(RULE, result, Target.ONNXRUNTIME)[1].applications
    check_numbers(before, result, exact=False)


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        ("no GELU", graph(PRODUCT, ERF.replace("(e, one)", "(e, half)")), "ends no GELU"),
        ("no product", graph("x = Add(z, b)", OPERATOR, inputs="float[2,5,6] z"), "not of a product"),
        ("no bias", graph("x = MatMul(z, w)", OPERATOR), "not of a product"),
        ("a row", graph("m = MatMul(z, w) x = Add(m, row)", OPERATOR), "not of a product"),
        ("a computed bias", graph("m = MatMul(z, w) x = Add(m, e0)", OPERATOR,
                                  inputs="float[2,5,4] z, float[6] e0"), "not of a product"),
        ("matrices for each", graph("m = MatMul(z, w3) x = Add(m, b)", OPERATOR), "not of a product"),
        ("the sum is an output", graph(PRODUCT, OPERATOR, outputs=", float[D,E,F] x"), "not of a product"),
        ("the product is an output", graph(PRODUCT, OPERATOR, outputs=", float[D,E,F] m"), "not of a product"),
        ("the sum is read elsewhere", graph(PRODUCT, OPERATOR, "u = Relu(x)", outputs=", float[D,E,F] u"),
         "something else reads"),
        ("the sum is read elsewhere", graph(PRODUCT, ERF, "u = Relu(x)", outputs=", float[D,E,F] u"),
         "something else reads"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, before: ModelProto, because: str) -> None:
    check_untouched(RULE, before, because, target=Target.ONNXRUNTIME)


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.PORTABLE])
def test_only_for_onnx_runtime(target: Target) -> None:
    check_untouched(RULE, graph(PRODUCT, OPERATOR), "only ONNX Runtime", target=target)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(1, 9),
    st.sampled_from([(ERF, 17), (TANH, 17), (OPERATOR, 20), (APPROXIMATE, 20)]),
)
def test_random_products(leading: list[int], inner: int, width: int, gelu: tuple[str, int]) -> None:
    shape, text = ",".join(map(str, [*leading, inner])), f"{PRODUCT} {gelu[0]}"
    weights = {**WEIGHTS, "w": normal(inner, width), "b": normal(width, seed=1)}
    outputs = ",".join("ABCD"[: len(leading) + 1])
    text = f"g (float[{shape}] z) => (float[{outputs}] y) {{ {text} }}"
    before = model(text, used(weights, text), opset=gelu[1])
    result, log = apply(RULE, before, Target.ONNXRUNTIME)
    assert len(log.applications) == 1
    check_numbers(before, result, exact=False)
