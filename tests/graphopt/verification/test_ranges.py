from __future__ import annotations

import numpy as np
import pytest

from graphopt.errors import ShapeError
from graphopt.verification import Range, draw, infer_ranges, verify
from graphopt.verification.draw import STYLES, Sizes, TooLarge, draw_overrides, settle
from graphopt.verification.samples import Failed, draw_samples
from graphopt.verification.values import Feeds, Value
from tests.graphopt.verification.models import model

TABLE = "<float[7,2] t = {0,0,0,0,0,0,0,0,0,0,0,0,0,0}>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"(int64[3] x) => (float[a,b] y) {TABLE} {{ y = Gather(t, x) }}", Range(0, 6)),
        (f"(int64[3] x) => (float[a,b] y) {TABLE} {{ y = Gather<axis=1>(t, x) }}", Range(0, 1)),
        (f"(int32[3] x) => (float[a,b] y) {TABLE} {{ i = Cast<to=7>(x) y = Gather(t, i) }}", Range(0, 6)),
        (
            f"(int64[3] x) => (float[a,b,c] y) {TABLE} {{ z = Constant<value_ints=[0]>() u = Unsqueeze(x, z)"
            " y = Gather(t, u) }",
            Range(0, 6),
        ),
        (
            f"(int64[3] x) => (float[a,b] y) {TABLE} {{ two = Constant<value_int=2>() s = Add(x, two)"
            " y = Gather(t, s) }",
            Range(-2, 4),
        ),
        (f"(int64[3] x) => (float[a,b] y) {TABLE} {{ c = Concat<axis=0>(x, x) y = Gather(t, c) }}", Range(0, 6)),
        (f"(int64[3,2] x) => (float[3,2] y) {TABLE} {{ y = GatherElements(t, x) }}", Range(0, 6)),
        (f"(int64[3,2] x) => (float[3] y) {TABLE} {{ y = GatherND(t, x) }}", Range(0, 1)),
        (f"(int64[3,1] x) => (float[3,2] y) {TABLE} {{ y = GatherND(t, x) }}", Range(0, 6)),
        ("(float[3] x) => (float[3] y) { y = Log(x) }", Range(0.05, 2)),
        ("(float[3] x) => (float[3] y) { n = Neg(x) s = Sqrt(n) y = Neg(s) }", Range(-4, 0)),
        (
            "(int64[3] x) => (float[3] y) { f = Cast<to=1>(x) o = Constant<value = float {1.0}>() m = Sub(o, f)"
            " b = Constant<value = float {-10000.0}>() y = Mul(m, b) }",
            Range(0, 1),
        ),
        ("(int64[3] x) => (int64[3] y) { y = Neg(x) }", Range()),
        (
            f"(int64[3] x) => (float[a,b] y) {TABLE} {{ c = Constant<value = bool {{1}}>()"
            " y = If (c) <then_branch = g () => (float[3,2] p) { p = Gather(t, x) },"
            " else_branch = h () => (float[3,2] q) { i = Neg(x) j = Neg(i) q = Gather(t, j) }> }",
            Range(0, 6),
        ),
        (f"(int64[3] x) => (float[a,b] y) {TABLE} {{ y = own.lookup(t, x) }}", Range(0, 6)),
    ],
)
def test_what_an_input_may_be(text: str, expected: Range) -> None:
    function = '<domain: "own", opset_import: ["" : 17]> lookup (a, i) => (b) { b = Gather(a, i) }'
    proto = model(text, functions=function, domains=', "own" : 1')
    assert infer_ranges(proto)["x"] == expected
    assert verify(proto, proto).passed


def test_an_index_into_a_free_dimension_stays_below_it() -> None:
    proto = model("(float[n,2] t, int64[5] x) => (float[5,2] y) { y = Gather(t, x) }")
    ranges = infer_ranges(proto)
    assert ranges["x"] == Range(0, None, ("n",))
    for size in (1, 2, 9):
        drawn = draw(proto.graph.input, np.random.default_rng(0), ranges, Sizes(leading=size))
        assert np.asarray(drawn["t"]).shape == (size, 2)
        assert np.asarray(drawn["x"]).max() < size


def test_ranges_are_met_where_they_overlap() -> None:
    assert Range(0, 9) & Range(5, None) == Range(5, 9)
    assert Range(0, 1) & Range(5, 9) == Range(0, 1)
    assert Range(0, 9, ("n",)).resolved({"n": 4}) == (0, 3)
    assert Range(1, 2).times(-2) == Range(-4, -2)


def test_a_symbol_has_one_size_and_different_symbols_differ() -> None:
    proto = model("(float[b,n] x, float[b,m] z, int64[n] i) => (float[b,n] y) { y = Neg(x) }")
    drawn = {name: np.asarray(v).shape for name, v in draw(proto.graph.input, np.random.default_rng(0), {}).items()}
    assert drawn["x"][0] == drawn["z"][0]
    assert drawn["x"][1] == drawn["i"][0] != drawn["z"][1]


def test_given_shapes_settle_the_symbols() -> None:
    proto = model("(float[b,n] x, float[b,4] z) => (float[b,n] y) { y = Neg(x) }")
    drawn = draw(proto.graph.input, np.random.default_rng(0), {}, given={"x": (7, 5)})
    assert [np.asarray(value).shape for value in drawn.values()] == [(7, 5), (7, 4)]
    with pytest.raises(ShapeError, match="disagree about the dimension b: 7 and 8"):
        settle(proto.graph.input, Sizes(), {"x": (7, 5), "z": (8, 4)})
    with pytest.raises(ShapeError, match="does not fit"):
        settle(proto.graph.input, Sizes(), {"z": (8, 5)})


def test_an_absurd_input_is_refused_not_allocated() -> None:
    proto = model("(float[4611686018427387904] x) => (float[4611686018427387904] y) { y = Neg(x) }")
    with pytest.raises(TooLarge, match="too large"):
        draw(proto.graph.input, np.random.default_rng(0), {})


@pytest.mark.parametrize(
    "element", ["float16", "bfloat16", "uint8", "int8", "int4", "float8e5m2", "bool", "string", "complex64"]
)
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_every_type_is_drawn_in_every_style(element: str, style: object) -> None:
    proto = model(f"({element}[3,2] x) => ({element}[3,2] y) {{ y = Identity(x) }}", opset=21, ir=10)
    (drawn,) = draw(proto.graph.input, np.random.default_rng(0), {}, style=style).values()  # type: ignore[arg-type]
    assert np.asarray(drawn).shape == (3, 2)


def test_defaults_are_overridden_by_other_floats_only() -> None:
    proto = model(
        "(float[2] x, float[2] w, int64[1] k) => (float[2] y) <float[2] w = {1.0, 0.0}, int64[1] k = {3}>"
        " { y = Mul(x, w) }"
    )
    drawn = draw_overrides(proto, np.random.default_rng(0))
    assert list(drawn) == ["w"]
    assert (np.asarray(drawn["w"]) != [1.0, 0.0]).all()


def test_samples_have_different_sizes_where_the_model_runs_with_them() -> None:
    proto = model("(float[n,3] x) => (float[n,3] y) { y = Neg(x) }")
    samples = draw_samples(dict, proto, {}, 3, 0, {})
    assert len({np.asarray(sample.feeds["x"]).shape for sample in samples}) == 3


def test_drawing_goes_on_until_the_model_runs() -> None:
    proto = model("(float[n] x, int64 k) => (float[n] y) { y = Neg(x) }")

    def picky(feeds: Feeds) -> dict[str, Value]:
        if np.asarray(feeds["x"]).shape != (16,) or np.asarray(feeds["k"]) != 0:
            raise Failed("not these")
        return {"y": np.zeros(16)}

    assert len(draw_samples(picky, proto, {}, 3, 0, {})) == 3


def test_inputs_that_leave_nan_behind_are_avoided() -> None:
    proto = model("(float[4] x) => (float[4] y) { n = Neg(x) y = Sqrt(n) }")

    def root(feeds: Feeds) -> dict[str, Value]:
        with np.errstate(invalid="ignore"):
            return {"y": np.sqrt(np.asarray(feeds["x"]))}

    found = draw_samples(root, proto, {}, 1, 0, {})
    assert not np.isnan(np.asarray(found[0].outputs["y"])).any()


def test_a_mask_that_leaves_nothing_is_avoided() -> None:
    proto = model(
        "(float[1,1] s, int64[1,1] attention_mask) => (float[1,1] y) { m = Cast<to=9>(attention_mask)"
        " low = Constant<value = float {-inf}>() w = Where(m, s, low) y = Softmax(w) }".replace("-inf", "-3.4e38")
    )
    assert verify(proto, proto).passed
