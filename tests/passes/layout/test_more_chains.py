"""Reductions, picks of one element, minima and maxima, floating reshapes, and transposes around products."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.layout import MOVES, SimplifyLayout
from tests.support.models import Arrays
from tests.support.rewrites import apply, apply_pass, check_numbers, check_rewrite, check_untouched
from tests.support.shapes import shaped_model

F = np.float32
RULES = {rule.name: rule for rule in SimplifyLayout.rules}


def ops(proto: ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def ints(**values: list[int]) -> Arrays:
    return {k: np.array(v, np.int64) for k, v in values.items()}


def built(body: str, kind: str = "float[2,3,4]", weights: Arrays | None = None, opset: int = 17) -> ModelProto:
    return shaped_model(f"g ({kind} x) => (float[] y) {{ {body} }}", weights, opset=opset)


@pytest.mark.parametrize(
    ("body", "weights", "opset", "expected"),
    [
        ("a = ReduceSum<keepdims=0>(x, d)\n y = Unsqueeze(a, d)", ints(d=[1]), 13, ["ReduceSum"]),
        ("a = ReduceMean<axes=[-1,1], keepdims=0>(x)\n y = Unsqueeze<axes=[1,2]>(a)", {}, 11, ["ReduceMean"]),
        ("a = ReduceMax<axes=[0]>(x)\n y = Squeeze<axes=[0]>(a)", {}, 11, ["ReduceMax"]),
        ("a = ReduceL2<axes=[1], keepdims=0>(x)\n y = Reshape(a, s)", ints(s=[2, 1, -1]), 17, ["ReduceL2"]),
        ("a = ReduceSum<keepdims=0>(x)\n y = Unsqueeze(a, d)", ints(d=[0, 1, 2]), 13, ["ReduceSum"]),
        (
            "a = ArgMax<axis=1, keepdims=0>(x)\n b = Unsqueeze(a, d)\n y = Cast<to=1>(b)",
            ints(d=[-2]),
            13,
            ["ArgMax", "Cast"],
        ),
    ],
)
def test_reduced_axes_come_back(body: str, weights: Arrays, opset: int, expected: list[str]) -> None:
    check_rewrite(RULES["reduce-then-reshape"], built(body, weights=weights, opset=opset), expected)


@pytest.mark.parametrize(
    ("why", "body", "weights"),
    [
        ("another axis", "a = ReduceSum<keepdims=0>(x, d)\n y = Unsqueeze(a, e)", ints(d=[1], e=[2])),
        ("only some", "a = ReduceSum<keepdims=0>(x, d)\n y = Unsqueeze(a, e)", ints(d=[0, 1], e=[0])),
        ("kept already", "a = ReduceSum(x, d)\n y = Unsqueeze(a, d)", ints(d=[1])),
        ("another shape", "a = ReduceSum<keepdims=0>(x, d)\n y = Reshape(a, s)", ints(d=[1], s=[1, 2, 4])),
        ("another reader", "a = ReduceSum<keepdims=0>(x, d)\n b = Unsqueeze(a, d)\n y = Add(a, b)", ints(d=[0])),
    ],
)
def test_other_axes_stay(why: str, body: str, weights: Arrays) -> None:
    kind = "float[2,2,2]" if why == "another reader" else "float[2,3,4]"
    check_untouched(RULES["reduce-then-reshape"], built(body, kind, weights))


@pytest.mark.parametrize("opset", [12, 13])
def test_a_reduction_of_ones_is_a_squeeze(opset: int) -> None:
    before = built("y = ReduceMean<axes=[1], keepdims=0>(x)", "float[N,1,4]", opset=opset)
    check_rewrite(RULES["reduction-of-ones-to-squeeze"], before, ["Squeeze"], N=3)


PICKS: list[tuple[str, Arrays, int, str, bool]] = [
    ("a = Slice(x, s, e, d)\n y = Squeeze(a, d)", ints(s=[1], e=[2], d=[0]), 17, "slice-of-one-to-gather", True),
    (
        "a = Slice(x, s, e, d)\n y = Squeeze(a, d)",
        ints(s=[-1], e=[2**63 - 1], d=[-1]),
        17,
        "slice-of-one-to-gather",
        True,
    ),
    ("a = Slice(x, s, e, d)\n y = Squeeze(a, d)", ints(s=[-2], e=[-1], d=[1]), 17, "slice-of-one-to-gather", True),
    (
        "a = Slice<starts=[-1], ends=[9], axes=[1]>(x)\n y = Squeeze<axes=[1]>(a)",
        {},
        9,
        "slice-of-one-to-gather",
        False,
    ),
    ("a = Slice<starts=[2], ends=[3], axes=[1]>(x)\n y = Squeeze<axes=[1]>(a)", {}, 9, "slice-of-one-to-gather", True),
    (
        "a = Slice(x, s, e, d)\n b = Slice(a, s, s, d)\n y = Concat<axis=0>(a, b)",
        ints(s=[0], e=[1], d=[0]),
        17,
        "slice-of-one-to-gather",
        False,
    ),
    (
        "a = Slice(x, s, e, d)\n y = Squeeze(a, f)",
        ints(s=[0], e=[1], d=[1], f=[0]),
        17,
        "slice-of-one-to-gather",
        False,
    ),
    ("a = Slice(x, s, e, d)\n y = Squeeze(a, d)", ints(s=[0], e=[9], d=[0]), 17, "slice-of-one-to-gather", False),
    ("a = Gather<axis=1>(x, i)\n y = Squeeze(a, d)", ints(i=[-1], d=[1]), 17, "gather-of-one-then-squeeze", True),
    ("a = Gather<axis=1>(x, i)\n y = Squeeze(a, d)", ints(i=[0], d=[0]), 17, "gather-of-one-then-squeeze", False),
    (
        "a = Gather<axis=-1>(x, i)\n y = Unsqueeze(a, d)",
        {"i": np.array(2), "d": np.array([2])},
        17,
        "gather-of-one-then-unsqueeze",
        True,
    ),
    (
        "a = Gather<axis=0>(x, i)\n y = Unsqueeze(a, d)",
        {"i": np.array(0), "d": np.array([1])},
        17,
        "gather-of-one-then-unsqueeze",
        False,
    ),
]


@pytest.mark.parametrize(("body", "weights", "opset", "rule", "fires"), PICKS)
def test_picks(body: str, weights: Arrays, opset: int, rule: str, fires: bool) -> None:
    kind = "float[1,3,4]" if not fires else "float[2,3,4]"
    before = built(body, kind, weights, opset)
    if fires:
        check_rewrite(RULES[rule], before, ["Gather"])
    else:
        check_untouched(RULES[rule], before)


@pytest.mark.parametrize(
    ("body", "weights", "opset", "expected"),
    [
        ("a = Max(x, l)\n y = Min(a, h)", {"l": F(-1), "h": F(1)}, 17, ["Clip"]),
        ("a = Min(h, x)\n y = Max(l, a)", {"l": F(-1), "h": np.array([1], F)}, 17, ["Clip"]),
        ("a = Max(x, l)\n y = Min(a, h)", {"l": F(-1), "h": F(1)}, 8, ["Clip"]),
        ("a = Min(x, l)\n y = Min(a, h)", {"l": F(0.5), "h": F(-0.5)}, 17, ["Min"]),
        ("a = Relu(x)\n y = Min(a, h)", {"h": F(1)}, 17, ["Clip"]),
        (
            "a = Max(x, c)\n b = Max(a, x)\n y = Max(d, b)",
            {"c": np.arange(4, dtype=F), "d": np.zeros((3, 1), F)},
            17,
            ["Max"],
        ),
    ],
)
def test_minima_and_maxima(body: str, weights: Arrays, opset: int, expected: list[str]) -> None:
    before = built(body, weights=weights, opset=opset)
    after, _ = apply_pass(SimplifyLayout(), before)
    assert ops(after) == expected
    check_numbers(before, after, exact=True)


@pytest.mark.parametrize(
    ("why", "body", "weights", "expected"),
    [
        (
            "the constant enlarges",
            "a = Max(x, l)\n y = Min(a, h)",
            {"l": F(0), "h": np.ones((1, 1, 1, 1), F)},
            ["Max", "Min"],
        ),
        (
            "a constant per channel",
            "a = Max(x, l)\n y = Min(a, h)",
            {"l": np.arange(4, dtype=F), "h": F(1)},
            ["Max", "Min"],
        ),
        ("the other operator", "a = Max(x, l)\n y = Min(a, x)", {"l": F(0)}, ["Max", "Min"]),
    ],
)
def test_other_minima_stay(why: str, body: str, weights: Arrays, expected: list[str]) -> None:
    after, log = apply_pass(SimplifyLayout(), built(body, weights=weights))
    assert ops(after) == expected
    assert not log.applications


@pytest.mark.parametrize(
    ("body", "weights", "expected"),
    [
        ("a = Reshape(x, s)\n b = Relu(a)\n y = Reshape(b, t)", ints(s=[6, 4], t=[2, 12]), ["Relu", "Reshape"]),
        ("a = Reshape(x, s)\n b = Sqrt(a)\n y = Reshape(b, t)", ints(s=[6, 4], t=[2, 3, 4]), ["Sqrt"]),
        (
            "a = Unsqueeze(x, s)\n b = Add(a, c)\n y = Squeeze(b, s)",
            {**ints(s=[0]), "c": np.arange(3, dtype=F).reshape(1, 1, 3, 1)},
            ["Add"],
        ),
        (
            "a = Reshape(x, s)\n b = Mul(c, a)\n y = Reshape(b, t)",
            {**ints(s=[6, 4], t=[2, 3, 4]), "c": np.arange(24, dtype=F).reshape(6, 4)},
            ["Mul"],
        ),
        (
            "a = Reshape(x, s)\n b = Mul(c, a)\n y = Reshape(b, t)",
            {**ints(s=[6, 4], t=[2, 3, 4]), "c": F(2)},
            ["Mul"],
        ),
        (
            "a = Reshape(x, s)\n b = Mul(c, a)\n y = Reshape(b, t)",
            {**ints(s=[6, 4], t=[2, 3, 4]), "c": np.arange(4, dtype=F)},
            ["Reshape", "Mul", "Reshape"],
        ),
        (
            "a = Reshape(x, s)\n b = Add(a, a)\n y = Reshape(b, t)",
            ints(s=[6, 4], t=[2, 3, 4]),
            ["Reshape", "Add", "Reshape"],
        ),
    ],
)
def test_floating_reshapes(body: str, weights: Arrays, expected: list[str]) -> None:
    before = built(body, weights=weights)
    after, _ = apply_pass(SimplifyLayout(), before)
    assert ops(after) == expected
    check_numbers(before, after, exact=True)


@pytest.mark.parametrize(
    ("inputs", "body", "expected"),
    [
        (
            "float[5,3,2] x, float[5,4,3] z",
            "a = Transpose<perm=[0,2,1]>(x)\n b = Transpose<perm=[0,2,1]>(z)\n y = MatMul(a, b)",
            ["MatMul", "Transpose"],
        ),
        (
            "float[5,3,2] x, float[2,4] z",
            "a = Transpose<perm=[1,0,2]>(x)\n b = MatMul(a, z)\n y = Transpose<perm=[1,0,2]>(b)",
            ["MatMul"],
        ),
        ("float[2,3] x, float[3,4] z", "a = MatMul(x, z)\n y = Transpose(a)", ["Gemm"]),
        ("float[3,2] x, float[3,4] z", "a = Gemm<transA=1, alpha=2.0>(x, z)\n y = Transpose(a)", ["Gemm"]),
        ("float[3,2] x, float[4,3] z", "a = Gemm<transA=1, transB=1>(x, z)\n y = Transpose(a)", ["Gemm"]),
        ("float[2,3] x, float[3,4] z", "a = Gemm(x, z, x)\n y = Transpose(a)", None),
        ("float[5,2,3] x, float[3,4] z", "a = MatMul(x, z)\n y = Transpose<perm=[0,2,1]>(a)", ["MatMul", "Transpose"]),
        ("float[5,3,2] x, float[2,4] z", "a = Transpose<perm=[1,0,2]>(x)\n y = MatMul(a, z)", ["Transpose", "MatMul"]),
        (
            "float[5,3,2] x, float[3,4] z",
            "a = Transpose<perm=[0,2,1]>(x)\n b = MatMul(a, z)\n y = Transpose<perm=[0,2,1]>(b)",
            ["Transpose", "MatMul", "Transpose"],
        ),
    ],
)
def test_products(inputs: str, body: str, expected: list[str] | None) -> None:
    if expected is None:
        inputs, body, expected = (
            "float[2,3] x, float[3,4] z, float[2,4] c",
            body.replace("(x, z, x)", "(x, z, c)"),
            ["Gemm", "Transpose"],
        )
    before = shaped_model(f"g ({inputs}) => (float[] y) {{ {body} }}")
    after, _ = apply_pass(SimplifyLayout(), before)
    assert ops(after) == expected
    check_numbers(before, after, exact=False)


@pytest.mark.parametrize(
    ("body", "weights", "opset", "expected"),
    [
        ("b = Tile(a, r)\n y = Transpose<perm=[2,0,1]>(b)", ints(r=[1, 2, 3]), 17, ["Tile"]),
        ("b = Pad<pads=[1,2,0,0,3,1]>(a)\n y = Transpose<perm=[2,0,1]>(b)", {}, 10, ["Pad"]),
        (
            "b = QuantizeLinear(a, s, z)\n c = DequantizeLinear(b, s, z)\n y = Transpose<perm=[2,0,1]>(c)",
            {"s": F(0.1), "z": np.uint8(128)},
            17,
            ["QuantizeLinear", "DequantizeLinear"],
        ),
        (
            "b = QuantizeLinear<axis=-1>(a, s, z)\n c = DequantizeLinear<axis=2>(b, s, z)\n"
            " y = Transpose<perm=[2,0,1]>(c)",
            {"s": np.array([0.1, 0.2], F), "z": np.zeros(2, np.int8)},
            17,
            ["QuantizeLinear", "DequantizeLinear"],
        ),
        ("b = ArgMax<axis=1, keepdims=0>(a)\n y = Cast<to=1>(b)", {}, 17, ["ArgMax", "Cast", "Transpose"]),
        ("b = ArgMin<axis=-1>(a)\n c = Cast<to=1>(b)\n y = Transpose<perm=[2,0,1]>(c)", {}, 17, ["ArgMin", "Cast"]),
        ("y = ReduceSum<keepdims=0>(a, d)", ints(d=[0, 1, 2]), 17, ["ReduceSum"]),
        (
            "b = Slice(a, s, e, d)\n y = Transpose<perm=[2,0,1]>(b)",
            {k: np.array([v], np.int32) for k, v in (("s", 1), ("e", 3), ("d", 0))},
            17,
            ["Slice"],
        ),
    ],
)
def test_transposes_sink_below(body: str, weights: Arrays, opset: int, expected: list[str]) -> None:
    before = built(f"a = Transpose<perm=[1,2,0]>(x)\n {body}", "float[2,3,4]", weights, opset)
    after, _ = apply(MOVES, before)
    assert ops(after) == expected
    check_numbers(before, after, exact=False)


@pytest.mark.parametrize(
    ("why", "body", "weights"),
    [
        ("Tile alone", "y = Tile(a, r)", ints(r=[1, 2, 3])),
        (
            "before a convolution's DequantizeLinear",
            "b = QuantizeLinear(a, s, z)\n y = DequantizeLinear(b, s, z)",
            {"s": F(1), "z": np.int8(0)},
        ),
    ],
)
def test_transposes_stay_above(why: str, body: str, weights: Arrays) -> None:
    check_untouched(MOVES, built(f"a = Transpose<perm=[1,2,0]>(x)\n {body}", weights=weights))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_random_reshape_chains_keep_their_numbers(data: st.DataObject) -> None:
    """Reshapes with numbers, 0 and −1, unary operators and constants between them; a batch of 1, 2 and 3."""
    body, weights, last = [], {}, "x"
    shapes = [[-1, 12], [0, -1], [-1, 3, 4], [0, 3, 4], [0, 1, 12], [-1, 2, 6], [0, 4, 3], [-1]]
    current: list[int] = [0, 3, 4]
    for i in range(data.draw(st.integers(2, 6))):
        kind = data.draw(st.sampled_from(["reshape", "reshape", "relu", "mul", "unsqueeze"]))
        if kind == "reshape":
            target = data.draw(st.sampled_from([s for s in shapes if s[0] == -1 or current[0] == 0]))
            weights[f"s{i}"] = np.array(target)
            body.append(f"t{i} = Reshape({last}, s{i})")
            current = [0, *target[1:]] if len(target) > 1 else [-1]
        elif kind == "relu":
            body.append(f"t{i} = Relu({last})")
        elif kind == "mul":
            weights[f"c{i}"] = F(2)
            body.append(f"t{i} = Mul({last}, c{i})")
        else:
            weights[f"s{i}"] = np.array([1])
            body.append(f"u{i} = Unsqueeze({last}, s{i})\n t{i} = Squeeze(u{i}, s{i})")
        last = f"t{i}"
    before = shaped_model(f"g (float[N,3,4] x) => (float[] {last}) {{ " + "\n ".join(body) + " }", weights)
    after, _ = apply_pass(SimplifyLayout(), before)
    assert len(after.graph.node) <= len(before.graph.node)
    for size in (1, 2, 3):
        check_numbers(before, after, exact=True, N=size)
    again, log = apply_pass(SimplifyLayout(), after)
    assert not log.applications
    assert again == after


TERMS: list[tuple[str, str, Arrays, bool]] = [
    ("scales", "a = Mul(x, c)\n y = Mul(d, a)", {"c": F(0.5), "d": F(3)}, True),
    ("a division", "a = Div(x, c)\n y = Mul(a, d)", {"c": F(3), "d": np.arange(1, 5, dtype=F)}, True),
    ("shifts", "a = Add(c, x)\n y = Sub(a, d)", {"c": F(1.5), "d": F(-0.5)}, True),
    ("per channel", "a = Mul(x, c)\n y = Mul(a, d)", {"c": np.ones((3, 1), F) * 2, "d": np.ones((3, 1), F)}, True),
    (
        "it would enlarge",
        "a = Mul(x, c)\n y = Mul(a, d)",
        {"c": np.ones((3, 1), F) * 2, "d": np.ones((1, 4), F)},
        False,
    ),
    ("cancels", "a = Add(x, c)\n y = Sub(a, d)", {"c": F(1.5), "d": F(1.25)}, False),
    ("rounds on purpose", "a = Add(x, c)\n y = Sub(a, c)", {"c": F(12582912)}, False),
    ("overflows", "a = Mul(x, c)\n y = Mul(a, d)", {"c": F(1e30), "d": F(1e30)}, False),
    ("underflows", "a = Mul(x, c)\n y = Mul(a, d)", {"c": F(1e-30), "d": F(1e-30)}, False),
    ("by zero", "a = Div(x, c)\n y = Div(a, d)", {"c": F(2), "d": F(0)}, False),
    ("c − x", "a = Sub(c, x)\n y = Add(a, d)", {"c": F(2), "d": F(1)}, False),
    ("c / x", "a = Div(c, x)\n y = Mul(a, d)", {"c": F(2), "d": F(1.5)}, False),
    ("different operators", "a = Mul(x, c)\n y = Add(a, d)", {"c": F(2), "d": F(1)}, False),
    ("another reader", "a = Mul(x, c)\n b = Mul(a, d)\n y = Add(a, b)", {"c": F(2), "d": F(3)}, False),
]


@pytest.mark.parametrize(("why", "body", "weights", "fires"), TERMS, ids=[t[0] for t in TERMS])
def test_constant_terms(why: str, body: str, weights: Arrays, fires: bool) -> None:
    before = built(body, weights=weights)
    if fires:
        check_rewrite(
            RULES["compose-constant-terms"], before, [body.split()[-2].partition("(")[0].replace("Sub", "Add")]
        )
    else:
        check_untouched(RULES["compose-constant-terms"], before)


def test_integer_terms_wrap() -> None:
    weights = {"c": np.int32(2**30), "d": np.int32(5)}
    before = shaped_model("g (int32[4] x) => (int32[] y) { a = Mul(x, c)\n y = Mul(a, d) }", weights)
    check_rewrite(RULES["compose-constant-terms"], before, ["Mul"])
    divided = shaped_model("g (int32[4] x) => (int32[] y) { a = Div(x, c)\n y = Div(a, d) }", weights)
    check_untouched(RULES["compose-constant-terms"], divided)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("a = Div(one, x)\n y = Mul(a, z)", ["Div"]),
        ("a = Reciprocal(x)\n y = Mul(z, a)", ["Div"]),
        ("a = Div(two, x)\n y = Mul(a, z)", ["Div", "Mul"]),
        ("a = Div(x, one)\n y = Mul(a, z)", ["Div", "Mul"]),
        ("a = Div(large, x)\n y = Mul(a, z)", ["Div", "Mul"]),
        ("a = Reciprocal(x)\n b = Mul(z, a)\n y = Add(a, b)", ["Reciprocal", "Mul", "Add"]),
    ],
)
def test_products_with_reciprocals(body: str, kept: list[str]) -> None:
    known = {"one": F(1), "two": F(2), "large": np.ones((1, 1, 1, 1), F)}
    weights = {k: v for k, v in known.items() if k in body}
    before = shaped_model(f"g (float[2,3,4] x, float[3,1] z) => (float[] y) {{ {body} }}", weights)
    after, _ = apply(RULES["product-with-reciprocal-to-division"], before)
    assert ops(after) == kept
    check_numbers(before, after, exact=False)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("scale", [1.0, 0.1, 3.0e-7, 1.0e20])
def test_requantization_gives_every_value_back(kind: str, scale: float) -> None:
    dtype = np.dtype(kind)
    values = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)
    weights = {"s": F(scale), "z": dtype.type(3)}
    before = shaped_model(
        f"g ({kind}[{values.size}] x) => ({kind}[] y) {{ a = Concat<axis=0>(x, x)\n b = DequantizeLinear(a, s, z)\n"
        " c = QuantizeLinear(b, s, z)\n y = Concat<axis=0>(c, c) }",
        weights,
        opset=21,
    )
    after = check_rewrite(RULES["drop-requantization"], before, ["Concat", "Concat"])
    check_numbers(before, after, exact=True, inputs={"x": values})


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("another scale", "b = DequantizeLinear(x, s, z)\n c = QuantizeLinear(b, t, z)"),
        ("another zero point", "b = DequantizeLinear(x, s, z)\n c = QuantizeLinear(b, s, w)"),
        ("a scale of zero", "b = DequantizeLinear(x, o, z)\n c = QuantizeLinear(b, o, z)"),
        ("something between", "b = DequantizeLinear(x, s, z)\n d = Relu(b)\n c = QuantizeLinear(d, s, z)"),
    ],
)
def test_other_requantizations_stay(why: str, body: str) -> None:
    known = {"s": F(0.1), "t": F(0.2), "o": F(0), "z": np.int8(0), "w": np.int8(1)}
    weights = {k: v for k, v in known.items() if f", {k}" in body}
    before = shaped_model(f"g (int8[8] x) => (float[] y) {{ {body}\n y = Cast<to=1>(c) }}", weights)
    check_untouched(RULES["drop-requantization"], before)


def test_the_last_factor_of_a_gelu_stays() -> None:
    weights = {"r": F(2**0.5), "o": F(1), "h": F(0.5), "s": F(1.7)}
    before = built(
        "d = Div(x, r)\n e = Erf(d)\n a = Add(e, o)\n p = Mul(x, a)\n q = Mul(p, h)\n y = Mul(q, s)", weights=weights
    )
    check_untouched(RULES["compose-constant-terms"], before, because="last factor of a GELU", target=Target.ONNXRUNTIME)
