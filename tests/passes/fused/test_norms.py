"""A residual, a bias and their normalization as ONNX Runtime's SkipLayerNormalization."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.fused.norms import FuseSkipNorm
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_untouched

RULE = FuseSkipNorm()
WEIGHTS = {
    "g": normal(6, seed=1),
    "h": normal(6, seed=2),
    "g5": normal(5, 6, seed=3),
    "w": normal(4, 6, seed=4),
    "b": normal(6, seed=5),
    "b5": normal(5, 6, seed=6),
    "k": normal(2, 5, 6, seed=7),
}
PLAIN = "s = Add(x, r) y = LayerNormalization<axis=-1, epsilon=0.001>(s, g, h)"
TWO = "float[2,5,6] x, float[2,5,6] r"
PRODUCT = "m = MatMul(z, w) x = Add(m, b)"
OF_PRODUCT = "float[2,5,4] z, float[2,5,6] r"
SKIP = "com.microsoft::SkipLayerNormalization"


def graph(text: str, inputs: str = TWO, outputs: str = "", dims: str = "A,B,C", opset: int = 17) -> ModelProto:
    dtype = "double" if "double" in inputs else "float"
    text = f"g ({inputs}) => ({dtype}[{dims}] y{outputs}) {{ {text} }}"
    return model(text, used(WEIGHTS, text), opset=opset)


def operators(proto: ModelProto) -> list[str]:
    return [f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in proto.graph.node]


@pytest.mark.parametrize(
    ("text", "inputs", "outputs", "left", "ends"),
    [
        (PLAIN, TWO, "", [], ["y"]),
        (PLAIN.replace(", h)", ")"), TWO, "", [], ["y"]),
        (PLAIN.replace("axis=-1", "axis=2"), "float[B,S,6] x, float[B,S,6] r", "", [], ["y"]),
        (PLAIN, TWO, ", float[D,E,F] s", [], ["y", "", "", "s"]),
        (PLAIN.replace("y =", "n =") + " y = Mul(n, s)", TWO, "", ["Mul"], None),
        (f"{PRODUCT} {PLAIN}", OF_PRODUCT, "", ["MatMul"], ["y"]),
        (f"{PRODUCT} {PLAIN}".replace("Add(x, r)", "Add(r, x)"), OF_PRODUCT, "", ["MatMul"], ["y"]),
        (f"{PRODUCT} {PLAIN}".replace("Add(m, b)", "Add(b, m)"), OF_PRODUCT, "", ["MatMul"], ["y"]),
    ],
)
def test_the_sum_is_normalized_at_once(
    text: str, inputs: str, outputs: str, left: list[str], ends: list[str] | None
) -> None:
    before = graph(text, inputs, outputs)
    result, log = apply(RULE, before, Target.ONNXRUNTIME)
    assert sorted(operators(result)) == sorted([*left, SKIP])
    (fused,) = (n for n in result.graph.node if n.domain)
    assert ends is None or list(fused.output) == ends
    assert len(fused.input) == (5 if "MatMul" in left else 4 if ", h)" in text else 3)
    assert len(log.applications) == 1
    assert not apply(RULE, result, Target.ONNXRUNTIME)[1].applications
    check_numbers(before, result, exact=False)


def test_a_bias_that_is_read_elsewhere_stays() -> None:
    before = graph(f"{PRODUCT} {PLAIN}", OF_PRODUCT, ", float[D,E,F] x")
    result, _ = apply(RULE, before, Target.ONNXRUNTIME)
    assert operators(result) == ["MatMul", "Add", SKIP]
    check_numbers(before, result, exact=False)


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        ("no sum", graph("s = Mul(x, r) y = LayerNormalization(s, g, h)"), "normalize a sum"),
        ("the mean is an output", graph(PLAIN.replace("y =", "y, m ="), outputs=", float[D,E,F] m"), "normalize a sum"),
        ("float64", graph("s = Add(x, r) y = LayerNormalization<axis=-1>(s, x0, x0)",
                          "double[2,5,6] x, double[2,5,6] r, double[6] x0"), "float32"),
        ("rank 2", graph(PLAIN, "float[5,6] x, float[5,6] r", dims="A,B"), "rank 3"),
        ("two axes", graph(PLAIN.replace("axis=-1", "axis=1").replace("g, h", "g5")), "last axis alone"),
        ("a computed scale", graph(PLAIN.replace("g, h", "e, h"), f"{TWO}, float[6] e"), "not constant"),
        ("a broadcast residual", graph(PLAIN, "float[2,5,6] x, float[1,5,6] r"), "one shape"),
        ("unknown batches", graph(PLAIN, "float[B,5,6] x, float[D,5,6] r"), "one shape"),
        ("a constant residual", graph(PLAIN.replace("Add(x, r)", "Add(x, k)"), "float[2,5,6] x"), "two tensors"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, before: ModelProto, because: str) -> None:
    check_untouched(RULE, before, because, target=Target.ONNXRUNTIME)


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.PORTABLE])
def test_only_for_onnx_runtime(target: Target) -> None:
    check_untouched(RULE, graph(PLAIN), "only ONNX Runtime", target=target)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.booleans(), st.booleans(), st.booleans())
def test_random_sums(batch: int, length: int, width: int, shift: bool, product: bool, read: bool) -> None:
    weights = {"g": normal(width), "h": normal(width, seed=1), "w": normal(3, width), "b": normal(width, seed=2)}
    norm = f"n = LayerNormalization<epsilon=0.01>(s, g{', h' if shift else ''}) y = {'Mul(n, s)' if read else 'Neg(n)'}"
    text = f"{PRODUCT if product else ''} s = Add(x, r) {norm}"
    data = f"float[{batch},S,3] z" if product else f"float[{batch},{length},{width}] x"
    residual = f"float[{batch},{'S' if product else length},{width}] r"
    text = f"g ({data}, {residual}) => (float[A,B,C] y) {{ {text} }}"
    before = model(text, used(weights, text))
    result, log = apply(RULE, before, Target.ONNXRUNTIME)
    assert len(log.applications) == 1
    assert operators(result).count("Add") == 0
    check_numbers(before, result, exact=False, tolerance=1e-3, S=length)
