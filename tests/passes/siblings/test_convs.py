"""Sibling convolutions on one tensor: merged, ordered for their Concats, followers sunk; and what is left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from graphopt_passes.siblings import MergeSiblings
from graphopt_passes.siblings.convs import MergeAdjacentConvs, MergeEqualSiblingConvs, MergeSiblingConvs
from tests.support.models import model
from tests.support.rewrites import apply, apply_pass, check_numbers, check_rewrite, check_untouched

Arrays = dict[str, np.ndarray[Any, Any]]


def weights(dtype: type = np.float32, **shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(7)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


POINT = weights(v=(4, 3, 1, 1), w=(2, 3, 1, 1), u=(5, 3, 1, 1), b=(2,), c=(5,))
INPUT = "float[N,3,6,6] x"
TWO_OUT = "(float[N,4,6,6] y, float[N,2,6,6] z)"


def two(body: str, out: str = TWO_OUT, given: str = INPUT, arrays: Arrays | None = None, opset: int = 17) -> ModelProto:
    return model(f"g ({given}) => {out} {{ {body} }}", POINT if arrays is None else arrays, opset=opset)


def test_unequal_outputs_and_mixed_bias_become_one_conv_and_a_split() -> None:
    check_rewrite(
        MergeSiblingConvs(),
        two("y = Conv(x, v)  z = Conv(x, w, b)"),
        f"g ({INPUT}) => {TWO_OUT} {{ m = Conv(x, v, b)  y, z = Split<axis=1>(m, s) }}",
    )


def test_split_takes_its_sizes_by_attribute_before_opset_13() -> None:
    result = check_rewrite(MergeSiblingConvs(), two("y = Conv(x, v)  z = Conv(x, w)", opset=11), ["Conv", "Split"])
    assert helper.get_attribute_value(result.graph.node[1].attribute[1]) == [4, 2]


def test_three_siblings_and_their_relus() -> None:
    check_rewrite(
        MergeSiblingConvs(),
        two(
            "a = Conv(x, v)  b1 = Conv(x, w, b)  c1 = Conv(x, u, c)  y = Relu(a)  z = Relu(b1)  t = Relu(c1)",
            out="(float[N,4,6,6] y, float[N,2,6,6] z, float[N,5,6,6] t)",
        ),
        ["Conv", "Relu", "Split"],
    )


def test_siblings_side_by_side_in_a_concat_need_no_split() -> None:
    check_rewrite(
        MergeAdjacentConvs(),
        two(
            "a = Conv(x, v)  d = Conv(x, w, b)  r = Relu(a)  s = Relu(d)  y = Concat<axis=1>(s, r)",
            "(float[N,6,6,6] y)",
        ),
        "g (float[N,3,6,6] x) => (float[N,6,6,6] y) { m = Conv(x, v, b)  y = Relu(m) }",
    )


def test_a_run_inside_a_longer_concat_becomes_one_input() -> None:
    check_rewrite(
        MergeAdjacentConvs(),
        two("a = Conv(x, v)  d = Conv(x, w, b)  y = Concat<axis=-3>(x, d, a)", "(float[N,9,6,6] y)"),
        "g (float[N,3,6,6] x) => (float[N,9,6,6] y) { m = Conv(x, v, b)  y = Concat<axis=-3>(x, m) }",
    )


def test_what_a_concat_takes_side_by_side_is_one_part_of_the_split() -> None:
    check_rewrite(
        MergeSiblingConvs(),
        two(
            "z = Conv(x, w, b)  a = Conv(x, v)  d = Conv(x, u, c)  y = Concat<axis=1>(a, d)",
            "(float[N,9,6,6] y, float[N,2,6,6] z)",
        ),
        f"g ({INPUT}) => (float[N,9,6,6] y, float[N,2,6,6] z) {{ m = Conv(x, v, b)  y, z = Split<axis=1>(m, s) }}",
    )


def test_siblings_apart_in_a_concat_stay_two_parts() -> None:
    check_rewrite(
        MergeSiblingConvs(),
        two("a = Conv(x, v)  d = Conv(x, w, b)  y = Concat<axis=1>(a, x, d)", "(float[N,9,6,6] y)"),
        ["Concat", "Conv", "Split"],
    )


def test_a_concat_on_another_axis_is_only_a_reader() -> None:
    check_rewrite(
        [MergeAdjacentConvs(), MergeSiblingConvs()],
        two(
            "a = Conv(x, w)  d = Conv(x, w2, b)  y = Concat<axis=2>(a, d)",
            "(float[N,2,12,6] y)",
            arrays={**POINT, "w2": POINT["w"] + 1},
        ),
        ["Concat", "Conv", "Split"],
    )


def test_affine_followers_sink_with_their_constants() -> None:
    arrays = {**POINT, **weights(g=(4, 1, 1), h=(1, 2, 1, 1)), "k": np.float32(0.5), "l": np.float32(2.0)}
    check_rewrite(
        MergeSiblingConvs(),
        two(
            "a = Conv(x, v)  d = Conv(x, w)  e = Mul(a, g)  f = Mul(h, d)  y = Sub(e, k)  z = Sub(f, l)", arrays=arrays
        ),
        ["Conv", "Mul", "Split", "Sub"],
    )


def test_before_opset_7_constants_do_not_sink() -> None:
    arrays = {**POINT, "k": np.ones(1, np.float32), "l": np.full(1, 2, np.float32)}
    before = two(
        "a = Conv(x, v)  d = Conv(x, w)  y = Mul<broadcast=1>(a, k)  z = Mul<broadcast=1>(d, l)", opset=6, arrays=arrays
    )
    after, log = apply(MergeSiblingConvs(), before)
    assert len(log.applications) == 1
    assert [n.op_type for n in after.graph.node] == ["Conv", "Split", "Mul", "Mul"]


def test_a_constant_before_the_minus_stays_there() -> None:
    arrays = {**POINT, **weights(g=(4, 1, 1), h=(2, 1, 1))}
    check_rewrite(
        MergeSiblingConvs(),
        two("a = Conv(x, v)  d = Conv(x, w)  y = Sub(g, a)  z = Sub(h, d)", arrays=arrays),
        ["Conv", "Split", "Sub"],
    )


def test_batch_normalization_and_prelu_sink() -> None:
    arrays = {**POINT, **weights(s1=(4,), t1=(4,), m1=(4,), s2=(2,), t2=(2,), m2=(2,), p=(4, 1, 1), q=(1,))}
    arrays |= {"v1": np.full(4, 0.5, np.float32), "v2": np.full(2, 2.0, np.float32)}
    body = """a = Conv(x, v)  d = Conv(x, w)
        e = BatchNormalization(a, s1, t1, m1, v1)  f = BatchNormalization(d, s2, t2, m2, v2)
        y = PRelu(e, p)  z = PRelu(f, q)"""
    check_rewrite(MergeSiblingConvs(), two(body, arrays=arrays), ["BatchNormalization", "Conv", "PRelu", "Split"])


def test_silu_of_two_operators_sinks() -> None:
    body = "a = Conv(x, v)  d = Conv(x, w)  p = Sigmoid(a)  q = Sigmoid(d)  y = Mul(a, p)  z = Mul(q, d)"
    check_rewrite(MergeSiblingConvs(), two(body), ["Conv", "Mul", "Sigmoid", "Split"])


def test_clips_with_equal_bounds_sink() -> None:
    arrays = {**POINT, "lo": np.float32(0), "hi": np.float32(6), "hi2": np.float32(6)}
    body = "a = Conv(x, v)  d = Conv(x, w)  y = Clip(a, lo, hi)  z = Clip(d, lo, hi2)"
    check_rewrite(MergeSiblingConvs(), two(body, arrays=arrays), ["Clip", "Conv", "Split"])


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("another bound", "y = Clip(a, lo, hi)  z = Clip(d, lo, six)"),
        ("a bound left out", "y = Clip(a, lo, hi)  z = Clip(d, lo)"),
        ("another slope", "y = LeakyRelu<alpha=0.1>(a)  z = LeakyRelu<alpha=0.2>(d)"),
        ("another operator", "y = Relu(a)  z = Sigmoid(d)"),
        ("one has none", "y = Relu(a)  z = Identity(d)"),
        ("a constant along the width", "y = Mul(a, row)  z = Mul(d, row)"),
        ("a constant that adds a dimension of its own", "y = Mul(a, per)  t = Mul(d, per2)  z = Identity(t)"),
        ("division from two sides", "y = Div(a, per)  z = Div(per2, d)"),
        ("not point-wise", "y = Softmax<axis=1>(a)  z = Softmax<axis=1>(d)"),
        ("its operand is computed", "k = ReduceMax<keepdims=1>(x)  y = Mul(a, k)  z = Mul(d, k)"),
    ],
)
def test_other_followers_stay_behind_the_split(why: str, body: str) -> None:
    arrays = {**POINT, **weights(row=(6,), per=(4, 1, 1), per2=(2, 1, 1))}
    arrays |= {"lo": np.float32(0), "hi": np.float32(1), "six": np.float32(6)}
    if "dimension of its own" in why:
        arrays["per"] = arrays["per"].reshape(4, 1, 1)
        arrays["per2"] = np.ones((2, 1, 6), np.float32)
    before = two(f"a = Conv(x, v)  d = Conv(x, w)  {body}", arrays=arrays)
    kept = [n.op_type for n in before.graph.node if n.op_type != "Conv"]
    check_rewrite(MergeSiblingConvs(), before, sorted(["Conv", "Split", *kept]))


def test_a_conv_whose_result_is_a_graph_output_keeps_its_name_and_its_relu() -> None:
    before = two(
        "y = Conv(x, v)  z = Conv(x, w)  t = Relu(y)", "(float[N,4,6,6] y, float[N,2,6,6] z, float[N,4,6,6] t)"
    )
    check_rewrite(MergeSiblingConvs(), before, ["Conv", "Relu", "Split"])


def test_results_that_a_body_reads() -> None:
    body = """a = Conv(x, v)  z = Conv(x, w)
        y = If (p) <then_branch = t () => (float[N,4,6,6] o) { o = Relu(a) },
                    else_branch = e () => (float[N,4,6,6] q) { q = Neg(a) }>"""
    check_rewrite(MergeSiblingConvs(), two(body, given=f"{INPUT}, bool p"), ["Conv", "If", "Split"])


def test_siblings_inside_a_body() -> None:
    body = """y = If (p) <then_branch = t () => (float[N,6,6,6] o) {
            a = Conv(x, v)  d = Conv(x, w)  o = Concat<axis=1>(a, d) },
        else_branch = e () => (float[N,6,6,6] q) { f = Conv(x, v)  h = Conv(x, w)  q = Concat<axis=1>(h, f) }>"""
    before = two(body, "(float[N,6,6,6] y)", f"{INPUT}, bool p")
    check_rewrite(MergeAdjacentConvs(), before, ["If"], applied=2)


def test_one_weight_shared_by_two_siblings_and_another_conv() -> None:
    body = "y = Conv(x, v)  d = Conv(x, v, k)  z = Conv(d, t)  e = Relu(x)  q = Conv(e, v)"
    arrays = {**POINT, **weights(k=(4,), t=(2, 4, 1, 1))}
    check_rewrite(
        MergeSiblingConvs(),
        two(body, "(float[N,4,6,6] y, float[N,2,6,6] z, float[N,4,6,6] q)", arrays=arrays),
        ["Conv", "Conv", "Conv", "Relu", "Split"],
    )


def test_half_precision() -> None:
    arrays = weights(np.float16, v=(4, 3, 1, 1), w=(2, 3, 1, 1), b=(2,))
    out, given = "(float16[N,4,6,6] y, float16[N,2,6,6] z)", "float16[N,3,6,6] x"
    check_rewrite(MergeSiblingConvs(), two("y = Conv(x, v)  z = Conv(x, w, b)", out, given, arrays), ["Conv", "Split"])


def test_larger_kernels_with_strides_dilations_and_uneven_pads() -> None:
    arrays = weights(v=(4, 3, 3, 2), w=(2, 3, 3, 2))
    conv = "Conv<strides=[2,1], dilations=[1,2], pads=[1,0,0,2]>"
    before = two(f"y = {conv}(x, v)  z = {conv}(x, w)", "(float[N,4,K,L] y, float[N,2,K,L] z)", arrays=arrays)
    check_rewrite(MergeSiblingConvs(), before, ["Conv", "Split"])


def test_auto_pad_equals_the_pads_that_it_means() -> None:
    arrays = weights(v=(4, 3, 3, 3), w=(2, 3, 3, 3))
    before = two('y = Conv<auto_pad="SAME_UPPER">(x, v)  z = Conv<pads=[1,1,1,1]>(x, w)', arrays=arrays)
    check_rewrite(MergeSiblingConvs(), before, ["Conv", "Split"])


def test_one_dimensional_convs() -> None:
    arrays = weights(v=(4, 3, 3), w=(2, 3, 3))
    before = two("y = Conv(x, v)  z = Conv(x, w)", "(float[N,4,6] y, float[N,2,6] z)", "float[N,3,8] x", arrays)
    check_rewrite(MergeSiblingConvs(), before, ["Conv", "Split"])


KERNELS = weights(v=(4, 3, 3, 3), w=(2, 3, 3, 3), o=(2, 3, 1, 1), g=(4, 1, 3, 3), r=(2, 3, 3, 3))


@pytest.mark.parametrize(
    ("why", "first", "second"),
    [
        ("strides", "Conv<strides=[2,2]>(x, v)", "Conv(x, w)"),
        ("dilations", "Conv<dilations=[2,2]>(x, v)", "Conv(x, w)"),
        ("pads", "Conv<pads=[1,1,1,1]>(x, v)", "Conv(x, w)"),
        ("pads at other sides", "Conv<pads=[1,1,0,0]>(x, v)", "Conv<pads=[0,0,1,1]>(x, w)"),
        ("auto_pad", 'Conv<auto_pad="SAME_UPPER">(x, v)', 'Conv<auto_pad="VALID">(x, w)'),
        (
            "odd padding at other sides",
            'Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, v)',
            'Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w)',
        ),
        ("kernel", "Conv(x, v)", "Conv(x, o)"),
        ("groups", "Conv<group=3>(x, d3)", "Conv<group=3>(x, e3)"),
        ("another tensor", "Conv(x, v)", "Conv(n, w)"),
        ("a computed weight", "Conv(x, v)", "Conv(x, wn)"),
        ("a computed bias", "Conv(x, v)", "Conv(x, w, bn)"),
        ("an overridable weight", "Conv(x, v)", "Conv(x, given)"),
    ],
)
def test_leaves_alone(why: str, first: str, second: str) -> None:
    arrays = {**KERNELS, **weights(d3=(3, 1, 3, 3), e3=(3, 1, 3, 3), given=(2, 3, 3, 3), b=(2,))}
    body = f"n = Neg(x)  wn = Neg(w)  bn = Neg(b)  y = {first}  z = {second}"
    before = two(body, "(float[N,A,H,W] y, float[N,B,K,L] z)", f"{INPUT}, float[2,3,3,3] given", arrays)
    check_untouched([MergeAdjacentConvs(), MergeSiblingConvs(), MergeEqualSiblingConvs()], before)


def test_a_weight_that_depends_on_a_sibling_is_no_sibling() -> None:
    body = "y = Conv(x, v)  k = ReduceMax<axes=[0,2,3], keepdims=0>(y)  z = Conv(x, v, k)"
    before = two(body, "(float[N,4,6,6] y, float[N,4,6,6] z)", opset=13)
    check_untouched(MergeSiblingConvs(), before, because="computed")


def test_equal_siblings_only() -> None:
    arrays = {**POINT, "v2": POINT["v"] - 1}
    body = "y = Conv(x, v)  z = Conv(x, w)  t = Conv(x, v2)"
    check_rewrite(
        MergeEqualSiblingConvs(),
        two(body, "(float[N,4,6,6] y, float[N,2,6,6] z, float[N,4,6,6] t)", arrays=arrays),
        ["Conv", "Conv", "Split"],
    )


def test_a_wide_fan_of_pairs() -> None:
    count = 300
    rng = np.random.default_rng(0)
    arrays = {
        f"w{i}": rng.standard_normal((1, 2, 1 + i // 2 % 40, 1 + i // 80)).astype(np.float32) for i in range(count)
    }
    body = "  ".join(f"y{i} = Conv(x, w{i})" for i in range(count))
    outputs = ", ".join(f"float[1,1,H{i},W{i}] y{i}" for i in range(count))
    before = two(body, f"({outputs})", "float[1,2,50,20] x", arrays)
    check_rewrite(MergeSiblingConvs(), before, ["Conv", "Split"] * (count // 2), applied=count // 2)


def test_the_pass_without_force_asks_the_cost_model_only_about_what_is_there() -> None:
    before = two("a = Conv(x, v)  d = Conv(x, w, b)  y = Concat<axis=1>(a, d)", "(float[N,6,6,6] y)")
    after, log = apply_pass(MergeSiblings(), before)
    assert [n.op_type for n in after.graph.node] == ["Conv"]
    assert [a.rule for a in log.applications] == ["merge-adjacent-convs"]
    check_numbers(before, after, exact=False)
