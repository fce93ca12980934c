"""Sequences of known length, hoisting above a Concat, and a tensor joined with itself."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from graphopt_passes.concats.hoisting import HoistAboveConcat
from graphopt_passes.concats.repeated import RepeatedPartsToTile
from graphopt_passes.concats.sequences import ConcatFromTensors, SequenceAtOfTensors, SplitInsteadOfSequence
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

WEIGHTS = {
    **{f"n{n}": np.array(n, np.int64) for n in range(4)},
    "last": np.array(-1, np.int64),
    "i1": np.array([1], np.int64),
    "s132": np.array([1, 3, 2], np.int64),
    "half": np.float32(0.5),
}


def graph(text: str, opset: int = 17) -> ModelProto:
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return model(f"g {text}", {k: v for k, v in WEIGHTS.items() if k in words}, opset=opset)


@pytest.mark.parametrize(
    ("attributes", "left"),
    [("axis=1", ["Concat"]), ("axis=-1", ["Concat"]), ("axis=1, new_axis=1", ["Concat", "Unsqueeze", "Unsqueeze"])],
)
def test_a_sequence_of_tensors_is_joined_without_it(attributes: str, left: list[str]) -> None:
    rank = "A,B,C" if "new" in attributes else "A,B"
    text = f"(float[2,3] a, float[2,3] b) => (float[{rank}] y) "
    text += f"{{ s = SequenceConstruct(a, b) \n y = ConcatFromSequence<{attributes}>(s) }}"
    check_rewrite(ConcatFromTensors(), graph(text), left)


def test_an_element_of_a_sequence_of_tensors() -> None:
    text = "(float[2] a, float[3] b) => (float[N] y, float[M] z) "
    text += "{ s = SequenceConstruct(a, b) \n p = SequenceAt(s, last) \n y = Neg(p) \n "
    text += "q = SequenceAt(s, n0) \n z = Neg(q) }"
    check_rewrite(SequenceAtOfTensors(), graph(text), ["Neg", "Neg"], applied=2)
    away = "(float[2] a, int64 i) => (float[N] y) { s = SequenceConstruct(a, a) \n y = SequenceAt(s, i) }"
    check_untouched(SequenceAtOfTensors(), graph(away))


@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        ("SplitToSequence<axis=1>(x, s132)", [1, 3, 2]),
        ("SplitToSequence<axis=-1>(x, n2)", [2, 2, 2]),
        ("SplitToSequence<axis=1>(x, n3)", [3, 3]),
    ],
)
def test_parts_of_a_sequence_are_parts_of_a_split(split: str, sizes: list[int]) -> None:
    text = f"(float[2,6] x) => (float[2,A] y, float[2,B] z) {{ s = {split} \n "
    text += "p = SequenceAt(s, n0) \n q = SequenceAt(s, last) \n y = Neg(p) \n z = Neg(q) }"
    after = check_rewrite(SplitInsteadOfSequence(), graph(text), ["Neg", "Neg", "Split"])
    made = next(n for n in after.graph.node if n.op_type == "Split")
    assert len(made.output) == len(sizes)


def test_a_smaller_last_part_and_parts_that_lose_the_axis() -> None:
    uneven = "(float[2,5] x) => (float[2,A] y) { s = SplitToSequence<axis=1>(x, n2) \n y = SequenceAt(s, last) }"
    check_rewrite(SplitInsteadOfSequence(), graph(uneven), ["Split"])
    thin = "(float[2,3] x) => (float[A] y, float[B] z) { s = SplitToSequence<axis=1, keepdims=0>(x) \n "
    thin += "y = SequenceAt(s, n1) \n z = SequenceAt(s, n2) }"
    check_rewrite(SplitInsteadOfSequence(), graph(thin), ["Split", "Squeeze", "Squeeze"])


def test_sizes_that_the_run_time_gives() -> None:
    text = "(float[2,N] x, int64[2] sizes) => (float[2,A] y) "
    text += "{ s = SplitToSequence<axis=1>(x, sizes) \n p = SequenceAt(s, n1) \n y = Neg(p) }"
    before = graph(text)
    after = check_rewrite_only(before)
    check_numbers(before, after, exact=True, inputs={"x": np.ones((2, 5), np.float32), "sizes": np.array([2, 3])})


def check_rewrite_only(before: ModelProto) -> ModelProto:
    """Random sizes would not add up, so that numbers are checked with given ones."""
    after, log = apply(SplitInsteadOfSequence(), before)
    assert len(log.applications) == 1
    assert sorted(n.op_type for n in after.graph.node) == ["Neg", "Split"]
    return after


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("an index at run time", "s = SplitToSequence<axis=1>(x, n2) \n y = SequenceAt(s, i)"),
        ("an unknown size", "s = SplitToSequence<axis=0>(x, n2) \n y = SequenceAt(s, n0)"),
        ("another reader", "s = SplitToSequence<axis=1>(x, n2) \n p = SequenceAt(s, n0) \n l = SequenceLength(s) \n "
         "c = Cast<to=1>(l) \n y = Mul(p, c)"),
    ],
)  # fmt: skip
def test_sequences_stay(why: str, body: str) -> None:
    check_untouched(SplitInsteadOfSequence(), graph(f"(float[N,6] x, int64 i) => (float[A,B] y) {{ {body} }}"))


@pytest.mark.parametrize(
    ("chain", "left"),
    [
        ("f = Relu(c)", ["Relu", "Relu", "Sub"]),
        ("e = LeakyRelu<alpha=0.3>(c) \n f = Clip(e, half)", ["Clip", "Clip", "LeakyRelu", "LeakyRelu", "Sub"]),
    ],
)
def test_what_lies_between_concat_and_split_goes_up(chain: str, left: list[str]) -> None:
    text = f"(float[2,3] a, float[2,3] b) => (float[2,3] y) {{ c = Concat<axis=1>(a, b) \n {chain} \n "
    text += "p, q = Split<axis=-1>(f) \n y = Sub(p, q) }"
    check_rewrite(HoistAboveConcat(), graph(text), left)


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("other borders", "f = Relu(c) \n p, q, r = Split<axis=1>(f, s132) \n t = Mul(p, r) \n y = Mul(q, c)"),
        ("read elsewhere", "f = Relu(c) \n p, q = Split<axis=1>(f) \n t = Sub(p, q) \n u = Concat<axis=1>(t, t) \n "
         "y = Add(u, f)"),
        ("not point-wise", "f = Softmax<axis=1>(c) \n p, q = Split<axis=1>(f) \n y = Sub(p, q)"),
        ("another axis", "f = Relu(c) \n p, q = Split<axis=0>(f) \n y = Sub(p, q)"),
    ],
)  # fmt: skip
def test_what_lies_between_stays(why: str, body: str) -> None:
    text = f"(float[2,3] a, float[2,3] b) => (float[A,B] y) {{ c = Concat<axis=1>(a, b) \n {body} }}"
    before = graph(text)
    if why == "other borders":
        before = graph(text.replace("y = Mul(q, c)", "y = Mul(t, t)").replace("t = Mul(p, r)", "t = Mul(p, q)"))
    check_untouched(HoistAboveConcat(), before)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_tensor_joined_with_itself_is_tiled(axis: int) -> None:
    text = f"(float[2,3] x) => (float[A,B] y) {{ y = Concat<axis={axis}>(x, x, x) }}"
    check_rewrite(RepeatedPartsToTile(), graph(text), ["Tile"])
    check_untouched(
        RepeatedPartsToTile(), graph(text.replace("x, x, x)", "x, x, n)").replace("{ y", "{ n = Neg(x) \n y"))
    )
