"""Shape chains of which onnx's propagation, or a too hopeful analysis, would make something wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.graph import import_model
from graphopt.inference import infer_types
from graphopt_passes.constants.arithmetic import add, less, multiply
from graphopt_passes.constants.movement import move
from graphopt_passes.constants.symbols import Symbol, Symbols, least_of
from tests.passes.constants.test_refine import refined, shape_of
from tests.support.models import model, run
from tests.support.rewrites import find

F = np.float32
ZERO, ONE, FOUR = np.array([0]), np.array([1]), np.array([4])


def same(text: str, weights: dict[str, Any], feeds: dict[str, Any]) -> None:
    before = model(text, weights)
    after = graphopt.optimize(before, verify=False, pipeline="clean").model
    for old, new in zip(run(before, feeds), run(after, feeds), strict=True):
        np.testing.assert_array_equal(old, new, strict=True)


@pytest.mark.parametrize(("dtype", "size"), [(2, 300), (9, 3)])
def test_a_cast_may_change_a_dimension(dtype: int, size: int) -> None:
    same(
        f"""g (float[{size}] x, float[1] w) => (int64[1] y, float[K] z) {{
            s = Shape(x) b = Cast<to = {dtype}>(s) t = Cast<to = 7>(b) z = Expand(w, t) y = Shape(z) }}""",
        {},
        {"x": np.zeros(size, F), "w": np.ones(1, F)},
    )


def test_a_named_dimension_cast_to_bool_is_not_that_dimension() -> None:
    same(
        """g (float[N] x, float[1] w) => (float[A] y) {
            s = Shape(x) b = Cast<to = 9>(s) i = Cast<to = 7>(b) e = Expand(w, i) y = Where(c, x, e) }""",
        {"c": np.array([False])},
        {"x": np.ones(3, F), "w": np.ones(1, F)},
    )


@pytest.mark.parametrize(
    "step",
    [
        "u = Unsqueeze(s, zero) g = Gather<axis = 0>(u, first)",
        "u = Unsqueeze(s, one) v = Unsqueeze(s, zero) w = Mul(u, v) g = Gather<axis = 0>(w, first)",
        "u = Unsqueeze(s, zero) w = Concat<axis = 0>(u, u) g = Gather<axis = 0>(w, second)",
        "u = Unsqueeze(s, zero) w = Concat<axis = 0>(u, u) r = Slice(w, zero, one, zero) g = Squeeze(r, zero)",
    ],
)
@pytest.mark.parametrize("shape", ["2,3,4", "A,B,C"])
def test_a_row_of_a_matrix_of_shapes(step: str, shape: str) -> None:
    same(
        f"""g (float[{shape}] x) => (float[P,Q,R] y, int64[K] q) {{
            s = Shape(x) {step} y = ConstantOfShape(g) q = Shape(y) }}""",
        {"zero": ZERO, "one": ONE, "first": np.array(0), "second": np.array(1)},
        {"x": np.zeros((2, 3, 4), F)},
    )


def reshaped(inputs: str, target: str) -> object:
    text = f"g ({inputs}) => (float[P,Q] r) {{ s = Shape(x) {target} q = Reshape(x, t) r = Relu(q) }}"
    weights = {"zero": ZERO, "one": ONE, "four": FOUR, "rest": -ONE}
    return shape_of(refined(model(text, weights)), "q")


def test_a_zero_at_run_time_copies_another_dimension() -> None:
    shape = reshaped("float[A,4] x, float[N] v", "n = Shape(v) t = Concat<axis = 0>(n, four)")
    assert isinstance(shape, tuple)
    assert shape[0] != "N"


def test_what_is_left_beside_a_copied_dimension_is_unknown() -> None:
    shape = reshaped("float[M,N] x", "n = Gather<axis = 0>(s, one) t = Concat<axis = 0>(n, rest)")
    assert isinstance(shape, tuple)
    assert "N" not in shape
    assert "M" not in shape


def test_a_dimension_at_its_own_place_is_known() -> None:
    assert reshaped("float[N,2,2] x", "n = Gather<axis = 0>(s, zero) t = Concat<axis = 0>(n, rest)") == ("N", 4)


def test_a_dimension_where_there_is_none_to_copy_is_known() -> None:
    text = "n = Shape(x) t = Concat<axis = 0>(one, n)"
    assert reshaped("float[N] x", text) == (1, "N")


def test_a_dimension_of_an_input_without_elements_is_known() -> None:
    text = "n = Gather<axis = 0>(s, zero) t = Concat<axis = 0>(four, n)"
    assert reshaped("float[N,4] x", text) == (4, "N")


@pytest.mark.parametrize(("target", "known"), [("Shape(x)", True), ("Shape(v)", False)])
def test_what_is_left_of_an_empty_tensor_is_empty(target: str, known: bool) -> None:
    """With N = 0 the -1 is 0, which is what the second Reshape copies then; of a graph output, too."""
    inputs = "float[M,3,N] x" if known else "float[M,3,N] x, float[K,3,L] v"
    text = f"g ({inputs}) => (float[A,B,C] y) {{ a = Reshape(x, flat) s = {target} y = Reshape(a, s) }}"
    shape = shape_of(refined(model(text, {"flat": np.array([0, 32, -1])})), "y")
    assert shape is not None
    assert (shape == ("M", 3, "N")) is known
    assert not {"K", "L"} & set(shape)


def test_reshapes_that_rest_on_each_other_are_known_together() -> None:
    graph = refined(
        model(
            """g (float[N,T,4] x) => (float[A,B,C,D] r) {
                s = Shape(x) n = Gather<axis = 0>(s, zero) t = Gather<axis = 0>(s, one)
                c = Concat<axis = 0>(n, t, two, two) a = Reshape(x, c) b = Relu(a)
                d = Concat<axis = 0>(n, t, four) e = Reshape(b, d) f = Neg(e) r = Reshape(f, c) }""",
            {"zero": ZERO, "one": ONE, "two": np.array([2]), "four": FOUR},
        )
    )
    assert find(graph, "r").result.shape == ("N", "T", 2, 2)


def test_a_product_with_a_large_constant_has_no_bound() -> None:
    symbols = Symbols()
    dim = Symbol(0, True)
    assert least_of(multiply(dim, 8, symbols)) == 0
    assert least_of(multiply(dim, 2**62, symbols)) is None
    assert least_of(multiply(multiply(dim, 2**30, symbols), 2**30, symbols)) is None
    assert least_of(add(dim, 2**63 - 1, symbols)) is None
    assert less(multiply(dim, 2**62, symbols), 0, symbols) is not False


def test_an_overflow_is_left_to_the_run_time() -> None:
    text = "g (float[N] x) => (bool[1] y) { s = Shape(x) m = Mul(s, k) y = Less(m, z) }"
    same(text, {"k": np.array([2**62]), "z": ZERO}, {"x": np.zeros(2, F)})


def test_no_axes_of_a_squeeze_are_left_to_the_run_time() -> None:
    weights = {"x": np.ones((1, 2), F), "axes": np.zeros(0, np.int64)}
    text = "g (float[2] v) => (float[K] y) { a = Squeeze(x, axes) y = Add(a, v) }"
    same(text, weights, {"v": np.ones(2, F)})
    graph = import_model(model(text, weights))
    infer_types(graph)
    assert find(graph, "a").result.shape is None
    assert move([find(graph, "a")]) is None
