"""Heads of queries, keys and values that are transposed one by one: transposed once, told apart behind it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.concats.heads import SinkSplitBelowHeads
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULE = SinkSplitBelowHeads()
NUMBERS = {
    "thirds": (8, 8, 8),
    "grouped": (16, 4, 4),
    "r24": (2, 5, 2, 4),
    "copied": (0, 0, 2, 4),
    "rest": (0, -1, 2, 4),
    "counted": (0, 0, -1, 4),
    "wide": (0, 0, 2, -1),
    "r44": (0, 0, 4, 4),
    "r14": (0, 0, 1, 4),
    "r42": (0, 0, 4, 2),
    "mixed": (5, 2, 2, 4),
    "flat": (10, 2, 4, 1),
    "two": (2, 0, -1, 4),
}


def graph(text: str, inputs: str = "float[2,5,24] x", outputs: str = "", opset: int = 17) -> ModelProto:
    words = set("".join(c if c.isalnum() else " " for c in text).split())
    weights = {k: np.array(v, np.int64) for k, v in NUMBERS.items() if k in words}
    named = ", ".join(f"float[{n}0,{n}1,{n}2,{n}3] {n}" for n in "qkv")
    return model(f"g ({inputs}) => ({named}{outputs}) {{ {text} }}", weights, opset=opset)


def thirds(shape: str = "copied", key: str = "0,2,3,1", query: str = "0,2,1,3", split: str = "thirds") -> str:
    """Query, key and value of a Split: the Reshape's target, and the Transposes of key and query."""
    return (
        f"a, b, c = Split<axis=-1>(x, {split}) d = Reshape(a, {shape}) e = Reshape(b, {shape}) f = Reshape(c, {shape}) "
        f"q = Transpose<perm=[{query}]>(d) k = Transpose<perm=[{key}]>(e) v = Transpose<perm=[0,2,1,3]>(f)"
    )


AFTER = """g (float[2,5,24] x) => (float[q0,q1,q2,q3] q, float[k0,k1,k2,k3] k, float[v0,v1,v2,v3] v) {
             r = Reshape(x, target) t = Transpose<perm=[0,2,1,3]>(r) q, p, v = Split<axis=1>(t, sizes)
             k = Transpose<perm=[0,1,3,2]>(p) }"""


@pytest.mark.parametrize("shape", ["copied", "r24", "rest", "counted", "wide", "two"])
def test_one_transpose_before_the_split(shape: str) -> None:
    check_rewrite(RULE, graph(thirds(shape)), AFTER)


def test_equal_transposes_leave_none_behind() -> None:
    result = check_rewrite(RULE, graph(thirds(key="0,2,1,3")), ["Reshape", "Transpose", "Split"])
    assert [list(n.output) for n in result.graph.node if n.op_type == "Split"] == [["q", "k", "v"]]


def test_grouped_queries() -> None:
    text = (
        "a, b, c = Split<axis=2>(x, grouped) d = Reshape(a, r44) e = Reshape(b, r14) f = Reshape(c, r14) "
        "q = Transpose<perm=[0,2,1,3]>(d) k = Transpose<perm=[0,2,1,3]>(e) v = Transpose<perm=[0,2,1,3]>(f)"
    )
    result = check_rewrite(RULE, graph(text), ["Reshape", "Transpose", "Split"])
    sizes = next(t for t in result.graph.initializer if t.name.endswith("sizes"))
    assert np.frombuffer(sizes.raw_data, np.int64).tolist() == [4, 1, 1]


@pytest.mark.parametrize("shape", ["copied", "rest", "counted"])
def test_unknown_batch_and_length(shape: str) -> None:
    check_rewrite(RULE, graph(thirds(shape), "float[B,S,24] x"), AFTER.replace("[2,5,24]", "[B,S,24]"), B=3, S=4)


def test_sizes_as_attribute() -> None:
    text = thirds().replace("Split<axis=-1>(x, thirds)", "Split<axis=-1, split=[8,8,8]>(x)")
    result = check_rewrite(RULE, graph(text, opset=11), ["Reshape", "Transpose", "Split", "Transpose"])
    split = next(n for n in result.graph.node if n.op_type == "Split")
    assert {a.name: list(a.ints) or a.i for a in split.attribute} == {"axis": 1, "split": [2, 2, 2]}


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        ("another axis", graph(thirds().replace("axis=-1", "axis=1"), "float[2,24,5] x"), "last axis"),
        ("an unknown width", graph(thirds("counted"), "float[2,5,W] x"), None),
        ("axes change places", graph(thirds("mixed")), "and nothing else"),
        ("the last axis is cut otherwise", graph(thirds("flat")), "and nothing else"),
        ("an unknown batch is a number", graph(thirds("two"), "float[B,S,24] x"), "and nothing else"),
        ("other widths", graph(thirds().replace("Reshape(c, copied)", "Reshape(c, r42)")), "several widths"),
        ("a part is an output", graph(thirds(), outputs=", float[D,E,F] a"), "and nothing else"),
        ("heads are an output", graph(thirds(), outputs=", float[D,E,F,G] e"), "and nothing else"),
        ("a part is read elsewhere", graph(thirds() + " z = Relu(b)", outputs=", float[D,E,F] z"), "and nothing else"),
        ("a part is not transposed", graph(thirds().replace("Transpose<perm=[0,2,3,1]>(e)", "Relu(e)")), "nothing"),
        ("one part", graph("a = Split<axis=2>(x) d = Reshape(a, counted) q = Transpose<perm=[0,2,1,3]>(d) "
                           "k = Relu(q) v = Relu(k)"), "or it has one"),
        ("zeros are zeros", graph(thirds().replace("Reshape(b", "Reshape<allowzero=1>(b"), "float[B,S,24] x"), None),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, before: ModelProto, because: str | None) -> None:
    check_untouched(RULE, before, because)


PRODUCT = "x = MatMul(z, z0)"


def test_tensorrt_takes_a_bare_product_apart_itself() -> None:
    before = graph(f"{PRODUCT} {thirds()}", "float[2,5,6] z, float[6,24] z0")
    check_untouched(RULE, before, because="TensorRT makes one batched product")
    check_untouched(RULE, before, because="TensorRT makes one batched product", target=Target.PORTABLE)
    after = AFTER.replace("float[2,5,24] x", "float[2,5,6] z, float[6,24] z0").replace("r = Re", f"{PRODUCT} r = Re")
    check_rewrite(RULE, before, after, target=Target.ONNXRUNTIME)


def test_a_bias_behind_the_product_keeps_it_whole() -> None:
    before = graph(f"m = MatMul(z, z0) x = Add(m, b0) {thirds()}", "float[2,5,6] z, float[6,24] z0, float[24] b0")
    check_rewrite(RULE, before, ["MatMul", "Add", "Reshape", "Transpose", "Split", "Transpose"])


@st.composite
def splits(draw: st.DrawFn) -> tuple[ModelProto, bool]:
    """A Split of random parts, Reshapes, Transposes; and whether the rule must fire."""
    width = draw(st.integers(1, 4))
    heads = draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    leading = draw(st.sampled_from([(0, 0), (0, -1), (-1, 0), (batch, length)]))
    swapped = draw(st.booleans()) and batch != length
    weights = {"sizes": np.array([h * width for h in heads], np.int64)}
    lines = [
        f"{', '.join(f'a{i}' for i in range(len(heads)))} = Split<axis={draw(st.sampled_from([2, -1]))}>(x, sizes)"
    ]
    for i, h in enumerate(heads):
        front = (length, batch) if swapped and i == 0 else leading
        weights[f"s{i}"] = np.array([*front, h, width], np.int64)
        perm = ",".join(map(str, draw(st.permutations(range(4)))))
        lines.append(f"r{i} = Reshape(a{i}, s{i}) y{i} = Transpose<perm=[{perm}]>(r{i})")
    dims = f"{batch},{length}" if swapped or leading == (batch, length) else draw(st.sampled_from(["B,S", "2,S"]))
    outputs = ", ".join(f"float[A{i},B{i},C{i},D{i}] y{i}" for i in range(len(heads)))
    text = f"g (float[{dims},{sum(heads) * width}] x) => ({outputs}) {{ {' '.join(lines)} }}"
    return model(text, weights), not swapped


@settings(derandomize=True, max_examples=60, deadline=None)
@given(splits())
def test_random_splits(drawn: tuple[ModelProto, bool]) -> None:
    before, fires = drawn
    result, log = apply(RULE, before)
    assert len(log.applications) == int(fires)
    check_numbers(before, result, exact=True)
