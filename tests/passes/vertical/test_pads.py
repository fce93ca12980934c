"""Pads that move into convs and pools, and automatic pads as numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.graph import import_model
from graphopt_passes.vertical.geometry import may_pad
from graphopt_passes.vertical.pads import (
    FoldPadIntoAveragePool,
    FoldPadIntoConv,
    FoldPadIntoConvInteger,
    FoldPadIntoMaxPool,
    MakePadsExplicit,
)
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULES = (FoldPadIntoConv(), FoldPadIntoAveragePool(), FoldPadIntoMaxPool())
WEIGHTS = {
    "w": normal(6, 4, 3, 3),
    "p": np.array([0, 0, 1, 0, 0, 0, 2, 1]),
    "batch": np.array([1, 0, 1, 0, 0, 0, 1, 0]),
    "crop": np.array([0, 0, -1, 0, 0, 0, 1, 0]),
    "wide": np.array([0, 0, 3, 0, 0, 0, 0, 0]),
    "spatial": np.array([2, 3, 2, 3]),
    "axes": np.array([-1, 2]),
    "zero": np.float32(0),
    "one": np.float32(1),
    "minus": np.float32(-10),
    "inf": np.float32(-np.inf),
}


def graph(text: str, opset: int = 17) -> ModelProto:
    full = f"g (float[2,4,8,9] x, int64[8] cp) => (float[A,B,C,D] y) {{ {text} }}"
    return model(full, used(WEIGHTS, full), opset=opset)


def test_a_pad_becomes_the_pads_of_a_conv() -> None:
    check_rewrite(
        FoldPadIntoConv(),
        graph("q = Pad(x, p) y = Conv<pads=[1,1,1,1], strides=[2,1]>(q, w)"),
        """g (float[2,4,8,9] x, int64[8] cp) => (float[A,B,C,D] y) {
             y = Conv<pads=[2,1,3,2], strides=[2,1]>(x, w) }""",
    )


@pytest.mark.parametrize(
    ("text", "opset"),
    [
        ("q = Pad<pads=[0,0,1,0,0,0,2,1]>(x) y = Conv(q, w)", 10),
        ('q = Pad<mode="constant", pads=[0,0,1,0,0,0,2,1], value=0.0>(x) y = Conv<auto_pad="VALID">(q, w)', 9),
        ("q = Pad(x, p, zero) y = Conv(q, w)", 13),
        ("q = Pad(x, spatial, zero, axes) y = Conv(q, w)", 19),
        ("q = Pad(x, p) y = AveragePool<kernel_shape=[3,3]>(q)", 17),
        ("q = Pad(x, p, zero) y = AveragePool<kernel_shape=[4,3], pads=[1,1,1,1], count_include_pad=1>(q)", 17),
        ("q = Pad(x, p, inf) y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(q)", 17),
        ("r = Relu(x) q = Pad(r, p) y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(q)", 17),
        ("r = HardSwish(x) q = Pad(r, p, minus) y = MaxPool<kernel_shape=[3,3]>(q)", 17),
    ],
)
def test_pads_of_every_opset(text: str, opset: int) -> None:
    kept = [o for o in ("Conv", "AveragePool", "MaxPool", "Relu", "HardSwish") if f"{o}(" in text or f"{o}<" in text]
    check_rewrite(RULES, graph(text, opset), kept)


def test_a_pad_of_integers() -> None:
    weights = {"w": np.arange(54).reshape(3, 2, 3, 3).astype(np.uint8), "p": WEIGHTS["p"], "z": np.uint8(0)}
    weights |= {"o": np.uint8(1)}
    text = "g (uint8[1,2,5,5] x) => (int32[A,B,C,D] y) {{ q = Pad(x, p) y = ConvInteger(q, w{}) }}"
    for zero in ("", ", z"):
        given = used(weights, text.format(zero))
        check_rewrite(FoldPadIntoConvInteger(), model(text.format(zero), given), ["ConvInteger"])
    check_untouched(
        FoldPadIntoConvInteger(), model(text.format(", o"), used(weights, text.format(", o"))), "zero point"
    )


@pytest.mark.parametrize(
    ("why", "text", "because"),
    [
        ("another value", "q = Pad(x, p, one) y = Conv(q, w)", "another value"),
        ("another value", "q = Pad(x, p, one) y = AveragePool<kernel_shape=[3,3]>(q)", "another value"),
        ("reflected", 'q = Pad<mode="reflect">(x, p) y = Conv(q, w)', "reflects"),
        ("repeated", 'q = Pad<mode="edge">(x, p) y = Conv(q, w)', "reflects"),
        ("the batch", "q = Pad(x, batch) y = Conv(q, w)", "the batch or the channels"),
        ("cropped", "q = Pad(x, crop) y = Conv(q, w)", "crops"),
        ("computed", "q = Pad(x, cp) y = Conv(q, w)", "at run time"),
        ("automatic", 'q = Pad(x, p) y = Conv<auto_pad="SAME_UPPER">(q, w)', "automatic"),
        ("read twice", "q = Pad(x, p) r = Conv<pads=[1,1,1,1]>(q, w) y = Concat<axis=1>(q, r)", "reads alone"),
        ("zeros below a swish", "r = HardSwish(x) q = Pad(r, p) y = MaxPool<kernel_shape=[3,3]>(q)", "be a maximum"),
        ("zeros below data", "q = Pad(x, p) y = MaxPool<kernel_shape=[3,3]>(q)", "may be a maximum"),
        ("wide", "q = Pad(x, wide) y = AveragePool<kernel_shape=[3,3]>(q)", "as large as the window"),
        ("wide", "q = Pad(x, wide, inf) y = MaxPool<kernel_shape=[3,3]>(q)", "as large as the window"),
        ("indices", "q = Pad(x, p, inf) y, i = MaxPool<kernel_shape=[3,3]>(q)", "indices"),
        ("dilated", "q = Pad(x, p, inf) y = MaxPool<kernel_shape=[3,3], dilations=[2,2]>(q)", "dilated"),
        ("over the end", "q = Pad(x, p) y = AveragePool<kernel_shape=[3,3], ceil_mode=1>(q)", "ceil_mode"),
        ("two ways to count", "q = Pad(x, p) y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(q)", "not its own"),
    ],
)
def test_leaves_alone(why: str, text: str, because: str) -> None:
    check_untouched(RULES, graph(text), because)


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_automatic_pads_become_numbers(data: st.DataObject) -> None:
    auto = data.draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
    kernel = [data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))]
    # the runtime's pools fail where a stride is larger than the kernel
    strides = [data.draw(st.integers(1, k)) for k in kernel]
    height, width = data.draw(st.integers(4, 9)), data.draw(st.integers(4, 9))
    op = data.draw(st.sampled_from(["Conv", "MaxPool", "AveragePool"]))
    weights = {"w": normal(3, 2, *kernel)} if op == "Conv" else {}
    text = f"""g (float[1,2,{height},{width}] x) => (float[A,B,C,D] y) {{
                 y = {op}<auto_pad="{auto}", strides={strides}, kernel_shape={kernel}>(x{", w" * len(weights)}) }}"""
    before = model(text, weights)
    result, log = apply(MakePadsExplicit(), before)
    assert len(log.applications) == 1
    assert all(a.name != "auto_pad" for a in result.graph.node[0].attribute)
    check_numbers(before, result, exact=op != "Conv")


def test_automatic_pads_of_a_dynamic_input_stay() -> None:
    text = 'g (float[1,4,h,8] x) => (float[A,B,C,D] y) { y = Conv<auto_pad="SAME_UPPER">(x, w) }'
    check_untouched(MakePadsExplicit(), model(text, {"w": WEIGHTS["w"]}), "not static")


@given(data=st.data())
@settings(max_examples=40, derandomize=True, deadline=None)
def test_where_a_pad_folds_the_numbers_are_equal(data: st.DataObject) -> None:
    front = [data.draw(st.sampled_from([0, 0, 0, 1, -1])), 0, *(data.draw(st.integers(-1, 3)) for _ in "hw")]
    weights = {
        "w": normal(6, 4, 3, 3),
        "p": np.array([*front, *front]),
        "v": np.float32(data.draw(st.sampled_from([0.0, 1.0, -np.inf]))),
    }
    window = data.draw(st.sampled_from(["kernel_shape=[3,3]", "kernel_shape=[2,3], strides=[2,2]"]))
    own = data.draw(st.sampled_from(["", ", pads=[1,1,1,1]"]))
    ceil = data.draw(st.sampled_from(["", "", ", ceil_mode=1"]))
    count = data.draw(st.sampled_from(["", ", count_include_pad=1"]))
    convs = [f"Conv<strides=[2,1]{own}>(q, w)"]
    pools = [f"MaxPool<{window}{own}{ceil}>(q)", f"AveragePool<{window}{own}{ceil}{count}>(q)"]
    step = data.draw(st.sampled_from(convs + pools))
    source = data.draw(st.sampled_from(["Relu(x)", "Neg(x)"]))
    before = model(f"g (float[3,4,8,9] x) => (float[A,B,C,D] y) {{ r = {source} q = Pad(r, p, v) y = {step} }}",
                   weights)  # fmt: skip
    result, log = apply(RULES, before)
    if log.applications:
        check_numbers(before, result, exact="Max" in step)
    else:
        assert result == before


def test_a_stride_larger_than_the_kernel_keeps_auto_pad() -> None:
    text = (
        "g (float[1,2,8,8] x) => (float[1,2,A,B] y) "
        '{ y = MaxPool<auto_pad = "SAME_UPPER", kernel_shape = [1, 1], strides = [3, 3]>(x) }'
    )
    check_untouched(MakePadsExplicit(), model(text), because="negative pads")


@pytest.mark.parametrize(("op", "opset"), [("MaxPool", 12), ("MaxPool", 22), ("AveragePool", 19)])
def test_a_dilated_pool_keeps_auto_pad(op: str, opset: int) -> None:
    """ONNX Runtime takes the pads of a pool that is not dilated, and gives another shape than the definition."""
    attributes = 'auto_pad = "SAME_UPPER", kernel_shape = [3,1], dilations'
    text = f"g (float[1,2,8,8] x) => (float[1,2,A,B] y) {{ y = {op}<{attributes} = [2,1]>(x) }}"
    check_untouched(MakePadsExplicit(), model(text, opset=opset), because="a dilated pool")
    harmless = text.replace("[2,1]", "[1,2]")
    assert apply(MakePadsExplicit(), model(harmless, opset=opset))[1].applications


def test_the_magnitude_of_the_least_integer_is_negative() -> None:
    text = "g (int8[1,1,4,4] x) => (int8[A,B,C,D] y) { r = Abs(x) q = Pad(r, p) y = MaxPool<kernel_shape=[2,2]>(q) }"
    pads = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    check_untouched(FoldPadIntoMaxPool(), model(text, pads), "may be a maximum")


def test_what_output_padding_adds_is_no_part_of_valid() -> None:
    graph = import_model(
        model(
            "g (float[1,1,4,4] x, float[1,1,1,1] w) => (float[A,B,C,D] y) "
            '{ y = ConvTranspose<auto_pad = "VALID", output_padding = [1, 1], strides = [2, 2]>(x, w) }'
        )
    )
    assert may_pad(next(iter(graph.graph.nodes)))
