"""Shape arithmetic folds as far as it is known, and no further."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.rule import Rule
from graphopt_passes.constants.expands import SettleExpand
from graphopt_passes.constants.reshapes import SettleReshape
from graphopt_passes.constants.shapes import FoldShapeArithmetic
from graphopt_passes.constants.slices import SettleSlice
from tests.support.models import model, run
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULES: list[Rule[object]] = [FoldShapeArithmetic(), SettleReshape(), SettleExpand(), SettleSlice()]
ONE = np.array([1], np.int64)


def test_a_static_dimension_of_a_dynamic_shape_is_a_constant() -> None:
    before = model(
        "g (float[N,3,8] x) => (int64[1] y) { s = Shape(x) \n d = Gather<axis=0>(s, one) \n y = Neg(d) }", {"one": ONE}
    )
    after, _ = apply(RULES, before)
    assert [n.op_type for n in after.graph.node] == ["Constant"]
    check_numbers(before, after, exact=True, N=5)


def test_a_reshape_with_one_unknown_gets_minus_one() -> None:
    check_rewrite(
        RULES,
        model(
            """g (float[N,4,6] x) => (float[a,b] y) {
            s = Shape(x)
            n = Gather<axis=0>(s, zero)
            m = Mul(n, four)
            t = Concat<axis=0>(m, six)
            y = Reshape(x, t) }""",
            {"zero": ONE - 1, "four": ONE * 4, "six": ONE * 6},
        ),
        ["Reshape"],
        applied=1,
        N=3,
    )


def test_copied_dimensions_become_zeros() -> None:
    before = model(
        """g (float[N,S,12] x) => (float[a,b,c,d] y) {
        s = Shape(x)
        n = Slice(s, zero, two)
        w = Gather<axis=0>(s, two)
        d = Div(w, four)
        t = Concat<axis=0>(n, four, d)
        y = Reshape(x, t) }""",
        {"zero": ONE - 1, "two": ONE + 1, "four": ONE * 4},
    )
    after = check_rewrite(RULES, before, ["Reshape"], applied=3, N=3, S=5)
    (target,) = [t for t in after.graph.initializer if t.name == after.graph.node[0].input[1]]
    assert np.frombuffer(target.raw_data, np.int64).tolist() == [0, 0, 4, 3]
    for empty in ({"N": 0, "S": 5}, {"N": 2, "S": 0}):
        check_numbers(before, after, exact=True, **empty)


def test_minus_one_beside_a_copied_dimension_is_refused_since_that_may_be_zero() -> None:
    check_untouched(
        SettleReshape(),
        model(
            """g (float[N,S,12] x) => (float[a,b,c] y) {
            s = Shape(x)
            n = Gather<axis=0>(s, zero)
            r = Gather<axis=0>(s, one)
            m = Mul(r, three)
            t = Concat<axis=0>(n, m, four)
            y = Reshape(x, t) }""",
            {"zero": ONE - 1, "one": ONE, "three": ONE * 3, "four": ONE * 4},
        ),
        because="when that one is 0",
    )


def test_equal_names_of_dimensions_are_equal_numbers() -> None:
    check_rewrite(
        RULES,
        model(
            """g (float[N,4] x, float[N] z) => (float[a,b,c] y) {
            s = Shape(z)
            t = Concat<axis=0>(s, two, two)
            y = Reshape(x, t) }""",
            {"two": ONE * 2},
        ),
        ["Reshape"],
        applied=1,
        N=3,
    )


def test_expand_as_pytorch_writes_it() -> None:
    """Where(Equal(shape, -1), ones, shape) is the shape, since no dimension is -1."""
    before = model(
        """g (float[N,1,4] x) => (float[a,b,c] y) {
        s = Shape(x)
        n = Gather<axis=0>(s, zero)
        t = Concat<axis=0>(n, three, minus)
        k = Shape(t)
        o = ConstantOfShape<value = int64[1] {1}>(k)
        m = Mul(o, minus)
        e = Equal(t, m)
        w = Where(e, o, t)
        y = Expand(x, w) }""",
        {"zero": ONE - 1, "three": ONE * 3, "minus": -ONE},
    )
    after, _ = apply(RULES, before)
    assert [n.op_type for n in after.graph.node] == ["Expand"]
    check_numbers(before, after, exact=True, N=2)


def test_slice_up_to_the_end_of_its_dimension() -> None:
    check_rewrite(
        RULES,
        model(
            """g (float[N,S] x) => (float[a,b] y) {
            s = Shape(x)
            e = Gather<axis=0>(s, one)
            y = Slice(x, one, e, one) }""",
            {"one": ONE},
        ),
        ["Slice"],
        applied=1,
        S=4,
    )


def test_a_loop_over_known_dimensions_has_a_known_condition() -> None:
    before = model(
        """g (float[N,3] x) => (bool y, int64 r) {
        s = Shape(x)
        d = Gather<axis=0>(s, one)
        l = Less(d, four)
        y = Not(l)
        r = Size(s) }""",
        {"one": np.array(1, np.int64), "four": np.array(4, np.int64)},
    )
    after, _ = apply(RULES, before)
    assert {n.op_type for n in after.graph.node} == {"Constant"}
    check_numbers(before, after, exact=True)


@pytest.mark.parametrize(
    ("why", "graph"),
    [
        ("the dimension is unknown", "(float[N,4] x) => (int64[1] y) { s = Shape(x) \n y = Gather<axis=0>(s, zero) }"),
        (
            "different names may be different numbers",
            "(float[N,4] x, float[M] z) => (bool[1] y) { s = Shape(x) \n n = Gather<axis=0>(s, zero) \n "
            "m = Shape(z) \n y = Equal(n, m) }",
        ),
        (
            "a dimension may be 0, so that it is not above 0",
            "(float[N,4] x) => (bool[1] y) { s = Shape(x) \n n = Gather<axis=0>(s, zero) \n y = Greater(n, zero) }",
        ),
        (
            "N / N is not 1 when N is 0",
            "(float[N] x) => (int64[1] y) { s = Shape(x) \n y = Div(s, s) }",
        ),
        (
            "the division of a negative number is left to the run time",
            "(float[N] x) => (int64[1] y) { y = Div(minus, two) }",
        ),
        (
            "the sum wraps in int64",
            "(float[N] x) => (int64[1] y) { y = Add(most, two) }",
        ),
        ("values of an input are unknown", "(int64[1] x) => (int64[1] y) { y = Mul(x, two) }"),
        (
            "two dimensions of the target are unknown",
            "(float[N,M,2] x) => (float[a,b] y) { s = Shape(x) \n p = Slice(s, zero, two) \n n = Gather<axis=0>(p, one)"
            " \n m = Mul(n, two) \n k = Gather<axis=0>(p, zero) \n t = Concat<axis=0>(m, k) \n y = Reshape(x, t) }",
        ),
        (
            "Expand widens by an unknown number",
            "(float[1,4] x, float[N] z) => (float[a,b] y) { s = Shape(z) \n t = Concat<axis=0>(s, one) \n "
            "y = Expand(x, t) }",
        ),
        (
            "the end is another dimension's",
            "(float[N,S] x) => (float[a,b] y) { s = Shape(x) \n e = Gather<axis=0>(s, zero) \n "
            "y = Slice(x, one, e, one) }",
        ),
        (
            "a step backwards has no end in the largest integer",
            "(float[N,S] x) => (float[a,b] y) { s = Shape(x) \n e = Gather<axis=0>(s, one) \n "
            "y = Slice(x, e, zero, one, minus) }",
        ),
    ],
)
def test_leaves_alone(why: str, graph: str) -> None:
    weights = {"zero": ONE - 1, "one": ONE, "two": ONE * 2, "minus": -ONE, "most": ONE * np.iinfo(np.int64).max}
    check_untouched(RULES, model(f"g {graph}", {k: v for k, v in weights.items() if k in graph}))


def test_allowzero_means_a_real_zero() -> None:
    text = "g (float[N,0] x) => (float[a,b] y) { s = Shape(x) \n y = Reshape<allowzero=0>(x, s) }"
    check_rewrite(RULES, model(text), ["Reshape"], applied=1)
    check_untouched(RULES, model(text.replace("allowzero=0", "allowzero=1")))


def test_shape_with_start_and_end() -> None:
    before = model("g (float[N,3,5,7] x) => (int64[2] y) { y = Shape<start=-3, end=-1>(x) }")
    after, _ = apply(RULES, before)
    assert [n.op_type for n in after.graph.node] == ["Constant"]
    check_numbers(before, after, exact=True)


def test_symbols_of_a_loops_body_are_not_those_of_the_graph_around_it() -> None:
    before = model(
        """g (float[N,M] x, int64 trips, bool go) => (float[a,b] y) {
        y = Loop(trips, go, x) <body = b (int64 i, bool c, float[N,M] v) => (bool d, float[P,Q] w) {
            d = Identity(c)
            s = Shape(x)
            w = Reshape(v, s)
        }> }"""
    )
    check_untouched(RULES, before)


def _shape_model(draw: st.DrawFn) -> tuple[ModelProto, dict[str, int]]:
    """A chain of random shape arithmetic on x: float[N, 3, M, 4] that ends in an output of integers."""
    pieces = ["s = Shape(x)"]
    names = []
    for at in range(draw(st.integers(1, 4))):
        axis = draw(st.integers(-4, 3))
        pieces.append(f"i{at} = Constant<value = int64[1] {{{axis}}}>()")
        pieces.append(f"d{at} = Gather<axis=0>(s, i{at})")
        names.append(f"d{at}")
    for at in range(draw(st.integers(1, 5))):
        op = draw(st.sampled_from(["Add", "Sub", "Mul", "Div", "Min", "Max", "Concat"]))
        a, b = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        if op == "Concat":
            pieces.append(f"j{at} = Concat<axis=0>({a}, {b})")
            pieces.append(f"o{at} = ReduceProd<axes=[0]>(j{at})")
        elif op == "Div":
            pieces.append(f"k{at} = Constant<value = int64[1] {{{draw(st.sampled_from([1, 2, 3, 12]))}}}>()")
            pieces.append(f"o{at} = Div({a}, k{at})")
        else:
            pieces.append(f"o{at} = {op}({a}, {b})")
        names.append(f"o{at}")
    pieces.append(f"y = Concat<axis=0>({', '.join(names)})")
    dims = {"N": draw(st.integers(0, 3)), "M": draw(st.integers(0, 3))}
    return model("g (float[N,3,M,4] x) => (int64[K] y) {" + "\n".join(pieces) + "}"), dims


@given(st.data())
@settings(derandomize=True, max_examples=60, deadline=None)
def test_whatever_folds_is_right_for_all_dimensions(data: st.DataObject) -> None:
    before, dims = data.draw(st.composite(_shape_model)())
    after, _ = apply(RULES, before)
    x = {"x": np.zeros((dims["N"], 3, dims["M"], 4), np.float32)}
    for expected, got in zip(run(before, x), run(after, x), strict=True):
        np.testing.assert_array_equal(got, expected)


TOP, LEAST = np.iinfo(np.int64).max, np.iinfo(np.int64).min
OF_ANY_SIZE = {
    "fmod keeps the sign": ("int64[1] x", "a = Mod(x, three) b = Mod<fmod=1>(x, three) y = Sub(a, b)", [-7]),
    "a difference of 32 bits": (
        "int32[1] x",
        "m = Constant<value = int32[1] {-1}>() a = Sub(x, m) b = Cast<to=7>(a) X = Cast<to=7>(x) M = Cast<to=7>(m)"
        " d = Sub(X, M) y = Sub(b, d)",
        [2**31 - 1],
    ),
    "a negative of 32 bits": (
        "int32[1] x",
        "a = Neg(x) b = Cast<to=7>(a) X = Cast<to=7>(x) d = Neg(X) y = Sub(b, d)",
        [-(2**31)],
    ),
    "a product of what is not negative": (
        "int64[1] x",
        "m = Max(x, zero) p = Mul(m, two) b = Less(p, zero) y = Cast<to=7>(b)",
        [2**62],
    ),
    "a sum of what is not negative": (
        "int64[1] x",
        "m = Max(x, zero) p = Add(m, two) b = Less(p, zero) y = Cast<to=7>(b)",
        [TOP],
    ),
    "a square": ("int64[1] x", "s = Mul(x, x) m = Max(s, zero) y = Sub(m, s)", [3037000500]),
    "the size of the least integer": (
        "int64[1] x",
        "a = Abs(x) b = GreaterOrEqual(a, zero) y = Cast<to=7>(b)",
        [LEAST],
    ),
}


@pytest.mark.parametrize(("inputs", "nodes", "given"), OF_ANY_SIZE.values(), ids=OF_ANY_SIZE)
def test_integers_that_may_have_any_size_or_sign(inputs: str, nodes: str, given: list[int]) -> None:
    """Dimensions are never negative and far from the ends of their type; what a caller gives need not be."""
    weights = {"zero": ONE - 1, "two": ONE + 1, "three": ONE + 2}
    before = model(f"g ({inputs}) => (int64[1] y) {{ {nodes} }}", weights, opset=13)
    after, _ = apply(RULES, before)
    feeds = {"x": np.array(given, np.int32 if "int32[1] x" in inputs else np.int64)}
    np.testing.assert_array_equal(run(after, feeds)[0], run(before, feeds)[0])


def test_the_size_of_a_difference_of_dimensions_is_not_negative() -> None:
    text = """g (float[N] x, float[M] z) => (bool[1] y) {
        n = Shape(x) m = Shape(z) d = Sub(n, m) a = Abs(d) b = GreaterOrEqual(a, zero) y = Not(b) }"""
    after, _ = apply(RULES, model(text, {"zero": ONE - 1}))
    assert [n.op_type for n in after.graph.node] in (["Constant"], [])
