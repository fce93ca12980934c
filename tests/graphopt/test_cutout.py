"""What is cut out around a change: shapes that constants make are computed, not drawn."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from graphopt.change import Change
from graphopt.cutout import MOST_OF_A_SHAPE, cut_out
from graphopt.rewrite_check import change_model
from tests.graphopt.test_rewrite import DropIdentity, run
from tests.support.models import model


def drawn(proto: ModelProto) -> set[str]:
    """Inputs of what is cut out around the Identity that is dropped."""
    names: list[set[str]] = []

    def judge(change: Change) -> None:
        cutout = cut_out(change, change_model(change), context=0)
        names.append({info.name for info in cutout.before.graph.input})

    run(proto, DropIdentity(), judges=[judge])
    (found,) = names
    return found


def reshaped(shape: str) -> ModelProto:
    """An Identity behind a Reshape to `s`, which `shape` makes of [2] and [3, 1] or of an input."""
    text = f"g (float[6] x, int64[3] given) => (float[A,B,C] y) {{ {shape} r = Reshape(x, s) \n y = Identity(r) }}"
    return model(text, {"a": [2], "b": [3, 1]})


def test_a_shape_that_constants_make_is_computed() -> None:
    assert drawn(reshaped("c = Concat<axis = 0>(a, b) \n s = Abs(c) \n")) == {"x"}


def test_a_shape_that_an_input_makes_is_drawn() -> None:
    assert drawn(reshaped("c = Concat<axis = 0>(a, b) \n s = Mul(c, given) \n")) == {"x", "s"}


def test_a_shape_of_a_long_computation_is_drawn() -> None:
    steps = "".join(f"c{i + 1} = Abs(c{i}) \n" for i in range(MOST_OF_A_SHAPE))
    long = f"c0 = Concat<axis = 0>(a, b) \n {steps} s = Abs(c{MOST_OF_A_SHAPE}) \n"
    assert drawn(reshaped(long)) == {"x", "s"}


def test_numbers_that_constants_make_are_drawn_as_before() -> None:
    """Weights may be large, and a rule holds for any of them."""
    text = "g (float[1] x) => (float[1] y) { c = Neg(w) \n s = Abs(c) \n r = Mul(x, s) \n y = Identity(r) }"
    assert drawn(model(text, {"w": np.float32([1.5])})) == {"x", "s"}
