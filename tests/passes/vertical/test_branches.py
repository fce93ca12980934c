"""Parallel convolutions that meet in an Add."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt_passes.vertical import FuseVertical
from graphopt_passes.vertical.branches import EnlargeParallelConvs, MergeParallelConvs
from tests.passes.vertical.weights import normal, statistics, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULE = MergeParallelConvs()
WEIGHTS = {
    "w3": normal(6, 6, 3, 3),
    "w1": normal(6, 6, 1, 1),
    "w5": normal(6, 6, 5, 5),
    "w13": normal(6, 6, 1, 3),
    "w31": normal(6, 6, 3, 1),
    "d3": normal(6, 1, 3, 3),
    "d1": normal(6, 1, 1, 1),
    "g3": normal(6, 3, 3, 3),
    "n3": normal(5, 6, 3, 3),
    "b3": normal(6),
    "b1": normal(6, seed=1),
    "s": normal(6, 1, 1),
    "ow": normal(6, 6, 3, 3),
    **statistics(6),
}


def graph(text: str, inputs: str = "float[2,6,9,9] x, float[2,6,9,9] r", dims: str = "A,B,C,D") -> onnx.ModelProto:
    full = f"g ({inputs}) => (float[{dims}] y) {{ {text} }}"
    return model(full, used(WEIGHTS, full))


def test_a_repvgg_block_becomes_one_conv() -> None:
    check_rewrite(
        RULE,
        graph(
            """c = Conv<pads=[1,1,1,1]>(x, w3, b3) d = Conv(x, w1, b1) n = BatchNormalization(x, g, b, m, v)
               s1 = Add(c, d) y = Add(s1, n)"""
        ),
        """g (float[2,6,9,9] x, float[2,6,9,9] r) => (float[A,B,C,D] y) {
             y = Conv<pads=[1,1,1,1], kernel_shape=[3,3], dilations=[1,1], group=1>(x, w, b) }""",
    )


@pytest.mark.parametrize(
    ("why", "text", "operators"),
    [
        ("stride 2", "c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w3) d = Conv<strides=[2,2]>(x, w1) y = Add(d, c)", []),
        ("the tensor itself", "c = Conv<pads=[1,1,1,1]>(x, w3, b3) y = Add(x, c)", []),
        ("the tensor twice", "c = Conv<pads=[1,1,1,1]>(x, w3, b3) t = Add(x, x) y = Add(t, c)", []),
        ("asymmetric", "c = Conv<pads=[0,1,2,1]>(x, w3) d = Conv<pads=[1,1,1,1]>(x, w3) y = Add(c, d)", []),
        ("ACNet", "c = Conv<pads=[1,1,1,1]>(x, w3) d = Conv<pads=[0,1,0,1]>(x, w13) "
         "e = Conv<pads=[1,0,1,0]>(x, w31) f = Add(d, e) y = Add(c, f)", []),
        ("depthwise", "c = Conv<pads=[1,1,1,1], group=6>(x, d3) d = Conv<group=6>(x, d1) e = Add(c, d) y = Add(e, x)",
         []),
        ("grouped beside dense", "c = Conv<pads=[1,1,1,1], group=2>(x, g3) d = Conv<pads=[1,1,1,1]>(x, w3) "
         "e = Conv<group=6>(x, d1) f = Add(c, e) y = Add(f, d)", []),
        ("dilated", "c = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w3) d = Conv(x, w1) y = Add(c, d)", []),
        ("dilated, the small one off centre",
         "c = Conv<pads=[4,2,0,2], dilations=[2,2]>(x, w3) d = Conv(x, w1) y = Add(c, d)", []),
        ("an average", "c = Conv<pads=[1,1,1,1]>(x, w3) "
         "p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x) y = Add(c, p)", []),
        ("a scale", "c = Conv<pads=[1,1,1,1]>(x, w3) p = Mul(x, s) y = Add(c, p)", []),
        ("another term stays", "c = Conv<pads=[1,1,1,1]>(x, w3) d = Conv(x, w1) e = Add(c, r) y = Add(e, d)", ["Add"]),
    ],
)  # fmt: skip
def test_branches(why: str, text: str, operators: list[str]) -> None:
    check_rewrite(RULE, graph(text), ["Conv", *operators])


def test_larger_kernels_are_a_trade() -> None:
    text = "d = Conv<pads=[0,1,0,1]>(x, w13) e = Conv<pads=[1,0,1,0]>(x, w31) y = Add(d, e)"
    assert EnlargeParallelConvs.trades
    check_untouched(RULE, graph(text), "larger than the branches'")
    check_rewrite(EnlargeParallelConvs(), graph(text), ["Conv"])


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("another tensor", "c = Conv<pads=[1,1,1,1]>(x, w3) d = Conv(r, w1) y = Add(c, d)"),
        ("other strides, equal sizes", "c = Conv<pads=[1,1,1,1], strides=[8,8]>(x, w3) "
         "d = Conv<strides=[7,7]>(x, w1) y = Add(c, d)"),
        ("sizes equal by rounding", "c = Conv<strides=[2,2], pads=[1,1,0,0]>(x, w3) "
         "d = Conv<strides=[2,2], pads=[0,0,0,0]>(x, w3) q = Abs(d) y = Add(c, d)"),
        ("broadcast by a row", "c = Conv<pads=[1,1,1,1]>(x, w3) d = Conv<kernel_shape=[5,5]>(t, w5) y = Add(c, d)"),
        ("two dilations", "c = Conv<pads=[1,1,1,1]>(x, w3) d = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w3) "
         "y = Add(c, d)"),
        ("off the grid of the dilation", "c = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, w3) "
         "d = Conv<pads=[1,1,0,0]>(x, w1) e = Slice(d, one, ten, axes) y = Add(c, e)"),
        ("a second consumer", "c = Conv<pads=[1,1,1,1]>(x, w3) d = Conv(x, w1) z = Relu(c) s1 = Add(c, d) "
         "y = Add(z, s1)"),
        ("computed weights", "q = Relu(w) c = Conv<pads=[1,1,1,1]>(x, q) d = Conv(x, w1) y = Add(c, d)"),
        ("automatic pads", 'c = Conv<auto_pad="SAME_UPPER">(x, w3) d = Conv(x, w1) y = Add(c, d)'),
        ("an average of what is there", "c = Conv<pads=[1,1,1,1]>(x, w3) "
         "p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x) y = Add(c, p)"),
        ("a computed scale", "c = Conv<pads=[1,1,1,1]>(x, w3) p = Mul(x, r) y = Add(c, p)"),
        ("a rectifier", "c = Conv<pads=[1,1,1,1]>(x, w3) d = Conv(x, w1) e = Relu(d) y = Add(c, e)"),
        ("a maximum", "c = Conv<pads=[1,1,1,1]>(x, w3) d = Conv(x, w1) y = Max(c, d)"),
        ("training", "c = Conv<pads=[1,1,1,1]>(x, w3) "
         "n, o1, o2 = BatchNormalization<training_mode=1>(x, g, b, m, v) y = Add(c, n)"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, text: str) -> None:
    inputs = "float[2,6,9,9] x, float[2,6,9,9] r, float[2,6,5,5] t, float[6,6,3,3] w"
    full = f"g ({inputs}) => (float[A,B,C,D] y) {{ {text} }}"
    weights = {**WEIGHTS, "one": np.array([1, 1]), "ten": np.array([10, 10]), "axes": np.array([2, 3])}
    check_untouched((RULE, EnlargeParallelConvs()), model(full, used(weights, full)))


@pytest.mark.parametrize("other", ["Conv(x, w1, down)", "BatchNormalization(x, g, down, m, v)"])
def test_biases_that_round_between_them_are_not_summed(other: str) -> None:
    """(W·x + c) + (V·x − c) with c = 1.5 · 2²³ rounds both to integers."""
    large = np.full(6, 1.5 * 2**23, np.float32)
    full = f"g (float[2,6,9,9] x) => (float[A,B,C,D] y) {{ c = Conv(x, w1, up) d = {other} y = Add(c, d) }}"
    check_untouched(RULE, model(full, used({**WEIGHTS, "up": large, "down": -large}, full)), "so large that")


def test_different_channels_broadcast_and_stay() -> None:
    weights = {"w": normal(6, 6, 1, 1), "one": normal(1, 6, 1, 1)}
    text = "g (float[2,6,9,9] x) => (float[A,B,C,D] y) { c = Conv(x, w) d = Conv(x, one) y = Add(c, d) }"
    check_untouched(RULE, model(text, weights))
    narrow = "g (float[2,1,9,9] x) => (float[A,B,C,D] y) { c = Conv(x, v) y = Add(c, x) }"
    check_untouched(RULE, model(narrow, {"v": normal(6, 1, 1, 1)}))


def test_large_shared_weights_are_not_stored_twice() -> None:
    text = """g (float[1,200,5,5] x, float[1,200,5,5] r) => (float[A,B,C,D] y) {
                c = Conv<pads=[1,1,1,1]>(x, w) d = Conv<pads=[1,1,1,1]>(r, w) e = Add(c, x) y = Mul(d, e) }"""
    check_untouched(RULE, model(text, {"w": normal(200, 200, 3, 3)}), "shared")


def test_one_dimension_and_three() -> None:
    for dims, kernel in (("9", (3,)), ("5,5,5", (3, 1, 3))):
        pads = [k // 2 for k in kernel] * 2
        ones = [1] * len(kernel)
        text = f"""g (float[2,4,{dims}] x) => (float[A,B,{",".join("CDE"[: len(kernel)])}] y) {{
                     c = Conv<pads={pads}>(x, w) d = Conv(x, p) y = Add(c, d) }}"""
        check_rewrite(RULE, model(text, {"w": normal(4, 4, *kernel), "p": normal(4, 4, *ones)}), ["Conv"])


def test_a_mobileone_block_becomes_one_conv() -> None:
    text = """c1 = Conv<pads=[1,1,1,1], group=6>(x, d3) m1 = BatchNormalization(c1, g, b, m, v)
              c2 = Conv<pads=[1,1,1,1], group=6>(x, d3) m2 = BatchNormalization(c2, g, b, m, v)
              c3 = Conv<group=6>(x, d1) m3 = BatchNormalization(c3, g, b, m, v)
              m4 = BatchNormalization(x, g, b, m, v)
              t1 = Add(m3, m4) t2 = Add(t1, m1) t3 = Add(t2, m2) y = Relu(t3)"""
    before = graph(text)
    result, _ = apply(FuseVertical.rules, before)
    assert [n.op_type for n in result.graph.node] == ["Conv", "Relu"]
    check_numbers(before, result, exact=False)


def test_in_float16_the_sum_is_rounded_once() -> None:
    text = """g (float16[1,6,5,5] x) => (float16[A,B,C,D] y) {
                c = Conv<pads=[1,1,1,1]>(x, w3) n1 = Mul(c, s) d = Conv(x, w1) n2 = Mul(d, s) y = Add(n1, n2) }"""
    weights = {k: v.astype(np.float16) for k, v in used(WEIGHTS, text).items()}
    result, _ = apply(FuseVertical.rules, model(text, weights))
    (conv,) = result.graph.node
    merged = {t.name: onnx.numpy_helper.to_array(t) for t in result.graph.initializer}[conv.input[1]]
    scale = weights["s"].astype(np.float64)[..., None]
    exact = weights["w3"].astype(np.float64) * scale
    exact[:, :, 1:2, 1:2] += weights["w1"].astype(np.float64) * scale
    np.testing.assert_array_equal(merged, exact.astype(np.float16))


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    strides = data.draw(st.sampled_from([[1, 1], [2, 2], [2, 1]]))
    lines, terms = [], []
    for i in range(data.draw(st.integers(2, 4))):
        name = data.draw(st.sampled_from(["w3", "w1", "w13", "w31", "d3", "d1", "g3", "x"]))
        if name == "x" and strides == [1, 1]:
            terms.append("x")
            continue
        weight = WEIGHTS["w3" if name == "x" else name]
        shape, dilation = weight.shape, data.draw(st.sampled_from([1, 1, 2]))
        same = [dilation * (k // 2) for k in shape[2:]]
        shift = data.draw(st.sampled_from([0, 0, 1]))
        pads = [same[0] + shift, same[1], max(same[0] - shift, 0), same[1]]
        if same[0] - shift < 0:
            pads[0] = same[0]
        group = 6 // shape[1]
        lines.append(
            f"c{i} = Conv<pads={pads}, strides={strides}, dilations={[dilation] * 2}, group={group}>"
            f"(x, {'w3' if name == 'x' else name})"
        )
        terms.append(f"c{i}")
    total = terms[0]
    for i, term in enumerate(terms[1:]):
        lines.append(f"t{i} = Add({total}, {term})")
        total = f"t{i}"
    before = graph("\n".join([*lines, f"y = Abs({total})"]))
    result, log = apply((RULE, EnlargeParallelConvs()), before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before
