"""Normalizations in float32 between Casts from and to a 16-bit type."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.blocks import RecognizeBlocks
from graphopt_passes.blocks.norm_casts import FoldCastsIntoNorm
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULE = FoldCastsIntoNorm()
TYPES = {"float16": (np.float16, 10), "bfloat16": (ml_dtypes.bfloat16, 16)}
# transformers' LlamaRMSNorm in float16: the statistics in float32, the scale behind the Cast
LLAMA = "f = Cast<to=1>(x) p = Pow(f, two) v = ReduceMean(p, ax) a = Add(v, e) s = Sqrt(a) "
QUOTIENTS = ["r = Div(one, s) n = Mul(f, r)", "r = Reciprocal(s) n = Mul(f, r)", "n = Div(f, s)"]


def graph(text: str, dtype: str = "float16", opset: int = 23, more: str = "") -> ModelProto:
    kind, number = TYPES[dtype]
    text = text.replace("HALF", str(number))
    weights = {
        "two": np.float32(2),
        "one": np.float32(1),
        "e": np.float32(1e-5),
        "ax": np.array([-1]),
        "g": normal(6).astype(kind),
        "ones": np.ones(6, np.float32),
        "zeros": np.zeros(6, np.float32),
        "some": normal(6),
    }
    return model(f"g ({dtype}[2,4,6] x) => ({dtype}[A,B,C] y{more}) {{ {text} }}", used(weights, text), opset=opset)


@pytest.mark.parametrize("quotient", QUOTIENTS)
@pytest.mark.parametrize("scale", ["y = Mul(g, h)", "y = Mul(h, g)"])
def test_an_rms_norm_of_llama(quotient: str, scale: str) -> None:
    before = graph(f"{LLAMA} {quotient} h = Cast<to=HALF>(n) {scale}")
    result = check_rewrite(RecognizeBlocks.rules, before, ["RMSNormalization"], applied=3)
    (scaled,) = (t for t in result.graph.initializer if t.name == result.graph.node[0].input[1])
    assert scaled.data_type == 10


def test_an_rms_norm_of_llama_in_bfloat16() -> None:
    before = graph(f"{LLAMA} {QUOTIENTS[0]} h = Cast<to=HALF>(n) y = Mul(g, h)", "bfloat16")
    result, _ = apply(RecognizeBlocks.rules, before)  # ONNX Runtime has no Mul of bfloat16 on the CPU
    assert [n.op_type for n in result.graph.node] == ["RMSNormalization"]


def test_onnx_runtime_has_no_rms_norm_of_bfloat16() -> None:
    before = graph("f = Cast<to=1>(x) n = RMSNormalization(f, ones) y = Cast<to=HALF>(n)", "bfloat16")
    assert apply(RULE, before)[1].applications
    for target in (Target.PORTABLE, Target.ONNXRUNTIME):
        check_untouched(RULE, before, "no kernel", target=target)


@pytest.mark.parametrize("bias", ["", ", zeros"])
def test_a_layer_norm(bias: str) -> None:
    text = f"f = Cast<to=1>(x) n = LayerNormalization<epsilon=0.001>(f, ones{bias}) y = Cast<to=HALF>(n)"
    check_rewrite(
        RULE,
        graph(text, opset=17),
        "g (float16[2,4,6] x) => (float16[A,B,C] y) { y = LayerNormalization<epsilon=0.001>(x, w) }",
        opset=17,
    )


def test_the_wide_data_may_have_other_readers() -> None:
    text = "f = Cast<to=1>(x) n = RMSNormalization(f, ones) y = Cast<to=HALF>(n) z = Relu(f)"
    check_rewrite(RULE, graph(text, more=", float[D,E,F] z"), ["Cast", "RMSNormalization", "Relu"])


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("a scale before the rounding", "f = Cast<to=1>(x) n = RMSNormalization(f, some) y = Cast<to=HALF>(n)",
         "before the result is rounded"),
        ("a shift before the rounding", "f = Cast<to=1>(x) n = LayerNormalization(f, ones, some) y = Cast<to=HALF>(n)",
         "before the result is rounded"),
        ("the norm is read elsewhere", "f = Cast<to=1>(x) n = RMSNormalization(f, ones) h = Cast<to=HALF>(n) "
         "r = ReduceMax(n) q = Cast<to=HALF>(r) y = Add(h, q)", "no Cast of a normalization"),
        ("no Cast before", "w = Cast<to=1>(x) f = Relu(w) n = RMSNormalization(f, ones) y = Cast<to=HALF>(n)",
         "no Cast of a normalization"),
        ("to another type", "f = Cast<to=1>(x) n = RMSNormalization(f, ones) h = Cast<to=16>(n) y = Cast<to=HALF>(h)",
         "16-bit type"),
        ("from integers", "i = Cast<to=6>(x) f = Cast<to=1>(i) n = RMSNormalization(f, ones) y = Cast<to=HALF>(n)",
         "16-bit type"),
        ("other precision", "f = Cast<to=1>(x) n = LayerNormalization<stash_type=16>(f, ones) y = Cast<to=HALF>(n)",
         "compute in float32"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, text: str, because: str) -> None:
    check_untouched(RULE, graph(text), because)


@given(data=st.data())
@settings(max_examples=30, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    norm = data.draw(st.sampled_from(["RMSNormalization", "LayerNormalization"]))
    scale = data.draw(st.sampled_from(["ones", "some"]))
    to = data.draw(st.sampled_from(["HALF", "1"]))
    behind = data.draw(st.sampled_from(["y = Mul(h, g)", "y = Relu(h)"]))
    back = "h = Cast<to=HALF>(n)" if to == "HALF" else "k = Cast<to=1>(n) h = Cast<to=HALF>(k)"
    before = graph(f"f = Cast<to=1>(x) n = {norm}(f, {scale}) {back} {behind}")
    result, log = apply(RULE, before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before
