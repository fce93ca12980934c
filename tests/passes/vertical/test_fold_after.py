"""Affine operators behind Conv, ConvTranspose, Gemm and MatMul."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.rule import Rule
from graphopt_passes.vertical import FuseVertical
from graphopt_passes.vertical.fold_after import (
    FoldBatchNormIntoConv,
    FoldBatchNormIntoMatmul,
    FoldScaleIntoConv,
    FoldScaleIntoMatmul,
    FoldShiftIntoConv,
    FoldShiftIntoMatmul,
)
from tests.passes.vertical.weights import normal, statistics, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

CONV_RULES = (FoldBatchNormIntoConv(), FoldScaleIntoConv(), FoldShiftIntoConv())
MATMUL_RULES = (FoldBatchNormIntoMatmul(), FoldScaleIntoMatmul(), FoldShiftIntoMatmul())
ALL_RULES = (*CONV_RULES, *MATMUL_RULES)


CONV = {"w": normal(6, 4, 3, 3), "wb": normal(6)}


def test_batch_norm_moves_into_the_weights() -> None:
    check_rewrite(
        FoldBatchNormIntoConv(),
        model(
            """g (float[2,4,8,8] x) => (float[N,C,H,W] y) {
                 c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)
                 y = BatchNormalization<epsilon=0.01>(c, g, b, m, v)
               }""",
            {"w": CONV["w"], **statistics(6)},
        ),
        "g (float[2,4,8,8] x) => (float[N,C,H,W] y) { y = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1) }",
    )


@pytest.mark.parametrize(
    ("conv", "shape", "weight"),
    [
        ("Conv", "2,4,9", (6, 4, 3)),
        ("Conv<group=2>", "1,4,5,5", (6, 2, 3, 3)),
        ("Conv<group=6>", "1,6,5,5", (6, 1, 3, 3)),
        ("Conv", "1,4,4,4,4", (6, 4, 2, 3, 2)),
        ("ConvTranspose<strides=[2,2]>", "1,4,5,5", (4, 6, 3, 3)),
        ("ConvTranspose<group=2, strides=[2,2], output_padding=[1,1], pads=[1,0,1,0]>", "1,4,5,5", (4, 3, 3, 3)),
        ("ConvTranspose", "1,4,5", (4, 6, 3)),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_every_kind_of_conv(conv: str, shape: str, weight: tuple[int, ...], bias: bool) -> None:
    rank = len(weight)
    ones = [1] * (rank - 2)
    weights = {
        "w": normal(*weight),
        "wb": normal(6, seed=9),
        **statistics(6),
        "s": normal(6, *ones, seed=5),
        "t": normal(1, 6, *ones, seed=6),
        "d": np.float32(2.5),
    }
    if not bias:
        del weights["wb"]
    dims = ",".join("NCHWD"[:rank])
    check_rewrite(
        CONV_RULES,
        model(
            f"""g (float[{shape}] x) => (float[{dims}] y) {{
                  c = {conv}(x, w{", wb" if bias else ""})
                  n = BatchNormalization(c, g, b, m, v)
                  k = Mul(s, n)
                  l = Add(k, t)
                  o = Div(l, d)
                  p = Sub(o, d)
                  q = Sub(t, p)
                  y = Neg(q)
                }}""",
            weights,
        ),
        [conv.partition("<")[0]],
        applied=7,
    )


@pytest.mark.parametrize(
    ("opset", "norm"),
    [(1, "is_test=1"), (6, "is_test=1"), (7, "epsilon=0.001"), (9, ""), (14, "training_mode=0"), (15, "momentum=0.5")],
)
def test_every_version_of_batch_norm(opset: int, norm: str) -> None:
    attributes = f"<{norm}>" if norm else ""
    proto = model(
        f"""g (float[2,4,8,8] x) => (float[N,C,H,W] y) {{
              c = Conv(x, w) y = BatchNormalization{attributes}(c, g, b, m, v) }}""",
        {"w": CONV["w"], **statistics(6)},
        opset=opset,
    )
    result, log = apply(FoldBatchNormIntoConv(), proto)
    assert [n.op_type for n in result.graph.node] == ["Conv"]
    assert len(log.applications) == 1
    if opset >= 7:  # the runtime knows no older ones
        check_numbers(proto, result, exact=False)


def test_statistics_of_another_type_than_the_data() -> None:
    weights = {"w": normal(6, 4, 3, 3, dtype=np.float16), **statistics(6)}
    weights = {**weights, "g": weights["g"].astype(np.float16), "b": weights["b"].astype(np.float16)}
    before = model(
        """g (float16[1,4,8,8] x) => (float16[N,C,H,W] y) {
             c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }""",
        weights,
        opset=15,
    )
    result, _ = apply(FoldBatchNormIntoConv(), before)
    assert [n.op_type for n in result.graph.node] == ["Conv"]
    assert {t.data_type for t in result.graph.initializer} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize(
    ("linear", "operators"),
    [
        ("Gemm(x, w)", ["Gemm"]),
        ("Gemm<alpha=0.5, beta=2.0>(x, w, wb)", ["Gemm"]),
        ("Gemm<transB=1, beta=0.5>(x, wt, row)", ["Gemm"]),
        ("Gemm(x, w, one)", ["Gemm"]),
        ("Gemm<transA=1>(xt, w, wb)", ["Gemm"]),
        ("MatMul(x, w)", ["Add", "MatMul"]),
    ],
)
def test_two_dimensional_products(linear: str, operators: list[str]) -> None:
    weights = {
        "w": normal(5, 6),
        "wt": normal(6, 5),
        "wb": normal(6),
        "row": normal(1, 6),
        "one": np.float32([0.75]),
        **statistics(6),
        "s": normal(6, seed=5),
        "t": normal(1, 6, seed=6),
    }
    text = f"""g (float[3,5] x, float[5,3] xt) => (float[N,C] y) {{
                 c = {linear} n = BatchNormalization(c, g, b, m, v) k = Mul(s, n) l = Add(k, t) y = Sub(t, l) }}"""
    check_rewrite(MATMUL_RULES, model(text, used(weights, text)), operators, applied=4)


@pytest.mark.parametrize(
    ("shape", "weight", "product", "s"),
    [
        ("2,3,5", (5, 6), "MatMul(x, w)", (6,)),
        ("2,3,5", (5, 6), "MatMul(x, w)", (1, 1, 6)),
        ("2,3,5", (2, 5, 6), "MatMul(x, w)", (6,)),
        ("5", (5, 6), "MatMul(x, w)", (6,)),
        ("2,5,3", (6, 5), "MatMul(w, x)", (6, 1)),
        ("N,M,5", (5, 6), "MatMul(x, w)", ()),
    ],
)
def test_batched_products_and_their_bias(shape: str, weight: tuple[int, ...], product: str, s: tuple[int, ...]) -> None:
    dims = ",".join("ABC"[: len(shape.split(","))])
    text = f"""g (float[{shape}] x) => (float[{dims}] y) {{
                 c = {product} k = Mul(c, s) l = Add(t, k) n = Div(l, s) y = Sub(n, t) }}"""
    weights = {"w": normal(*weight), "s": normal(*s) + np.float32(2), "t": normal(*s, seed=3)}
    check_rewrite(MATMUL_RULES, model(text, weights), ["Add", "MatMul"], applied=3)


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("a second consumer", "c = Conv(x, w) z = Relu(c) y = Mul(c, s)", "reads alone"),
        ("a graph output", "z = Conv(x, w) y = Mul(z, s)", "reads alone"),
        ("a rectifier between", "c = Conv(x, w) r = Relu(c) z = Abs(x) y = Mul(r, s)", "reads alone"),
        ("one number a column, not a channel", "c = Conv(x, w) z = Abs(x) y = Add(c, col)", "one number a channel"),
        ("one number a row", "c = Conv(x, w) z = Abs(x) y = Add(c, row)", "one number a channel"),
        ("a number a position", "c = Conv(x, w) z = Abs(x) y = Add(c, all)", "one number a channel"),
        ("it enlarges the batch", "c = Conv(x, w) z = Abs(x) y = Mul(c, batch)", "one number a channel"),
        (
            "it adds a dimension",
            "c = Conv(x, w) z = Abs(x) e = Mul(c, five) y = Reshape(e, four)",
            "one number a channel",
        ),
        ("constant by data", "c = Conv(x, w) z = Abs(x) y = Div(s, c)", "divides a constant"),
        ("a computed factor", "c = Conv(x, w) z = Abs(x) q = Relu(a) y = Mul(c, q)", "constant"),
        ("an overridable factor", "c = Conv(x, w) z = Abs(x) y = Mul(c, a)", "constant"),
        ("overridable weights", "c = Conv(x, ow) z = Abs(x) y = Mul(c, s)", "constant weight"),
        ("a computed bias", "q = Relu(ob) c = Conv(x, w, q) z = Abs(x) y = Mul(c, s)", "constant weight"),
        ("the data squared", "c = Conv(x, w) z = Abs(x) y = Mul(c, c)", "reads alone"),
        ("a zero divisor", "c = Conv(x, w) z = Abs(x) y = Div(c, zero)", None),
        (
            "a computed statistic",
            "c = Conv(x, w) z = Abs(x) y = BatchNormalization(c, ob, b, m, v)",
            "computed or can be overridden",
        ),
        (
            "training outputs",
            "c = Conv(x, w) z = Abs(x) y, o1, o2 = BatchNormalization<training_mode=1>(c, g, b, m, v)",
            "the batch's own statistics",
        ),
    ],
)
def test_leaves_convs_alone(why: str, text: str, because: str | None) -> None:
    weights = {
        "w": CONV["w"],
        "s": normal(6, 1, 1),
        "col": normal(6),
        "row": normal(6, 1),
        "all": normal(1, 6, 6, 6),
        "batch": normal(2, 6, 1, 1),
        "five": normal(1, 1, 6, 1, 1),
        "four": np.array([1, 6, 6, 6]),
        "zero": np.zeros((6, 1, 1), np.float32),
        **statistics(6),
    }
    proto = model(
        f"""g (float[1,4,8,8] x, float[1,6,1,1] a, float[6,4,3,3] ow, float[6] ob)
             => (float[N,C,H,W] y, float[O,P,Q,R] z) {{ {text} }}""",
        used(weights, text),
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(1, 6, 1, 1), "a"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(CONV["w"], "ow"))
    check_untouched(ALL_RULES, proto, because)


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("c = MatMul(x, w) y = Add(c, t)", "bias already"),
        ("c = MatMul(x, w) y = BatchNormalization(c, g, b, m, v)", "another axis"),
        ("c = MatMul(x, w) y = Mul(c, rows)", "one number a channel"),
        ("c = MatMul(x, x1) y = Mul(c, t)", "constant weight"),
        ("c = MatMul(x, w) d = Add(c, rows) y = Mul(d, t)", "constant weight"),
    ],
)
def test_leaves_products_alone(text: str, because: str) -> None:
    weights = {"w": normal(6, 6), "t": normal(6), "rows": normal(6, 1), **statistics(6)}
    proto = model(f"g (float[2,6,6] x, float[2,6,6] x1) => (float[A,B,C] y) {{ {text} }}", used(weights, text))
    check_untouched(ALL_RULES, proto, because)


def test_leaves_a_gemm_with_a_bias_for_each_row_alone() -> None:
    text = "g (float[6,5] x) => (float[A,B] y) { c = Gemm(x, w, rows) y = Mul(c, t) }"
    check_untouched(
        ALL_RULES, model(text, {"w": normal(5, 6), "rows": normal(6, 1), "t": normal(6)}), "constant weight"
    )


def test_leaves_per_activation_statistics_alone() -> None:
    text = """g (float[1,4,8,8] x) => (float[N,C,H,W] y) {
                c = Conv(x, w) y = BatchNormalization<spatial=0>(c, g, b, m, v) }"""
    check_untouched(ALL_RULES, model(text, {"w": CONV["w"], **statistics(6)}, opset=7), "spatial is 0")


def test_before_opset_7_a_constant_broadcasts_from_its_axis() -> None:
    text = """g (float[1,4,8,8] x) => (float[N,C,H,W] y) {
                c = Conv(x, w) k = Mul<broadcast=1, axis=1>(c, s) y = Add<broadcast=1, axis=1>(k, s) }"""
    result, log = apply(ALL_RULES, model(text, {"w": CONV["w"], "s": normal(6)}, opset=6))
    assert len(log.applications) == 2
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in result.graph.initializer}
    conv = result.graph.node[0]
    np.testing.assert_array_equal(weights[conv.input[1]], CONV["w"] * normal(6).reshape(6, 1, 1, 1))
    np.testing.assert_array_equal(weights[conv.input[2]], normal(6))


def test_before_opset_7_a_constant_at_the_last_axis_is_left_alone() -> None:
    text = "g (float[1,4,8,8] x) => (float[N,C,H,W] y) { c = Conv(x, w) y = Mul<broadcast=1>(c, s) }"
    check_untouched(ALL_RULES, model(text, {"w": CONV["w"], "s": normal(6)}, opset=6), "one number a channel")


def test_a_shared_weight_stays_as_it_is_for_the_others() -> None:
    before = model(
        """g (float[1,4,8,8] x) => (float[A,B,C,D] y, float[E,F,G,H] z) {
             c = Conv(x, w) y = Mul(c, s) d = Conv<strides=[2,2]>(x, w) z = Relu(d) }""",
        {"w": CONV["w"], "s": normal(6, 1, 1)},
    )
    result = check_rewrite(FoldScaleIntoConv(), before, ["Conv", "Conv", "Relu"])
    assert len(result.graph.initializer) == 2


def test_a_large_shared_weight_is_not_stored_twice() -> None:
    before = model(
        """g (float[1,300,3,3] x) => (float[A,B,C,D] y, float[E,F,G,H] z) {
             c = Conv(x, w) y = Mul(c, s) z = Conv<strides=[2,2]>(x, w) }""",
        {"w": normal(300, 300, 3, 3), "s": normal(300, 1, 1)},
    )
    check_untouched(FoldScaleIntoConv(), before, "shared")


def test_a_variance_of_minus_epsilon() -> None:
    weights = {"w": CONV["w"], **statistics(6), "v": np.zeros(6, np.float32)}
    text = """g (float[1,4,8,8] x) => (float[N,C,H,W] y) {
                c = Conv(x, w) y = BatchNormalization<epsilon=0.0>(c, g, b, m, v) }"""
    check_untouched(FoldBatchNormIntoConv(), model(text, weights), "not finite")


def test_weights_in_constant_nodes() -> None:
    before = model(
        """g (float[1,1,3,3] x) => (float[N,C,H,W] y) {
             w = Constant<value = float[1,1,1,1] {2.0}>() s = Constant<value_float = 3.0>()
             c = Conv(x, w) y = Mul(c, s) }"""
    )
    check_rewrite(FoldScaleIntoConv(), before, ["Conv"])


def test_a_body_folds_into_a_weight_of_the_outer_graph() -> None:
    before = model(
        """g (float[1,4,8,8] x, bool k) => (float[N,C,H,W] y) {
             y = If(k) <then_branch = a () => (float[E,F,G,H] p) { c = Conv(x, w) p = Mul(c, s) },
                        else_branch = d () => (float[I,J,K,L] q) { q = Conv(x, w) }> }""",
        {"w": CONV["w"], "s": normal(6, 1, 1)},
    )
    result, log = apply(FoldScaleIntoConv(), before)
    assert len(log.applications) == 1
    check_numbers(before, result, exact=False)


AFFINES = ("n = BatchNormalization(c, g, b, m, v)", "n = Mul(c, s)", "n = Sub(s, c)", "n = Add(c, s)", "n = Div(c, s)")
SHAPES = [(), (1,), (6,), (6, 1), (6, 1, 1), (1, 6, 1, 1), (1, 1, 1, 6), (2, 6, 1, 1), (1, 1, 6, 1)]


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    transposed = data.draw(st.booleans())
    group = data.draw(st.sampled_from([1, 2, 3, 6]))
    shape = data.draw(st.sampled_from(SHAPES))
    kernel = data.draw(st.sampled_from([(1, 1), (3, 3), (2, 1)]))
    affine = data.draw(st.sampled_from(AFFINES))
    weights = {"w": normal(6, 6 // group, *kernel), "s": normal(*shape) + np.float32(3), **statistics(6)}
    op = "ConvTranspose" if transposed else "Conv"
    spatial = 6 + (kernel[0] - 1) * (-1 if transposed else 1), 6 + (kernel[1] - 1) * (-1 if transposed else 1)
    text = f"""g (float[2,6,{spatial[0]},{spatial[1]}] x) => (float[A,B,C,D] y) {{
                 c = {op}<group={group}>(x, w) {affine} y = Relu(n) }}"""
    before = model(text, used(weights, text))
    result, log = apply(FuseVertical.rules, before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before
    per_channel = shape in [(), (1,), (6, 1, 1), (1, 6, 1, 1)] or "Batch" in affine
    assert bool(log.applications) == per_channel


@pytest.mark.parametrize("columns", ["4", "5", "N"])
@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (FoldBatchNormIntoMatmul(), "t = MatMul(w, x) y = BatchNormalization(t, g, b, m, v)"),
        (FoldShiftIntoMatmul(), "t = MatMul(w, x) y = Sub(c, t)"),
        (FoldShiftIntoMatmul(), "t = MatMul(w, x) y = Sub(one, t)"),
    ],
)
def test_a_weight_on_the_left_gets_a_bias_for_each_row(rule: Rule[Any], text: str, columns: str) -> None:
    """The bias is [C, 1]: as [C] it would lie along the columns, unseen where there are as many."""
    full = f"g (float[2,3,{columns}] x) => (float[A,B,D] y) {{ {text} }}"
    weights = {"w": normal(4, 3), "c": normal(4, 1), "one": np.float32(1), **statistics(4)}
    check_rewrite(rule, model(full, used(weights, full)), ["Add", "MatMul"])


def test_before_opset_7_products_are_left_alone() -> None:
    text = "g (float[4,4] x) => (float[A,B] y) { t = MatMul(x, w) y = BatchNormalization<is_test=1>(t, g, b, m, v) }"
    weights = {"w": normal(4, 4), **statistics(4)}
    check_untouched(FoldBatchNormIntoMatmul(), model(text, used(weights, text), opset=6), "no Gemm")
