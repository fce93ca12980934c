"""Two linear operators in a row."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.vertical import FuseVertical
from graphopt_passes.vertical.compose import ComposeConvs, ComposeProducts
from tests.passes.vertical.weights import normal, statistics, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULES = (ComposeConvs(), ComposeProducts())
WEIGHTS = {
    "p": normal(6, 4, 1, 1),
    "pb": normal(6),
    "w": normal(5, 6, 3, 3),
    "wb": normal(5),
    "k": normal(8, 4, 3, 3),
    "kb": normal(8),
    "q": normal(3, 8, 1, 1),
    "qb": normal(3),
    "narrow": normal(1, 4, 1, 1),
    "wide": normal(9, 1, 3, 3),
    "s1": normal(8, 4, 1, 1),
    "s2": normal(6, 8, 1, 1),
    "grouped": normal(6, 3, 3, 3),
    "mw": normal(9, 12),
    "mb": normal(12),
    "n": normal(12, 7),
    "nt": normal(7, 12),
    "nb": normal(7),
    "thin": normal(9, 1),
    "fat": normal(1, 30),
}


def graph(text: str, inputs: str = "float[2,4,9,9] x", dims: str = "A,B,C,D") -> ModelProto:
    text = f"graph ({inputs}) => (float[{dims}] y) {{ {text} }}"
    return model(text, used(WEIGHTS, text))


def test_a_pointwise_conv_before_another_conv() -> None:
    check_rewrite(
        RULES,
        graph("c = Conv<pads=[1,1,1,1]>(x, p, pb) y = Conv<strides=[2,2]>(c, w, wb)"),
        """graph (float[2,4,9,9] x) => (float[A,B,C,D] y) {
             y = Conv<strides=[2,2], pads=[1,1,1,1], kernel_shape=[3,3]>(x, w1, b1) }""",
    )


@pytest.mark.parametrize(
    "text",
    [
        "c = Conv(x, p) y = Conv<pads=[1,1,1,1]>(c, w)",
        "c = Conv<pads=[1,0,1,0]>(x, p) y = Conv<pads=[0,1,0,1], dilations=[2,1]>(c, w, wb)",
        "c = Conv(x, p, pb) y = Conv(c, w)",
        "c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, k, kb) y = Conv(c, q, qb)",
        "c = Conv<dilations=[2,2]>(x, k) y = Conv(c, q)",
        "c = Conv(x, s1) y = Conv(c, s2)",
        "c = Conv<pads=[1,1,1,1]>(x, s1) y = Conv(c, s2)",
    ],
)
def test_convs(text: str) -> None:
    check_rewrite(RULES, graph(text), ["Conv"])


@pytest.mark.parametrize(
    ("text", "operators"),
    [
        ("c = MatMul(x, mw) y = MatMul(c, n)", ["MatMul"]),
        ("c = MatMul(x, mw) d = MatMul(c, n) y = Add(d, nb)", ["Add", "MatMul"]),
        ("c = MatMul(x, mw) e = Add(c, mb) d = MatMul(e, n) y = Add(nb, d)", ["Add", "MatMul"]),
    ],
)
def test_batched_products(text: str, operators: list[str]) -> None:
    check_rewrite(RULES, graph(text, "float[2,5,9] x", "A,B,C"), operators)


@pytest.mark.parametrize(
    "text",
    [
        "c = Gemm<alpha=0.5>(x, mw, mb) y = Gemm<transB=1, beta=2.0>(c, nt, nb)",
        "c = Gemm(x, mw, mb) y = Gemm(c, n)",
        "c = MatMul(x, mw) y = Gemm<alpha=0.25>(c, n, nb)",
    ],
)
def test_two_dimensional_products(text: str) -> None:
    check_rewrite(RULES, graph(text, "float[5,9] x", "A,B"), ["Gemm"])


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("the bias meets pads", "c = Conv(x, p, pb) y = Conv<pads=[1,1,1,1]>(c, w)", "cross"),
        ("two kernels", "c = Conv(x, k) y = Conv(c, k8)", "neither kernel"),
        ("a pointwise stride", "c = Conv<strides=[2,2]>(x, p) y = Conv(c, w)", "neither kernel"),
        ("pads behind", "c = Conv(x, k) y = Conv<pads=[1,1,1,1]>(c, q)", "neither kernel"),
        ("a bottleneck", "c = Conv(x, narrow) y = Conv(c, wide)", "larger than they are together"),
        ("grouped", "c = Conv(x, p) y = Conv<group=2>(c, grouped)", "grouped"),
        ("automatic pads", 'c = Conv(x, p) y = Conv<auto_pad="SAME_UPPER">(c, w)', "automatic"),
        ("a rectifier", "c = Conv(x, p) r = Relu(c) y = Conv(r, w)", "reads alone"),
        ("a second reader", "c = Conv(x, p) r = ReduceMax(c) d = Conv(c, w) y = Add(d, r)", "reads alone"),
        ("computed weights", "u = Neg(p) c = Conv(x, u) y = Conv(c, w)", "constant weights"),
    ],
)
def test_leaves_convs_alone(why: str, text: str, because: str) -> None:
    text = f"graph (float[2,4,9,9] x) => (float[A,B,C,D] y) {{ {text} }}"
    check_untouched(RULES, model(text, used({**WEIGHTS, "k8": normal(8, 8, 3, 3)}, text)), because)


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("c = MatMul(x, thin) y = MatMul(c, fat)", "larger than they are together"),
        ("c = MatMul(x, mw) e = Add(c, mb) y = MatMul(e, n)", "no bias"),
        ("c = MatMul(x, mw) r = Relu(c) y = MatMul(r, n)", "reads alone"),
    ],
)
def test_leaves_products_alone(text: str, because: str) -> None:
    check_untouched(RULES, graph(text, "float[2,5,9] x", "A,B,C"), because)


@pytest.mark.parametrize("text", ["c = Gemm<transA=1>(x, a) y = Gemm(c, b)", "c = Gemm(x, a) y = Gemm<transA=1>(c, b)"])
def test_products_of_transposed_data_stay(text: str) -> None:
    text = f"g (float[5,5] x) => (float[A,B] y) {{ {text} }}"
    check_untouched(RULES, model(text, used({"a": normal(5, 5), "b": normal(5, 5, seed=1)}, text)), "constant matrix")


def test_a_diverse_branch_block_becomes_one_conv() -> None:
    weights = {
        "w": normal(6, 6, 3, 3),
        "p": normal(6, 6, 1, 1),
        "w2": normal(6, 6, 3, 3, seed=1),
        "o": normal(6, 6, 1, 1, seed=2),
        **statistics(6),
    }
    text = """graph (float[2,6,9,9] x) => (float[A,B,C,D] y) {
                c1 = Conv<pads=[1,1,1,1]>(x, w) n1 = BatchNormalization(c1, g, b, m, v)
                c2 = Conv(x, p) n2 = BatchNormalization(c2, g, b, m, v)
                c3 = Conv<pads=[1,1,1,1]>(x, o) n3 = BatchNormalization(c3, g, b, m, v)
                c4 = Conv(n3, w2) n4 = BatchNormalization(c4, g, b, m, v)
                a5 = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)
                t1 = Add(n1, n2) t2 = Add(t1, n4) t3 = Add(t2, a5) y = Relu(t3) }"""
    before = model(text, used(weights, text))
    result, _ = apply(FuseVertical.rules, before)
    assert [n.op_type for n in result.graph.node] == ["Conv", "Relu"]
    check_numbers(before, result, exact=False)


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    def attributes(kernel: int) -> str:
        pad = data.draw(st.sampled_from([0, 0, 1]))
        stride = data.draw(st.sampled_from([1, 1, 2]))
        dilation = data.draw(st.sampled_from([1, 1, 2]))
        steps = f"strides=[{stride},1], dilations=[{dilation},1]"
        return f"<pads=[{pad},0,{pad},0], {steps}, kernel_shape=[{kernel},{kernel}]>"

    middle, outputs = data.draw(st.sampled_from([1, 3, 8])), data.draw(st.sampled_from([2, 6]))
    one, two = data.draw(st.sampled_from([(1, 1), (1, 3), (3, 1), (3, 3)]))
    weights = {"w": normal(middle, 4, one, one), "v": normal(outputs, middle, two, two)}
    weights |= {"a": normal(middle), "b": normal(outputs)}
    first, second = data.draw(st.sampled_from(["", ", a"])), data.draw(st.sampled_from(["", ", b"]))
    text = f"""graph (float[2,4,9,9] x) => (float[A,B,C,D] y) {{
                 c = Conv{attributes(one)}(x, w{first}) y = Conv{attributes(two)}(c, v{second}) }}"""
    before = model(text, used(weights, text))
    result, log = apply(RULES, before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before
