"""One affine operator that several linear ones read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt_passes.vertical.fold_into_readers import FoldAffineIntoReaders
from tests.passes.vertical.weights import normal, statistics, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULE = FoldAffineIntoReaders()
WEIGHTS = {
    "w3": normal(6, 4, 3, 3),
    "w1": normal(5, 4, 1, 1),
    "d3": normal(4, 1, 3, 3),
    "t1": normal(4, 6, 1, 1),
    "b6": normal(6),
    "s": normal(4, 1, 1),
    "mm": normal(8, 8),
    "mn": normal(8, 3),
    "c8": normal(8),
    "c3": normal(3),
    "big": np.zeros((80, 4, 33, 33), np.float32),
    **statistics(4),
}


def test_batch_norm_before_three_convs() -> None:
    text = """g (float[2,4,8,8] x) => (float[A,B,C,D] y, float[E,F,G,H] z, float[I,J,K,L] q) {
                n = BatchNormalization(x, g, b, m, v)
                y = Conv(n, w3, b6) z = Conv<strides=[2,2]>(n, w1) q = Conv<group=4>(n, d3) }"""
    check_rewrite(
        RULE,
        model(text, used(WEIGHTS, text)),
        """g (float[2,4,8,8] x) => (float[A,B,C,D] y, float[E,F,G,H] z, float[I,J,K,L] q) {
                y = Conv(x, w, a) z = Conv<strides=[2,2]>(x, w, a) q = Conv<group=4>(x, w, a) }""",
    )


@pytest.mark.parametrize(
    ("why", "text", "operators"),
    [
        ("a scale crosses padding", "k = Mul(x, s) y = Conv<pads=[1,1,1,1]>(k, w3) z = Conv(k, w1)", ["Conv"] * 2),
        ("a ConvTranspose", "k = Sub(x, s) y = ConvTranspose(k, t1, b6) z = Conv(k, w1)", ["Conv", "ConvTranspose"]),
        ("products", "k = Div(x, c8) y = MatMul(k, mm) z = MatMul(k, mn)", ["MatMul"] * 2),
        (
            "products with biases",
            "k = Add(x, c8) p = MatMul(k, mm) y = Add(p, c8) q = MatMul(k, mn) z = Add(c3, q)",
            ["Add", "Add", "MatMul", "MatMul"],
        ),
        ("a weight shared by both", "k = Neg(x) y = Conv(k, w3) z = Conv<pads=[1,1,1,1]>(k, w3)", ["Conv"] * 2),
    ],
)
def test_every_kind_of_reader(why: str, text: str, operators: list[str]) -> None:
    full = f"g (float[2,4,8,8] x) => (float[A,B,C,D] y, float[E,F,G,H] z) {{ {text} }}"
    check_rewrite(RULE, model(full, used(WEIGHTS, full)), operators)


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("one reader is another rule's", "k = Mul(x, s) y = Conv(k, w3) z = Relu(x)", "not several"),
        ("it is an output", "z = Mul(x, s) y = Conv(z, w3) u = Conv(z, w1)", "is an output"),
        ("a reader is no product", "k = Mul(x, s) y = Conv(k, w3) z = Relu(k)", "no linear operator"),
        ("as the weight", "k = Mul(wide, s) y = Conv(k, w3) z = Conv(x, k)", "no linear operator"),
        ("one of them pads", "k = Add(x, s) y = Conv(k, w1) z = Conv<pads=[1,1,1,1]>(k, w3)", "zero padding"),
        ("one has no bias", "k = Add(x, c8) p = MatMul(k, mm) y = Add(p, c8) z = MatMul(k, mn)", "no bias"),
        ("computed statistics", "r = Relu(s) k = Mul(x, r) y = Conv(k, w3) z = Conv(k, w1)", "not one of its inputs"),
        ("a number a column", "k = Mul(x, c8) y = Conv(k, w3) z = Conv(k, w1)", "one number a channel"),
        ("along different axes", "k = Mul(x, c8) y = MatMul(k, mm) z = Conv(k, w1)", "one number a channel"),
        ("the data grows", "k = Mul(thin, s) y = Conv(k, w3) z = Conv(k, w1)", "may enlarge"),
        ("large and shared", "k = Mul(x, s) y = Conv<strides=[1,1]>(p, big) z = Conv(k, w1) u = Conv(k, big)", "twice"),
    ],
)
def test_leaves_alone(why: str, text: str, because: str) -> None:
    if "big" in text:
        text = f"p = Pad(x, pads) {text.replace('Conv(k, big)', 'Conv<pads=[16,16,16,16]>(k, big)')}"
    weights = {**WEIGHTS, "pads": np.array([0, 0, 16, 16, 0, 0, 16, 16])}
    inputs = "float[2,4,8,8] x, float[2,1,8,8] thin, float[6,4,8,8] wide"
    full = f"g ({inputs}) => (float[A,B,C,D] y, float[E,F,G,H] z) {{ {text} }}"
    proto = model(full, used(weights, full))
    check_untouched(RULE, proto, because)


def test_a_body_that_reads_it_keeps_it() -> None:
    proto = model(
        """g (float[2,4,8,8] x, bool c) => (float[A,B,C,D] y, float[E,F,G,H] z) {
             k = Mul(x, s) y = Conv(k, w3)
             z = If(c) <then_branch = t () => (float[E,F,G,H] i) { i = Conv(k, w1) },
                        else_branch = e () => (float[E,F,G,H] j) { j = Conv(x, w1) }> }""",
        {k: WEIGHTS[k] for k in ("s", "w3", "w1")},
    )
    check_untouched(RULE, proto, "no linear operator")


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    readers = []
    for i in range(data.draw(st.integers(2, 3))):
        op, weight = data.draw(st.sampled_from([("Conv", "w3"), ("Conv", "w1"), ("ConvTranspose", "t1")]))
        pads = data.draw(st.sampled_from([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]]))
        strides = data.draw(st.sampled_from([[1, 1], [2, 1]]))
        readers.append(f"y{i} = {op}<pads={pads}, strides={strides}>(k, {weight})")
    affine = data.draw(st.sampled_from(["Mul(x, s)", "Add(s, x)", "Sub(s, x)", "BatchNormalization(x, g, b, m, v)"]))
    outputs = ", ".join(f"float[A{i},B{i},C{i},D{i}] y{i}" for i in range(len(readers)))
    text = f"g (float[2,4,4,4] x) => ({outputs}) {{ k = {affine} {' '.join(readers)} }}"
    before = model(text, used(WEIGHTS, text))
    result, log = apply(RULE, before)
    if log.applications:
        assert len(result.graph.node) == len(readers)
        check_numbers(before, result, exact=False)
    else:
        assert result == before
