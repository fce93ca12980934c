"""For ONNX Runtime a single Transpose moves only towards another one, to less data, or out of the way of a fusion."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.layout.sinking import SinkTransposeBelowPointwise
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_untouched

RULE = SinkTransposeBelowPointwise()
TURN = "t = Transpose<perm=[0,2,1]>(x)"
INPUTS = "float[2,3,4] x, float[2,4,3] z"


def graph(text: str, dims: str = "A,B,C") -> ModelProto:
    weights = {"w": np.ones((3, 5), np.float32)} if " w)" in text else {}
    return model(f"g ({INPUTS}) => (float[{dims}] y) {{ {text} }}", weights)


@pytest.mark.parametrize(
    ("why", "text", "dims"),
    [
        ("one follows", f"{TURN} a = Relu(t) y = Transpose<perm=[0,2,1]>(a)", "A,B,C"),
        ("one comes later", f"{TURN} a = Relu(t) b = Softmax(a) y = Transpose<perm=[0,2,1]>(b)", "A,B,C"),
        ("one comes on another branch", f"{TURN} a = Relu(t) b = Neg(a) d = Transpose<perm=[0,2,1]>(a) "
         "e = Transpose<perm=[0,2,1]>(d) y = Add(b, e)", "A,B,C"),
        ("one comes behind a product with a matrix", f"{TURN} a = Relu(t) b = MatMul(a, w) "
         "y = Transpose<perm=[0,2,1]>(b)", "A,B,C"),
        ("another operand is transposed", f"{TURN} a = Relu(t) u = Transpose<perm=[0,2,1]>(x) b = Neg(u) y = Add(a, b)",
         "A,B,C"),
        ("less comes", f"{TURN} a = Relu(t) b = ReduceMax<axes=[1]>(a) y = Neg(b)", "A,B,C"),
        ("an operator before takes it in", "v = Neg(x) t = Transpose<perm=[0,2,1]>(v) y = Relu(t)", "A,B,C"),
        ("a cast", f"{TURN} a = Cast<to=10>(t) y = Cast<to=1>(a)", "A,B,C"),
    ],
)  # fmt: skip
def test_it_is_moved(why: str, text: str, dims: str) -> None:
    before = graph(text, dims)
    result, log = apply(RULE, before, Target.ONNXRUNTIME)
    assert log.applications
    check_numbers(before, result, exact=True)


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("nothing follows", f"{TURN} y = Relu(t)"),
        ("a product of computed tensors follows", f"{TURN} a = Relu(t) y = MatMul(a, x)"),
        ("another operand is as it is", f"{TURN} a = Relu(t) y = Add(a, z)"),
        ("what follows does not let it pass", f"{TURN} a = Relu(t) b = CumSum(a, i) y = Transpose<perm=[0,2,1]>(b)"),
    ],
)
def test_it_stays(why: str, text: str) -> None:
    before = model(f"g ({INPUTS}) => (float[A,B,C] y) {{ {text} }}", {"i": np.array(1)} if " i)" in text else {})
    check_untouched(RULE, before, because="would meet no other", target=Target.ONNXRUNTIME)
    assert apply(RULE, before)[1].applications, "TensorRT gains by each"


def test_a_long_way_is_not_looked_at() -> None:
    chain = " ".join(f"a{i} = Neg(a{i - 1})" for i in range(1, 60))
    text = f"g ({INPUTS}) => (float[A,B,C] y) {{ {TURN} a0 = Neg(t) {chain} y = Transpose<perm=[0,2,1]>(a59) }}"
    _, log = apply(RULE, model(text), Target.ONNXRUNTIME)
    assert len(log.applications) < 60
