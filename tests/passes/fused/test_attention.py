"""Whole attention blocks as ONNX Runtime's Attention and MultiHeadAttention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.pipeline import Options
from graphopt.rule import Rule
from graphopt.targets import Target
from graphopt_passes.fused import FuseForOnnxRuntime
from graphopt_passes.fused.attention import FuseAttention, FuseMultiHeadAttention
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, apply_pass, check_numbers, check_untouched

WHOLE, HEADS = FuseAttention(), FuseMultiHeadAttention()
RULES: list[Rule[Any]] = [WHOLE, HEADS]
LOWEST = np.finfo(np.float32).min
WEIGHTS = {
    "w": normal(6, 24, seed=1),
    "w2": normal(6, 16, seed=2),
    "w1": normal(6, 8, seed=3),
    "b": normal(24, seed=4),
    "odd": normal(1, 5, 24, seed=5),
    "b1": normal(8, seed=6),
    "c": np.float32(0.5),
    "minus": np.float32(-0.5),
    "zero": np.float32(0),
    "lowest": np.float32(LOWEST),
    "none": np.float32(-np.inf),
    "heads": np.array([0, 0, 2, 4]),
    "four": np.array([0, 0, 4, 2]),
    "six": np.array([0, 0, 6, 4]),
    "stack": np.array([0, 0, 3, 2, 4]),
    "many": np.array([2, 2, 2]),
    "thirds": np.array([8, 8, 8]),
    "halves": np.array([8, 8]),
    "ones": np.array([1, 1, 1]),
    "first": np.array([0]),
    "i0": np.array(0),
    "i1": np.array(1),
    "i2": np.array(-1),
    "joined": np.array([0, 0, 8]),
    "open": np.array([0, 0, -1]),
    "rows": np.array([-1, 8]),
    "bias": normal(1, 2, 5, 5, seed=7),
    "flat": normal(5, 5, seed=8),
    "row": normal(1, 1, 1, 5, seed=9),
    "deep": normal(1, 1, 1, 5, 5, seed=10),
    "thin": normal(1, 2, 5, 1, seed=11),
}
PROJECTED = "m = MatMul(x, w) s = Add(m, b)"
APART = (
    "f, g, h = Split<axis=2>(s, thirds) r = Reshape(f, heads) o = Reshape(g, heads) u = Reshape(h, heads) "
    "q = Transpose<perm=[0,2,1,3]>(r) k = Transpose<perm=[0,2,3,1]>(o) v = Transpose<perm=[0,2,1,3]>(u)"
)
SUNK = (
    "r = Reshape(s, six) t = Transpose<perm=[0,2,1,3]>(r) q, p, v = Split<axis=1>(t, many) "
    "k = Transpose<perm=[0,1,3,2]>(p)"
)
STACKED = "r = Reshape(s, stack) t = Transpose<perm=[2,0,3,1,4]>(r)"
SQUEEZED = (
    f"{STACKED} d, e, g = Split<axis=0>(t, ones) q = Squeeze(d, first) p = Squeeze(e, first) v = Squeeze(g, first) "
    "k = Transpose<perm=[0,1,3,2]>(p)"
)
GATHERED = (
    f"{STACKED} q = Gather<axis=0>(t, i0) p = Gather<axis=0>(t, i1) v = Gather<axis=0>(t, i2) "
    "k = Transpose<perm=[0,1,3,2]>(p)"
)
CORE = "z = MatMul(q, k) scaled = Mul(z, c) l = Softmax<axis=-1>(scaled) n = MatMul(l, v)"
END = "j = Transpose<perm=[0,2,1,3]>(n) y = Reshape(j, joined)"
MASKED = CORE.replace("Softmax<axis=-1>(scaled)", "Softmax<axis=-1>(a)")


def graph(*parts: str, inputs: str = "float[2,5,6] x", dtype: str = "float", outputs: str = "") -> ModelProto:
    text = f"g ({inputs}) => ({dtype}[A,B,C] y{outputs}) {{ {' '.join(parts)} }}"
    return model(text, used(WEIGHTS, text))


def operators(proto: ModelProto) -> list[str]:
    return [f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in proto.graph.node]


def attributes(proto: ModelProto) -> dict[str, Any]:
    (node,) = (n for n in proto.graph.node if n.domain)
    return {a.name: a.i or a.f for a in node.attribute}


@pytest.mark.parametrize("heads", [APART, SUNK, SQUEEZED, GATHERED])
@pytest.mark.parametrize("bias", [PROJECTED, "s = MatMul(x, w)", "m = MatMul(x, w) s = Add(b, m)"])
@pytest.mark.parametrize("inputs", ["float[2,5,6] x", "float[B,S,6] x"])
def test_projection_and_attention_are_one(heads: str, bias: str, inputs: str) -> None:
    before = graph(bias, heads, CORE, END, inputs=inputs)
    result, log = apply(WHOLE, before, Target.ONNXRUNTIME)
    assert operators(result) == ["com.microsoft::Attention"]
    assert attributes(result) == {"num_heads": 2, "scale": 0.5}
    assert len(log.applications) == 1
    assert not apply(RULES, result, Target.ONNXRUNTIME)[1].applications
    check_numbers(before, result, exact=False)


def test_the_columns_are_put_in_order() -> None:
    swapped = SUNK.replace("q, p, v =", "v, q, p =")
    before = graph(PROJECTED, swapped, CORE, END)
    result, _ = apply(WHOLE, before, Target.ONNXRUNTIME)
    assert operators(result) == ["com.microsoft::Attention"]
    check_numbers(before, result, exact=False)


@pytest.mark.parametrize(
    ("mask", "inputs", "kept"),
    [
        ("a = Add(scaled, bias)", "", []),
        ("a = Add(flat, scaled)", "", ["Unsqueeze"]),
        ("a = Add(scaled, row)", "", []),
        ("a = Add(scaled, given)", ", float[2,1,5,5] given", []),
        ("a = Add(scaled, given)", ", float[2,1,1,5] given", ["Expand"]),
        ("a = Add(scaled, given)", ", float[5] given", ["Expand", "Unsqueeze"]),
        ("i = Add(scaled, bias) a = Add(i, given)", ", float[2,1,5,5] given", ["Add"]),
        ("i = Where(given, zero, lowest) a = Add(scaled, i)", ", bool[2,1,5,5] given", ["Where"]),
    ],
)
def test_masks(mask: str, inputs: str, kept: list[str]) -> None:
    before = graph(PROJECTED, SUNK, MASKED.replace("l =", f"{mask} l ="), END, inputs=f"float[2,5,6] x{inputs}")
    result, _ = apply(WHOLE, before, Target.ONNXRUNTIME)
    assert operators(result) == [*kept, "com.microsoft::Attention"]
    check_numbers(before, result, exact=False)


SEPARATE = (
    "f = MatMul(x, w1) s = MatMul(z0, w2) g, h = Split<axis=2>(s, halves) "
    "r = Reshape(f, heads) o = Reshape(g, heads) u = Reshape(h, heads) "
    "q = Transpose<perm=[0,2,1,3]>(r) k = Transpose<perm=[0,2,3,1]>(o) v = Transpose<perm=[0,2,1,3]>(u)"
)


def test_queries_of_one_tensor_and_keys_of_another() -> None:
    before = graph(SEPARATE, CORE, END, inputs="float[2,5,6] x, float[2,7,6] z0")
    result, log = apply(RULES, before, Target.ONNXRUNTIME)
    assert operators(result) == ["MatMul", "MatMul", "Split", "com.microsoft::MultiHeadAttention"]
    assert [a.rule for a in log.applications] == [HEADS.name]
    check_numbers(before, result, exact=False)


def test_heads_without_a_projection_are_split_once() -> None:
    before = graph(SUNK, CORE, END, inputs="float[2,5,24] s")
    result, _ = apply(RULES, before, Target.ONNXRUNTIME)
    assert operators(result) == ["Split", "com.microsoft::MultiHeadAttention"]
    check_numbers(before, result, exact=False)


def test_heads_of_a_part_are_sliced() -> None:
    separate = "u = Reshape(z0, heads) v = Transpose<perm=[0,2,1,3]>(u)"
    heads = GATHERED.replace("v = Gather<axis=0>(t, i2)", separate)
    before = graph(heads, CORE, END, inputs="float[2,5,24] s, float[2,5,8] z0")
    result, _ = apply(RULES, before, Target.ONNXRUNTIME)
    assert operators(result) == ["Slice", "Slice", "com.microsoft::MultiHeadAttention"]
    check_numbers(before, result, exact=False)


def test_a_tensor_that_others_read_is_not_projected_twice() -> None:
    before = graph(PROJECTED, APART, CORE, END, outputs=", float[D,E,F] s")
    result, _ = apply(RULES, before, Target.ONNXRUNTIME)
    assert operators(result) == ["MatMul", "Add", "Split", "com.microsoft::MultiHeadAttention"]
    check_numbers(before, result, exact=False)


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        ("the bias is one a position", graph("m = MatMul(x, w) s = Add(m, odd)", SUNK, CORE, END), "number a column"),
        ("the bias is computed", graph("m = MatMul(x, w) s = Add(m, e)", SUNK, CORE, END,
                                       inputs="float[2,5,6] x, float[24] e"), "no product"),
        ("the weight is computed", graph("m = MatMul(x, e) s = Add(m, b)", SUNK, CORE, END,
                                         inputs="float[2,5,6] x, float[6,24] e"), "a constant matrix"),
        ("query and key of two tensors", graph(SEPARATE, CORE, END, inputs="float[2,5,6] x, float[2,7,6] z0"),
         "one tensor"),
        ("float64", graph("s = Identity(x)", SUNK, CORE.replace("c)", "n0)"), END, dtype="double",
                          inputs="double[2,5,24] x, double n0"), "float32"),
        ("the scale is negative", graph(PROJECTED, SUNK, CORE.replace("c)", "minus)"), END), "float32"),
        ("another axis", graph(PROJECTED, SUNK, CORE.replace("axis=-1", "axis=2"), END), "last axis"),
        ("the weights are read", graph(PROJECTED, SUNK, CORE, END, outputs=", float[D,E,F,G] l"), "no Softmax"),
        ("the heads are read", graph(PROJECTED, SUNK, CORE, END, outputs=", float[D,E,F,G] p"), "no equal heads"),
        ("the result is a matrix",
         graph(PROJECTED, SUNK, CORE, "j = Transpose<perm=[0,2,1,3]>(n) e = Reshape(j, rows) y = Unsqueeze(e, first)"),
         "joins no heads"),
        ("heads stay apart", graph(PROJECTED, SUNK, CORE, "j = Transpose<perm=[0,1,3,2]>(n) y = Reshape(j, joined)"),
         "joins no heads"),
        ("a key that moves its batch",
         graph(PROJECTED, SUNK.replace("[0,1,3,2]>(p)", "[1,0,3,2]>(p)"), CORE, END, inputs="float[2,5,6] x"),
         "no equal heads"),
        ("a mask that enlarges", graph(PROJECTED, SUNK, MASKED.replace("l =", "a = Add(scaled, thin) l ="), END),
         "one column a key"),
        ("a mask of truth values", graph(PROJECTED, SUNK, MASKED.replace("l =", "a = Where(e, scaled, none) l ="), END,
                                         inputs="float[2,5,6] x, bool[2,1,5,5] e"), "truth values"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, before: ModelProto, because: str) -> None:
    check_untouched(WHOLE, before, because, target=Target.ONNXRUNTIME)


OF_THREE = (
    "r = Reshape(f, heads) o = Reshape(g, heads) u = Reshape(h, heads) "
    "q = Transpose<perm=[0,2,1,3]>(r) k = Transpose<perm=[0,2,3,1]>(o) v = Transpose<perm=[0,2,1,3]>(u)"
)


@pytest.mark.parametrize("inputs", [
    "float[2,5,8] f, float[2,7,8] g, float[2,7,8] h", "float[B,5,8] f, float[B,S,8] g, float[B,S,8] h",
])  # fmt: skip
def test_heads_of_three_tensors_of_one_batch(inputs: str) -> None:
    before = graph(OF_THREE, CORE, END, inputs=inputs)
    result, _ = apply(HEADS, before, Target.ONNXRUNTIME)
    assert operators(result) == ["com.microsoft::MultiHeadAttention"]
    check_numbers(before, result, exact=False)


@pytest.mark.parametrize("inputs", [
    "float[1,5,8] f, float[2,7,8] g, float[2,7,8] h", "float[2,5,8] f, float[2,7,8] g, float[1,7,8] h",
    "float[1,5,8] f, float[1,7,8] g, float[2,7,8] h", "float[N,5,8] f, float[B,7,8] g, float[B,7,8] h",
    "float[?,5,8] f, float[?,7,8] g, float[?,7,8] h",
])  # fmt: skip
def test_batches_that_may_differ(inputs: str) -> None:
    check_untouched(HEADS, graph(OF_THREE, CORE, END, inputs=inputs), "one batch", target=Target.ONNXRUNTIME)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("batch", "mask"), [("1", "2,1,5,5"), ("1", "3,2,5,5"), ("B", "N,1,5,5"), ("B", "2,1,5,5"), ("1", "2,1,1,5")]
)
def test_a_mask_that_enlarges_the_batch(rule: Rule[Any], batch: str, mask: str) -> None:
    masked = MASKED.replace("l =", "a = Add(scaled, given) l =")
    before = graph(PROJECTED, SUNK, masked, END, inputs=f"float[{batch},5,6] x, float[{mask}] given")
    check_untouched(rule, before, "may enlarge", target=Target.ONNXRUNTIME)


def test_a_mask_that_enlarges_the_queries() -> None:
    masked = MASKED.replace("l =", "a = Add(scaled, given) l =")
    before = graph(OF_THREE, masked, END,
                   inputs="float[2,1,8] f, float[2,5,8] g, float[2,5,8] h, float[3,5] given")  # fmt: skip
    check_untouched(HEADS, before, "may enlarge", target=Target.ONNXRUNTIME)


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.PORTABLE])
def test_only_for_onnx_runtime(target: Target) -> None:
    check_untouched([WHOLE, HEADS], graph(PROJECTED, SUNK, CORE, END), "only ONNX Runtime", target=target)


def test_rows_without_any_key_keep_equal_weights() -> None:
    mask = "i = Where(given, zero, lowest) a = Add(scaled, i)"
    before = graph(PROJECTED, SUNK, MASKED.replace("l =", f"{mask} l ="), END,
                   inputs="float[2,5,6] x, bool[2,1,5,5] given")  # fmt: skip
    result, _ = apply(WHOLE, before, Target.ONNXRUNTIME)
    allowed = np.tri(5, dtype=bool)[None, None].repeat(2, 0)
    allowed[1, :, 2] = False
    check_numbers(before, result, exact=False, inputs={"x": normal(2, 5, 6), "given": allowed})


@st.composite
def blocks(draw: st.DrawFn) -> ModelProto:
    """An attention of random sizes, in any spelling of its heads, with and without biases and masks."""
    heads, width, inner = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    batch, length = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    whole = heads * width
    weights = {
        "w": normal(inner, 3 * whole), "b": normal(3 * whole), "c": np.float32(draw(st.sampled_from([0.25, 1, 2]))),
        "heads": np.array([0, 0, heads, width]), "six": np.array([0, -1, 3 * heads, width]),
        "stack": np.array([0, 0, 3, heads, width]), "many": np.array([heads] * 3), "thirds": np.array([whole] * 3),
        "ones": np.array([1, 1, 1]), "first": np.array([0]), "i0": np.array(0), "i1": np.array(1), "i2": np.array(2),
        "joined": np.array([0, draw(st.sampled_from([0, -1])), whole]),
        "bias": normal(1, heads, length, length), "row": normal(1, 1, 1, length), "flat": normal(length, length),
    }  # fmt: skip
    spelling = draw(st.sampled_from([APART, SUNK, SQUEEZED, GATHERED]))
    order = draw(st.permutations(["q", "p", "v"])) if spelling == SUNK else ["q", "p", "v"]
    spelling = spelling.replace("q, p, v =", f"{', '.join(order)} =")
    mask = draw(st.sampled_from(["", "bias", "row", "flat"]))
    core = MASKED.replace("l =", f"a = Add(scaled, {mask}) l =") if mask else CORE
    bias = draw(st.sampled_from([PROJECTED, "s = MatMul(x, w)"]))
    dims = draw(st.sampled_from([f"{batch},{length}", f"B,{length}"]))
    text = f"g (float[{dims},{inner}] x) => (float[A,C,D] y) {{ {bias} {spelling} {core} {END} }}"
    return model(text, used(weights, text))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(blocks())
def test_random_blocks(before: ModelProto) -> None:
    result, log = apply(RULES, before, Target.ONNXRUNTIME)
    assert [a.rule for a in log.applications] == [WHOLE.name]
    check_numbers(before, result, exact=False)


def test_the_pass_fuses_attention_before_the_products_in_it() -> None:
    options = Options(target=Target.ONNXRUNTIME)
    assert operators(apply_pass(FuseForOnnxRuntime(), graph(PROJECTED, SUNK, CORE, END), options)[0]) == [
        "com.microsoft::Attention"
    ]
    stays = graph(PROJECTED, SUNK, CORE, END)
    assert apply_pass(FuseForOnnxRuntime(), stays)[0] == stays
