"""Affine operators before Conv, ConvTranspose, Gemm and MatMul."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt_passes.vertical.fold_before import FoldAffineBeforeConv, FoldAffineBeforeMatmul
from tests.passes.vertical.weights import normal, statistics, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULES = (FoldAffineBeforeConv(), FoldAffineBeforeMatmul())


def test_batch_norm_moves_into_the_conv_behind_it() -> None:
    text = """g (float[2,4,8,8] x) => (float[N,C,H,W] y) {
                n = BatchNormalization(x, g, b, m, v) y = Conv<strides=[2,2]>(n, w, wb) }"""
    check_rewrite(
        FoldAffineBeforeConv(),
        model(text, {"w": normal(6, 4, 3, 3), "wb": normal(6), **statistics(4)}),
        "g (float[2,4,8,8] x) => (float[N,C,H,W] y) { y = Conv<strides=[2,2]>(x, w1, b1) }",
    )


@pytest.mark.parametrize(
    ("conv", "weight"),
    [
        ("Conv<group=2>", (6, 2, 3, 3)),
        ("Conv<group=4>", (8, 1, 3, 3)),
        ('Conv<auto_pad="VALID", dilations=[2,1]>', (6, 4, 3, 3)),
        ("Conv<pads=[0,0,0,0]>", (6, 4, 1, 1)),
        ("ConvTranspose", (4, 6, 1, 1)),
        ("ConvTranspose<group=2>", (4, 3, 1, 1)),
    ],
)
@pytest.mark.parametrize("bias", ["", ", wb"])
def test_scales_and_shifts(conv: str, weight: tuple[int, ...], bias: str) -> None:
    text = f"""g (float[2,4,8,8] x) => (float[N,C,H,W] y) {{
                 k = Mul(x, s) l = Sub(t, k) n = BatchNormalization(l, g, b, m, v) y = {conv}(n, w{bias}) }}"""
    outputs = weight[0] if conv.startswith("Conv<") else weight[1] * (2 if "group=2" in conv else 1)
    weights = {"w": normal(*weight), "wb": normal(outputs), "s": normal(4, 1, 1), "t": np.float32(3), **statistics(4)}
    check_rewrite(RULES, model(text, used(weights, text)), [conv.partition("<")[0]], applied=3)


@pytest.mark.parametrize(
    ("conv", "weight"),
    [
        ("Conv<pads=[1,1,1,1]>", (6, 4, 3, 3)),
        ('Conv<auto_pad="SAME_UPPER">', (6, 4, 3, 3)),
        ("ConvTranspose<pads=[1,1,1,1], strides=[2,2], output_padding=[1,1]>", (4, 6, 3, 3)),
        ("ConvTranspose<group=2>", (4, 3, 3, 3)),
    ],
)
def test_a_scale_crosses_padding(conv: str, weight: tuple[int, ...]) -> None:
    text = f"g (float[2,4,8,8] x) => (float[N,C,H,W] y) {{ k = Div(x, s) y = {conv}(k, w) }}"
    check_rewrite(RULES, model(text, {"w": normal(*weight), "s": normal(4, 1, 1)}), [conv.partition("<")[0]])


@pytest.mark.parametrize(
    "product",
    ["Gemm(n, w)", "Gemm<alpha=0.5, beta=2.0>(n, w, wb)", "Gemm<transB=1>(n, wt, wb)"],
)
def test_before_a_gemm(product: str) -> None:
    text = f"""g (float[3,5] x) => (float[N,C] y) {{
                 k = Mul(x, s) l = Add(k, s) n = BatchNormalization(l, g, b, m, v) y = {product} }}"""
    weights = {"w": normal(5, 6), "wt": normal(6, 5), "wb": normal(6), "s": normal(5), **statistics(5)}
    check_rewrite(RULES, model(text, used(weights, text)), ["Gemm"], applied=3)


@pytest.mark.parametrize("product", ["Gemm<transA=1>(l, w)", "Gemm<transA=1, transB=1, alpha=0.5>(l, wt, wb)"])
def test_before_a_gemm_of_transposed_data(product: str) -> None:
    text = f"g (float[5,3] x) => (float[N,C] y) {{ k = Div(x, s) l = Sub(s, k) y = {product} }}"
    weights = {"w": normal(5, 6), "wt": normal(6, 5), "wb": normal(6), "s": normal(5, 1)}
    check_rewrite(RULES, model(text, used(weights, text)), ["Gemm"], applied=2)


@pytest.mark.parametrize(
    ("text", "weight", "operators", "applied"),
    [
        ("k = Mul(x, s) y = MatMul(k, w)", (5, 6), ["MatMul"], 1),
        ("k = Mul(x, s) l = Add(s, k) p = MatMul(l, w) y = Add(p, t)", (5, 6), ["Add", "MatMul"], 2),
        ("k = Sub(x, u) p = MatMul(w, k) y = Add(p, r)", (6, 3), ["Add", "MatMul"], 1),
    ],
)
def test_before_a_matmul(text: str, weight: tuple[int, ...], operators: list[str], applied: int) -> None:
    text = f"g (float[2,3,5] x) => (float[A,B,C] y) {{ {text} }}"
    weights = {"w": normal(*weight), "s": normal(5), "t": normal(6), "u": normal(3, 1), "r": normal(6, 1)}
    check_rewrite(RULES, model(text, used(weights, text)), operators, applied=applied)


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("a shift before padding", "k = Add(x, s) y = Conv<pads=[1,1,1,1]>(k, w)", "zero padding"),
        ("a shift before automatic padding", 'k = Add(x, s) y = Conv<auto_pad="SAME_LOWER">(k, w)', "zero padding"),
        (
            "statistics before padding",
            "k = BatchNormalization(x, g, b, m, v) y = Conv<pads=[0,0,1,0]>(k, w)",
            "zero padding",
        ),
        ("a shift before a ConvTranspose", "k = Add(x, s) y = ConvTranspose(k, w)", "from position to position"),
        ("a second consumer", "k = Mul(x, s) z = Conv<pads=[1,1,1,1]>(k, w) q = Relu(k) y = Add(z, q)", "reads alone"),
        ("the channel of one grows", "k = Mul(thin, s) y = Conv(k, w)", "may enlarge"),
        ("the rank grows", "k = Mul(flat, s4) y = Conv(k, w)", "may enlarge"),
        ("a number a column", "k = Mul(x, col) y = Conv(k, w)", "one number a channel"),
        ("computed weights", "q = Relu(w) k = Mul(x, s) y = Conv(k, q)", "not constant"),
        ("constant by data", "k = Div(s, x) y = Conv(k, w)", "divides a constant"),
        ("a MatMul without a bias", "k = Add(x, col) y = MatMul(k, mm)", "no bias"),
        ("a batched weight", "k = Add(x, col) p = MatMul(k, bmm) y = Add(p, col)", "batch dimensions"),
        ("transA", "f = Flatten(x) k = Mul(f, col) y = Gemm<transA=1>(k, rows)", "one number a channel"),
    ],
)
def test_leaves_alone(why: str, text: str, because: str) -> None:
    weights = {
        "w": normal(4, 4, 3, 3),
        "s": normal(4, 1, 1),
        "s4": normal(1, 4, 1, 1),
        "col": normal(8),
        "mm": normal(8, 8),
        "bmm": normal(4, 8, 8),
        "rows": normal(1, 3),
        **statistics(4),
    }
    if "Flatten" in text:
        weights["col"] = normal(256)
    rank = "A,B" if "Gemm" in text else "A,B,C,D"
    proto = model(
        f"g (float[1,4,8,8] x, float[1,1,8,8] thin, float[8,8] flat) => (float[{rank}] y) {{ {text} }}",
        used(weights, text),
    )
    check_untouched(RULES, proto, because)


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(["Conv", "ConvTranspose"]))
    group = data.draw(st.sampled_from([1, 2, 4]))
    kernel = data.draw(st.sampled_from([(1, 1), (3, 3), (1, 2)]))
    strides = data.draw(st.sampled_from([(1, 1), (2, 1)]))
    pads = data.draw(st.sampled_from([(0, 0, 0, 0), (1, 0, 0, 1), (0, 0, 0, 0)]))
    affine = data.draw(st.sampled_from(["Mul(x, s)", "Add(s, x)", "Sub(s, x)", "BatchNormalization(x, g, b, m, v)"]))
    shape = data.draw(st.sampled_from([(), (1,), (4, 1, 1), (1, 4, 1, 1), (4,), (1, 4, 1)]))
    bias = data.draw(st.sampled_from(["", ", wb"]))
    text = f"""g (float[2,4,4,4] x) => (float[A,B,C,D] y) {{
                 k = {affine}
                 y = {op}<group={group}, strides={list(strides)}, pads={list(pads)}>(k, w{bias}) }}"""
    weights = {"w": normal(4, 4 // group, *kernel), "wb": normal(4), "s": normal(*shape), **statistics(4)}
    before = model(text, used(weights, text))
    result, log = apply(RULES, before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before
    per_channel = shape in [(), (1,), (4, 1, 1), (1, 4, 1, 1)] or "Batch" in affine
    crosses = affine == "Mul(x, s)" or (not any(pads) and (op == "Conv" or (kernel == (1, 1) and strides == (1, 1))))
    assert bool(log.applications) == (per_channel and crosses)
