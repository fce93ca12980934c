from __future__ import annotations

import pytest

from graphopt.verification import verify
from graphopt.verification.randomness import random_outputs
from tests.graphopt.verification.models import model

FUNCTION = '<domain: "own", opset_import: ["" : 17]> noisy (a) => (b) { r = RandomNormalLike(a) b = Add(a, r) }'
DROPOUT = (
    "(float[9] x, bool t) => (float[9] y, float[9] z) {{ r = Constant<value = float {{0.5}}>() {}y = Dropout(x, r, {})"
    " z = Neg(x) }}"
)


@pytest.mark.parametrize(
    ("text", "random"),
    [
        ("(float[2] x) => (float[2] y, float[2] z) { r = RandomNormalLike(x) y = Add(x, r) z = Neg(x) }", {"y"}),
        ("(float[2] x) => (float[2] y, float[2] z) { y = RandomUniformLike<seed=1.0>(x) z = Neg(y) }", set()),
        ("(float[1,4] x) => (int32[1,1] y) { y = Multinomial(x) }", {"y"}),
        ("(float[4] x) => (float[4] y) { y = Bernoulli(x) }", {"y"}),
        (DROPOUT.format("", "t"), {"y"}),
        (DROPOUT.format("on = Constant<value = bool {1}>() ", "on"), {"y"}),
        (DROPOUT.format("off = Constant<value = bool {0}>() ", "off"), set()),
        ("(float[2] x) => (float[2] y) { y = Dropout(x) }", set()),
        ("(float[2] x) => (float[2] y) { y = own.noisy(x) }", {"y"}),
        (
            "(float[2] x, bool c) => (float[2] y, float[2] z) { r = RandomNormalLike(x) z = Abs(x)"
            " y = If (c) <then_branch = g () => (float[2] a) { a = Identity(r) },"
            " else_branch = h () => (float[2] b) { b = Identity(x) }> }",
            {"y"},
        ),
        (
            "(float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = g () => (float[2] a)"
            " { a = RandomNormalLike(x) }, else_branch = h () => (float[2] b) { b = Identity(x) }> }",
            {"y"},
        ),
    ],
)
def test_outputs_that_depend_on_a_random_operator(text: str, random: set[str]) -> None:
    proto = model(text, functions=FUNCTION, domains=', "own" : 1')
    assert random_outputs(proto) == random
    found = verify(proto, proto)
    assert found.passed
    assert [sentence for sentence in found.not_checked if "at random" in sentence] == [
        f"The output {name} is drawn at random; only its type and shape were compared." for name in sorted(random)
    ]


def test_the_other_outputs_are_still_compared() -> None:
    mine = model("(float[2] x) => (float[2] y, float[2] z) { y = RandomNormalLike(x) z = Neg(x) }")
    theirs = model("(float[2] x) => (float[2] y, float[2] z) { y = RandomNormalLike(x) z = Abs(x) }")
    found = verify(mine, theirs)
    assert [check.passed for check in found.outputs] == [True, False]


def test_a_random_output_of_another_shape_fails() -> None:
    mine = model("(float[2] x) => (float[n] y) { y = RandomNormalLike(x) }")
    theirs = model("(float[2] x) => (float[n] y) { z = Concat<axis=0>(x, x) y = RandomNormalLike(z) }")
    assert "float32[4], not float32[2]" in verify(mine, theirs).problems[0]


def test_before_opset_7_dropout_trains_unless_told_not_to() -> None:
    training = model("(float[2] x) => (float[2] y) { y = Dropout(x) }", opset=6)
    test = model("(float[2] x) => (float[2] y) { y = Dropout<is_test=1>(x) }", opset=6)
    assert random_outputs(training) == {"y"}
    assert random_outputs(test) == set()
