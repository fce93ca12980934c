"""Softmax and LogSoftmax written as sums of exponentials."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.blocks.softmaxes import RecognizeLogSoftmaxOfSums, RecognizeSoftmax
from tests.passes.vertical.weights import used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULES = (RecognizeSoftmax(), RecognizeLogSoftmaxOfSums())
MAX, SUM = "ReduceMax(x, axis)", "ReduceSum({}, axis)"
SOFTMAX = f"m = {MAX} d = Sub(x, m) e = Exp(d) s = {SUM.format('e')} y = Div(e, s)"
LOG_SOFTMAX = f"m = {MAX} d = Sub(x, m) e = Exp(d) s = {SUM.format('e')} l = Log(s) y = Sub(d, l)"
LOG_SUM_EXP = "l = ReduceLogSumExp(x, axis) y = Sub(x, l)"


def graph(text: str, axis: int = -1, opset: int = 18) -> ModelProto:
    text = f"g (float[2,3,4] x, float[2,3,4] z) => (float[A,B,C] y) {{ {text} }}"
    if opset < 18:
        text = text.replace("(x, axis)", "(x)").replace("ReduceMax", f"ReduceMax<axes=[{axis}]>")
        text = text.replace("ReduceLogSumExp", f"ReduceLogSumExp<axes=[{axis}]>")
    if opset < 13:
        text = text.replace("(e, axis)", "(e)").replace("ReduceSum", f"ReduceSum<axes=[{axis}]>")
    numbers = {"axis": np.array([axis]), "other": np.array([0]), "both": np.array([1, 2])}
    return model(text, used(numbers, text), opset=opset)


@pytest.mark.parametrize("axis", [-1, 1, 0])
@pytest.mark.parametrize(
    ("text", "operator"), [(SOFTMAX, "Softmax"), (LOG_SOFTMAX, "LogSoftmax"), (LOG_SUM_EXP, "LogSoftmax")]
)
def test_along_any_axis(text: str, operator: str, axis: int) -> None:
    check_rewrite(
        RULES,
        graph(text, axis),
        f"g (float[2,3,4] x, float[2,3,4] z) => (float[A,B,C] y) {{ y = {operator}<axis={axis % 3}>(x) }}",
    )


@pytest.mark.parametrize("opset", [9, 12, 13, 17])
@pytest.mark.parametrize("text", [SOFTMAX, LOG_SOFTMAX, LOG_SUM_EXP])
def test_of_every_opset(text: str, opset: int) -> None:
    result, log = apply(RULES, graph(text, 2, opset))
    assert len(log.applications) == 1
    check_numbers(graph(text, 2, opset), result, exact=False)


@pytest.mark.parametrize("text", [SOFTMAX, LOG_SOFTMAX, LOG_SUM_EXP])
def test_before_opset_13_along_the_last_axis_only(text: str) -> None:
    check_untouched(RULES, graph(text, 1, 12), "does not compute")


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("the maximum of another", SOFTMAX.replace("ReduceMax(x", "ReduceMax(z")),
        ("the maximum along another axis", SOFTMAX.replace("ReduceMax(x, axis)", "ReduceMax(x, other)")),
        ("the sum of another", SOFTMAX.replace("ReduceSum(e", "ReduceSum(z")),
        ("several axes", SOFTMAX.replace(", axis)", ", both)")),
        ("the smallest", SOFTMAX.replace("ReduceMax", "ReduceMin")),
        ("a mean", SOFTMAX.replace("ReduceSum", "ReduceMean")),
        ("turned", SOFTMAX.replace("Div(e, s)", "Div(s, e)")),
        ("the difference turned", SOFTMAX.replace("Sub(x, m)", "Sub(m, x)")),
        ("the exponentials are read", SOFTMAX.replace("y = Div(e, s)", "q = Div(e, s) y = Add(q, e)")),
        ("the sum is read", SOFTMAX.replace("y = Div(e, s)", "q = Div(e, s) y = Add(q, s)")),
        ("logarithm, the difference is read", LOG_SOFTMAX.replace("y = Sub(d, l)", "q = Sub(d, l) y = Add(q, d)")),
        ("logarithm turned", LOG_SOFTMAX.replace("Sub(d, l)", "Sub(l, d)")),
        ("of another", LOG_SOFTMAX.replace("Sub(d, l)", "Sub(x, l)")),
        ("the logarithm of another's sum", LOG_SUM_EXP.replace("Sub(x, l)", "Sub(z, l)")),
        ("along all axes", LOG_SUM_EXP.replace("(x, axis)", "(x)")),
        ("an axis that goes", LOG_SUM_EXP.replace("ReduceLogSumExp(x, axis)", "ReduceLogSumExp<keepdims=0>(x, other)")),
    ],
)
def test_leaves_alone(why: str, text: str) -> None:
    check_untouched(RULES, graph(text), "does not compute")


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([SOFTMAX, LOG_SOFTMAX, LOG_SUM_EXP]))
    changes = {"axis)": "other)", "ReduceMax(x": "ReduceMax(z", "ReduceSum(e": "ReduceSum(d", "Sub(d": "Sub(x"}
    for old in data.draw(st.lists(st.sampled_from(sorted(changes)), max_size=2)):
        text = text.replace(old, changes[old], 1)
    before = graph(text, data.draw(st.sampled_from([0, 1, 2, -1])))
    result, log = apply(RULES, before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before
