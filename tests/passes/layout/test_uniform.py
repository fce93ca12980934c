"""Constants of one number get smaller where a later operation enlarges anyway; Gathers of all become Reshapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt_passes.dead_layers import CleanUp
from graphopt_passes.layout import SimplifyLayout
from tests.support.models import Arrays
from tests.support.rewrites import apply_pass, check_numbers, check_rewrite, check_untouched
from tests.support.shapes import shaped_model

F = np.float32
RULES = {rule.name: rule for rule in SimplifyLayout.rules}
SHRINK = RULES["shrink-uniform-operand"]
RESHAPE = RULES["gather-of-all-to-reshape"]
HEAD = "g (float[1,4] x, float[3,4] z, float[3,1] v) => (float[] y"
MASK = {"t": np.ones((3, 1), bool), "zero": np.array(0, F), "low": np.array(-9, F)}
TWOS: Arrays = {"c": np.full((3, 1), 2, F)}


def test_a_mask_is_made_once_a_row() -> None:
    text = f"{HEAD}) {{ b = Greater(x, zero)\n m = And(t, b)\n w = Where(m, zero, low)\n y = Add(z, w) }}"
    before = shaped_model(text, MASK)
    after = check_rewrite(SHRINK, before, ["Add", "And", "Greater", "Where"])
    assert all(np.prod(t.dims) == 1 for t in after.graph.initializer)
    cleaned, _ = apply_pass(CleanUp(), after)
    assert [n.op_type for n in cleaned.graph.node] == ["Greater", "Where", "Add"]
    check_numbers(before, cleaned, exact=True)


@pytest.mark.parametrize(
    ("why", "body", "weights"),
    [
        ("directly", "a = Mul(x, c)\n y = Add(a, z)", TWOS),
        ("on the left", "a = Sub(c, x)\n y = Add(a, z)", TWOS),
        ("two ends", "a = Mul(x, c)\n b = Add(a, z)\n d = Sub(z, a)\n y = Mul(b, d)", TWOS),
        ("below one-input operators", "a = Mul(x, c)\n b = Tanh(a)\n d = Clip(b, lo)\n y = Add(d, z)", TWOS),
        ("a diamond", "a = Mul(x, c)\n b = Tanh(a)\n d = Sub(a, b)\n y = Add(d, z)", TWOS),
        (
            "more dimensions",
            "a = Mul(x, e)\n y = Add(a, w)",
            {"e": np.full((2, 3, 1), 2, F), "w": np.ones((2, 3, 4), F)},
        ),
    ],
)
def test_it_shrinks(why: str, body: str, weights: Arrays) -> None:
    before = shaped_model(f"{HEAD}) {{ {body} }}", {**weights, **({"lo": np.array(-1, F)} if "lo" in body else {})})
    after = check_rewrite(SHRINK, before, sorted(n.op_type for n in before.graph.node))
    assert not any(list(t.dims) == [3, 1] for t in after.graph.initializer)


@pytest.mark.parametrize(
    ("why", "outputs", "body", "weights"),
    [
        ("the numbers differ", ")", "a = Mul(x, c)\n y = Add(a, z)", {"c": np.arange(3, dtype=F)[:, None]}),
        ("nothing is enlarged", ")", "a = Mul(z, c)\n y = Add(a, z)", TWOS),
        ("a graph output needs it", ", float[] a)", "a = Mul(x, c)\n y = Add(a, z)", TWOS),
        ("a reduction needs it", ")", "a = Mul(x, c)\n b = ReduceSum(a, ax)\n d = Add(a, z)\n y = Add(b, d)", TWOS),
        ("the other operand is smaller", ")", "a = Mul(x, c)\n y = Add(a, x)", TWOS),
        ("the two enlarge each other", ")", "a = Mul(x, c)\n b = Neg(a)\n d = Add(a, b)\n y = Relu(d)", TWOS),
        ("the slope of a PRelu", ")", "a = Mul(x, c)\n y = PRelu(a, v)", TWOS),
    ],
)
def test_it_does_not_shrink(why: str, outputs: str, body: str, weights: Arrays) -> None:
    more = {"ax": np.array([0])} if "ax" in body else {}
    check_untouched(SHRINK, shaped_model(f"{HEAD}{outputs} {{ {body} }}", {**weights, **more}))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(["Add", "Sub", "Mul", "Max", "Div"]),
    st.sampled_from(["Tanh", "Neg", "Relu"]),
    st.sampled_from([(3, 1), (1, 1), (3, 4), (2, 1, 1), (1,)]),
    st.sampled_from(["z", "x", "v"]),
    st.booleans(),
)
def test_numbers_hold_whatever_is_enlarged(op: str, unary: str, shape: Any, other: str, swapped: bool) -> None:
    operands = "c, x" if swapped else "x, c"
    text = f"{HEAD}) {{ a = {op}({operands})\n b = {unary}(a)\n d = Mul(b, {other})\n e = Add(d, a)\n y = Add(e, z) }}"
    before = shaped_model(text, {"c": np.full(shape, 1.5, F)})
    after, _ = apply_pass(SimplifyLayout(), before)
    check_numbers(before, after, exact=False)


@pytest.mark.parametrize(
    ("why", "kind", "indices", "axis", "fires"),
    [
        ("a table", "float[4,3]", np.arange(4).reshape(2, 2), 0, True),
        ("position ids", "float[4,3]", np.arange(4).reshape(1, 1, 4), 0, True),
        ("the last axis", "float[N,4]", np.arange(4).reshape(2, 2), -1, True),
        ("counted from the back", "float[4]", np.array([[-4, -3], [-2, -1]]), 0, True),
        ("a scalar of an axis of one", "float[1,3]", np.array(0), 0, True),
        ("another order", "float[4,3]", np.array([[0, 1], [3, 2]]), 0, False),
        ("not all", "float[5,3]", np.arange(4).reshape(2, 2), 0, False),
        ("one twice", "float[4,3]", np.array([[0, 1, 2], [3, 3, 3]]), 0, False),
        ("an unknown dimension", "float[N,3]", np.arange(4).reshape(2, 2), 0, False),
        ("two unknown dimensions that move", "float[4,N,M]", np.arange(4).reshape(2, 2), 0, False),
        ("a list is another rule's", "float[4,3]", np.arange(4), 0, False),
    ],
)
def test_gathers_of_all(why: str, kind: str, indices: Any, axis: int, fires: bool) -> None:
    text = f"g ({kind} x) => (float[] y) {{ y = Gather<axis = {axis}>(x, i) }}"
    before = shaped_model(text, {"i": indices.astype(np.int64)})
    if fires:
        check_rewrite(RESHAPE, before, ["Reshape"], N=2)
    else:
        check_untouched(RESHAPE, before)
