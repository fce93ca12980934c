from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
import pytest

from graphopt.errors import ExecutionError
from graphopt.verification import Exact, Tolerance, compare_small
from graphopt.verification.values import Feeds
from tests.graphopt.verification.models import model

BEFORE = "(float[2,3] x) => (float[2,3] y) { two = Constant<value = float {2.0}>() y = Mul(x, two) }"


def feeds(count: int = 3) -> Sequence[Feeds]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((2, 3)).astype(np.float32)} for _ in range(count)]


def test_outputs_are_compared_by_position() -> None:
    assert compare_small(model(BEFORE), model("(float[2,3] x) => (float[2,3] z) { z = Add(x, x) }"), feeds()) is None


@pytest.mark.parametrize("criterion", [Tolerance(), Exact()])
def test_a_mismatch_is_a_reproducer(criterion: Tolerance | Exact) -> None:
    wrong = model(BEFORE.replace("2.0", "2.001"))
    found = compare_small(model(BEFORE), wrong, feeds(), criterion)
    assert found is not None
    assert found.output == "y"
    assert found.reason.startswith("the output y differs: ")
    np.testing.assert_array_equal(np.asarray(found.expected), np.asarray(found.feeds["x"]) * 2)
    assert np.asarray(found.found).shape == (2, 3)


def test_rounding_is_a_mismatch_for_exact_rules_only() -> None:
    before = model("(float[2,3] x) => (float[2,3] y) { three = Constant<value = float {3.0}>() y = Div(x, three) }")
    after = model(BEFORE.replace("2.0", "0.33333334"))
    assert compare_small(before, after, feeds()) is None
    assert compare_small(before, after, feeds(), Exact()) is not None


def test_a_second_model_that_is_refused_is_a_mismatch() -> None:
    invalid = model("(float[2,3] x) => (float[2,3] y) { y = And(x, x) }")
    found = compare_small(model(BEFORE), invalid, feeds())
    assert found is not None
    assert "does not run" in found.reason


def test_a_second_model_that_fails_is_a_mismatch() -> None:
    before = model("(float[n] x) => (float[m] y) { y = Neg(x) }")
    after = model("(float[n] x) => (float[m] y) { s = Constant<value_ints=[5]>() r = Reshape(x, s) y = Neg(r) }")
    found = compare_small(before, after, [{"x": np.zeros(5, np.float32)}, {"x": np.zeros(4, np.float32)}])
    assert found is not None
    assert np.asarray(found.feeds["x"]).shape == (4,)
    assert found.found is None


def test_other_outputs_are_a_mismatch() -> None:
    more = model("(float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Add(x, x) z = Neg(x) }")
    found = compare_small(model(BEFORE), more, feeds())
    assert found is not None
    assert "2 outputs instead of 1" in found.reason


def test_feeds_that_the_first_refuses_are_passed_over_but_not_all() -> None:
    pick = model("(float[3] x, int64[1] i) => (float[1] y) { y = Gather(x, i) }")
    other = model("(float[3] x, int64[1] i) => (float[1] y) { n = Neg(x) y = Gather(n, i) }")
    x = np.ones(3, dtype=np.float32)
    bad: Feeds = {"x": x, "i": np.array([7])}
    good: Feeds = {"x": x, "i": np.array([1])}
    assert compare_small(pick, pick, [bad, good]) is None
    assert compare_small(pick, other, [bad, good]) is not None
    for useless in ([bad], []):
        with pytest.raises(ExecutionError, match="cannot be compared"):
            compare_small(pick, pick, useless)


def test_what_onnxruntime_lacks_is_run_by_the_reference() -> None:
    text = "(double[1,2,5,5] x, double[3,2,3,3] w) => (double[1,3,3,3] y) {{ {} }}"
    rng = np.random.default_rng(0)
    given: Sequence[Feeds] = [{"x": rng.standard_normal((1, 2, 5, 5)), "w": rng.standard_normal((3, 2, 3, 3))}]
    conv = model(text.format("y = Conv(x, w)"))
    twice = model(text.format("m = Neg(x) n = Neg(w) y = Conv(m, n)"))
    once = model(text.format("m = Neg(x) y = Conv(m, w)"))
    assert compare_small(conv, twice, given) is None
    assert compare_small(conv, once, given) is not None


def test_bfloat16() -> None:
    text = "(bfloat16[4] x) => (bfloat16[4] y) {{ {} }}"
    given: Sequence[Feeds] = [{"x": np.array([1, 2, 3, 4], dtype=ml_dtypes.bfloat16)}]
    straight = model(text.format("y = Identity(x)"), opset=21, ir=10)
    around = model(text.format("f = Cast<to=1>(x) y = Cast<to=16>(f)"), opset=21, ir=10)
    lost = model(text.format("f = Cast<to=17>(x) y = Cast<to=16>(f)"), opset=21, ir=10)
    assert compare_small(straight, around, given, Exact()) is None
    assert compare_small(straight, lost, given, Exact()) is None  # small whole numbers fit into a byte
    other: Sequence[Feeds] = [{"x": np.array([1.1, 2.2, 3.3, 4.4], dtype=ml_dtypes.bfloat16)}]
    assert compare_small(straight, lost, other) is not None


def test_unknown_operators_cannot_be_compared() -> None:
    custom = model("(float[2,3] x) => (float[2,3] y) { y = acme.Foo(x) }", domains=', "acme" : 1')
    with pytest.raises(ExecutionError):
        compare_small(custom, custom, feeds())
