"""Channels taken apart, scaled and put together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.vertical.parts import JoinScaledChannels
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULE = JoinScaledChannels()
WEIGHTS = {
    "i0": np.array([0]),
    "i1": np.array([1]),
    "i2": np.array([2]),
    "last": np.array([-1]),
    "pair": np.array([0, 1]),
    "none": np.array(2),
    "axis": np.array([1]),
    "ends": np.array([2**62]),
    "a": np.float32(0.5),
    "b": np.float32(-0.3),
    "c": np.float32(2.0),
    "two": normal(2, 1, 1),
    "row": normal(4),
}


def graph(text: str, inputs: str = "float[2,3,5,4] x, float[2,3,5,4] z") -> ModelProto:
    text = f"graph ({inputs}) => (float[A,B,C,D] y) {{ {text} }}"
    return model(text, used(WEIGHTS, text))


THREE = """g0 = Gather<axis=1>(x, i0) m0 = Mul(g0, a) s0 = Add(m0, b)
           g1 = Gather<axis=1>(x, i1) m1 = Mul(g1, b) s1 = Add(c, m1)
           g2 = Gather<axis=1>(x, last) m2 = Div(g2, c) s2 = Sub(m2, a) y = Concat<axis=1>(s0, s1, s2)"""


def test_an_input_transform() -> None:
    check_rewrite(
        RULE,
        graph(THREE),
        "graph (float[2,3,5,4] x, float[2,3,5,4] z) => (float[A,B,C,D] y) { k = Mul(x, s) y = Add(k, t) }",
    )


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("p = Gather<axis=1>(x, pair) m = Mul(two, p) q = Slice(x, i2, ends, axis) y = Concat<axis=-3>(m, q)", ["Mul"]),
        ("p = Gather<axis=-3>(x, pair) m = Add(p, two) q = Gather<axis=1>(x, i2) n = Sub(a, q) "
         "y = Concat<axis=1>(m, n)",
         ["Add", "Mul"]),
    ],
)  # fmt: skip
def test_parts_of_several_channels(text: str, operators: list[str]) -> None:
    check_rewrite(RULE, graph(text), operators)


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("another order", THREE.replace("Concat<axis=1>(s0, s1, s2)", "Concat<axis=1>(s1, s0, s2)"), "in order"),
        ("one is missing", THREE.replace("Concat<axis=1>(s0, s1, s2)", "Concat<axis=1>(s0, s1)"), "in order"),
        ("another tensor", THREE.replace("Gather<axis=1>(x, i1)", "Gather<axis=1>(z, i1)"), "of one tensor"),
        ("a number a column", THREE.replace("Mul(g0, a)", "Mul(g0, row)"), "of one tensor"),
        ("another axis", THREE.replace("Concat<axis=1>", "Concat<axis=2>"), "does not put channels together"),
        ("a second reader", THREE.replace("y = Concat", "w = Concat") + " q = Abs(m0) y = Add(w, q)", "of one tensor"),
        ("constant by data", THREE.replace("Div(g2, c)", "Div(c, g2)"), "of one tensor"),
        ("nothing is scaled", "p = Gather<axis=1>(x, pair) q = Gather<axis=1>(x, i2) y = Concat<axis=1>(p, q)",
         "nothing scales"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, text: str, because: str) -> None:
    check_untouched(RULE, graph(text), because)


def test_rows_are_no_channels() -> None:
    text = THREE.replace("Gather<axis=1>", "Gather<axis=2>").replace("Concat<axis=1>", "Concat<axis=2>")
    check_untouched(RULE, graph(text, "float[2,3,3,4] x"), "does not put channels together")


@given(data=st.data())
@settings(max_examples=30, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    lines, names = [], []
    for j in range(3):
        index = data.draw(st.sampled_from([f"i{j}"] * 5 + ["i0", "pair"]))
        lines.append(f"g{j} = Gather<axis=1>(x, {index})")
        current = f"g{j}"
        for k in range(data.draw(st.integers(0, 2))):
            number = data.draw(st.sampled_from(["a", "b", "c"]))
            step = data.draw(st.sampled_from(["Mul({0}, {1})", "Add({1}, {0})", "Sub({1}, {0})", "Div({0}, {1})"]))
            lines.append(f"s{j}_{k} = {step.format(current, number)}")
            current = f"s{j}_{k}"
        names.append(current)
    before = graph("\n".join([*lines, f"y = Concat<axis=1>({', '.join(names)})"]))
    result, log = apply(RULE, before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before
