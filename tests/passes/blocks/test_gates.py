"""Sigmoids, and Softplus beyond a threshold, written as arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.blocks import RecognizeBlocks
from graphopt_passes.blocks.gates import RecognizeSigmoid, RecognizeThresholdedSoftplus
from tests.passes.vertical.weights import used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

SIGMOID, SOFTPLUS = RecognizeSigmoid(), RecognizeThresholdedSoftplus()
NUMBERS = {"one": 1.0, "minus": -1.0, "two": 2.0, "twenty": 20.0, "ten": 10.0, "row": [1.0, 2.0, 3.0]}


def graph(text: str, dtype: str = "float", opset: int = 20) -> ModelProto:
    kind = {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    text = f"g ({dtype}[2,3] x, {dtype}[2,3] z) => ({dtype}[A,B] y) {{ {text} }}"
    return model(text, used({k: np.asarray(v, kind) for k, v in NUMBERS.items()}, text), opset=opset)


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("n = Neg(x) e = Exp(n) a = Add(e, one) y = Div(one, a)", ["Sigmoid"]),
        ("n = Mul(minus, x) e = Exp(n) a = Add(one, e) y = Reciprocal(a)", ["Sigmoid"]),
        ("n = Neg(x) e = Exp(n) a = Add(one, e) y = Div(x, a)", ["Mul", "Sigmoid"]),
        ("n = Neg(x) e = Exp(n) a = Add(one, e) y = Div(z, a)", ["Mul", "Sigmoid"]),
        ("n = Neg(x) e = Exp(n) a = Add(one, e) y = Div(two, a)", ["Mul", "Sigmoid"]),
    ],
)
def test_sigmoids(text: str, operators: list[str]) -> None:
    check_rewrite(SIGMOID, graph(text), operators)


def test_a_swish_by_a_quotient() -> None:
    text = "n = Neg(x) e = Exp(n) a = Add(one, e) y = Div(x, a)"
    check_rewrite(RecognizeBlocks.rules, graph(text, opset=24), ["Swish"], applied=2)


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("two plus exp", "n = Neg(x) e = Exp(n) a = Add(e, two) y = Div(one, a)", "no 1 + exp"),
        ("a growing exponential", "e = Exp(x) a = Add(e, one) y = Div(one, a)", "no 1 + exp"),
        ("twice the data", "n = Mul(x, two) e = Exp(n) a = Add(e, one) y = Div(one, a)", "no 1 + exp"),
        ("a row of ones and others", "n = Neg(x) e = Exp(n) a = Add(e, row) y = Div(one, a)", "no 1 + exp"),
        ("the exponential is read", "n = Neg(x) e = Exp(n) a = Add(e, one) d = Div(one, a) y = Mul(d, e)",
         "no 1 + exp"),
        ("the sum is read", "n = Neg(x) e = Exp(n) a = Add(e, one) d = Div(one, a) y = Mul(d, a)", "no 1 + exp"),
        ("the sum by itself", "n = Neg(x) e = Exp(n) a = Add(e, one) y = Div(a, a)", "by itself"),
        ("the sum by one", "n = Neg(x) e = Exp(n) a = Add(e, one) y = Div(a, one)", "no 1 + exp"),
    ],
)  # fmt: skip
def test_no_sigmoids(why: str, text: str, because: str) -> None:
    check_untouched(SIGMOID, graph(text), because)


def test_a_sigmoid_of_doubles_stays() -> None:
    text = "n = Neg(x) e = Exp(n) a = Add(e, one) y = Div(one, a)"
    check_untouched(SIGMOID, graph(text, dtype="double"), "have a Sigmoid of")


@pytest.mark.parametrize("compare", ["Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_the_threshold_of_dynamo(compare: str, dtype: str) -> None:
    before = graph(f"g = {compare}(x, twenty) s = Softplus(x) y = Where(g, x, s)", dtype)
    result = check_rewrite(SOFTPLUS, before, ["Softplus"])
    kind = {"float": np.float32, "float16": np.float16}[dtype]
    around = np.array([[15, 19.9, 20], [20.1, 40, 90]]).astype(kind)
    given = {"x": around, "z": np.zeros_like(around)}
    check_numbers(before, result, exact=False, inputs=given, tolerance=1e-6 if dtype == "float" else 1e-3)


def test_a_mish_of_dynamo() -> None:
    text = "g = Greater(x, twenty) s = Softplus(x) w = Where(g, x, s) t = Tanh(w) y = Mul(x, t)"
    check_rewrite(RecognizeBlocks.rules, graph(text), ["Mish"], applied=2)


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("a threshold that matters", "g = Greater(x, ten) s = Softplus(x) y = Where(g, x, s)"),
        ("the other way round", "g = Greater(twenty, x) s = Softplus(x) y = Where(g, x, s)"),
        ("below", "g = Less(x, twenty) s = Softplus(x) y = Where(g, x, s)"),
        ("of another", "g = Greater(x, twenty) s = Softplus(z) y = Where(g, x, s)"),
        ("by another", "g = Greater(z, twenty) s = Softplus(x) y = Where(g, x, s)"),
        ("into another", "g = Greater(x, twenty) s = Softplus(x) y = Where(g, z, s)"),
        ("turned", "g = Greater(x, twenty) s = Softplus(x) y = Where(g, s, x)"),
        ("a threshold a column", "g = Greater(x, row) s = Softplus(x) y = Where(g, x, s)"),
        ("read elsewhere", "g = Greater(x, twenty) s = Softplus(x) w = Where(g, x, s) y = Add(w, s)"),
    ],
)
def test_no_thresholds(why: str, text: str) -> None:
    check_untouched(SOFTPLUS, graph(text))


def test_a_threshold_of_doubles_stays() -> None:
    before = graph("g = Greater(x, twenty) s = Softplus(x) y = Where(g, x, s)", "double")
    check_untouched(SOFTPLUS, before, "of doubles")


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    number = st.sampled_from(["one", "minus", "two", "twenty"])
    negative = data.draw(st.sampled_from(["Neg(x)", f"Mul(x, {data.draw(number)})"]))
    last = data.draw(st.sampled_from([f"Div({data.draw(number)}, a)", "Div(x, a)", "Reciprocal(a)", "Mul(a, x)"]))
    text = f"n = {negative} e = Exp(n) a = Add(e, {data.draw(number)}) q = {last} "
    text += f"g = Greater(q, {data.draw(number)}) s = Softplus(q) y = Where(g, q, s)"
    before = graph(text)
    result, log = apply([SIGMOID, SOFTPLUS], before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before
