"""The squeeze of a squeeze-and-excite block as a pooling, for TensorRT."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.fused.pools import PoolForGate
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULE = PoolForGate()
INPUT = "float[2,3,5,7] x"
GLOBAL = "p = GlobalAveragePool(x)"
GATE = "g = Sigmoid(p) y = Mul(x, g)"


def graph(
    average: str = GLOBAL, rest: str = GATE, inputs: str = INPUT, opset: int = 17, dims: str = "A,B,C,D"
) -> ModelProto:
    weights = {"axes": np.array([-1, -2], np.int64)} if "axes)" in average else {}
    dtype = inputs.split("[")[0]
    return model(f"g ({inputs}) => ({dtype}[{dims}] y) {{ {average} {rest} }}", weights, opset=opset)


AFTER = f"g ({INPUT}) => (float[A,B,C,D] y) {{ p = AveragePool<kernel_shape=[5,7]>(x) {GATE} }}"


@pytest.mark.parametrize(
    ("average", "opset"),
    [
        (GLOBAL, 17),
        (GLOBAL, 7),
        ("p = ReduceMean<axes=[2,3]>(x)", 17),
        ("p = ReduceMean<axes=[-1,2], keepdims=1>(x)", 13),
        ("p = ReduceMean(x, axes)", 18),
    ],
)
def test_the_average_becomes_a_pooling(average: str, opset: int) -> None:
    check_rewrite(RULE, graph(average, opset=opset), AFTER)


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        ("read by nothing else", graph(rest="y = Sigmoid(p)"), "nothing else reads"),
        ("a large map", graph(inputs="float[2,3,15,14] x"), "small map"),
        ("an unknown map", graph(inputs="float[2,3,H,7] x"), "four known dimensions"),
        ("one axis", graph("p = GlobalAveragePool(x)", inputs="float[2,3,5] x", dims="A,B,C"), "four known dimensions"),
        ("other axes", graph("p = ReduceMean<axes=[1,2]>(x)"), "spatial axes"),
        ("all axes", graph("p = ReduceMean(x)"), "spatial axes"),
        ("the axes go", graph("q = ReduceMean<axes=[2,3], keepdims=0>(x) p = Unsqueeze<axes=[2,3]>(q)", opset=11),
         "spatial axes"),
        ("integers", graph("p = ReduceMean<axes=[2,3]>(x)", "y = Mul(x, p)", inputs="int64[2,3,5,7] x"), "float16"),
        ("float64", graph("p = ReduceMean<axes=[2,3]>(x)", inputs="double[2,3,5,7] x"), "float32 or float16"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, before: ModelProto, because: str) -> None:
    check_untouched(RULE, before, because)


@pytest.mark.parametrize("target", [Target.ONNXRUNTIME, Target.PORTABLE])
def test_only_for_tensorrt(target: Target) -> None:
    check_untouched(RULE, graph(), "only TensorRT", target=target)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 2, *[st.integers(1, 16)] * 2), st.booleans())
def test_random_maps(shape: tuple[int, ...], reduce: bool) -> None:
    dims = ",".join(map(str, shape))
    average = "p = ReduceMean<axes=[3,2]>(x)" if reduce else GLOBAL
    before = graph(average, inputs=f"float[{dims}] x")
    result, log = apply(RULE, before)
    assert len(log.applications) == int(shape[2] * shape[3] <= 14 * 14)
    check_numbers(before, result, exact=False)
