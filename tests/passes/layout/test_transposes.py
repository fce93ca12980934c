"""Transposes compose in the right order, cancel, sink below what commutes with them, and stay above the rest."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from graphopt_passes.layout import MOVES, SimplifyLayout
from tests.support.models import Arrays, model
from tests.support.rewrites import apply, apply_pass, check_numbers, check_rewrite, check_untouched
from tests.support.shapes import shaped_model

F = np.float32
RULES = {rule.name: rule for rule in SimplifyLayout.rules}


def ops(proto: ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def perm_of(proto: ModelProto) -> list[int]:
    (node,) = [n for n in proto.graph.node if n.op_type == "Transpose"]
    return list(node.attribute[0].ints)


@pytest.mark.parametrize(("p", "q"), itertools.product(itertools.permutations(range(3)), repeat=2))
def test_two_transposes_are_one(p: tuple[int, ...], q: tuple[int, ...]) -> None:
    before = shaped_model(
        f"g (float[2,3,N] x) => (float[] y) {{ r = Relu(x)\n a = Transpose<perm={list(p)}>(r)\n"
        f" b = Transpose<perm={list(q)}>(a)\n y = Sigmoid(b) }}"
    )
    whole = [p[i] for i in q]
    expected = ["Relu", "Sigmoid"] if whole == [0, 1, 2] else ["Relu", "Sigmoid", "Transpose"]
    after = check_rewrite(RULES["compose-transposes"], before, expected, N=4)
    if len(expected) == 3:
        assert perm_of(after) == whole


def test_the_inner_transpose_may_have_other_readers() -> None:
    before = shaped_model(
        "g (float[2,3] x) => (float[] y, float[] z) { a = Transpose(x)\n b = Transpose(a)\n y = Relu(b)\n z = Sin(a) }"
    )
    check_rewrite(RULES["compose-transposes"], before, ["Relu", "Sin", "Transpose"])


def test_a_cancelled_pair_between_an_input_and_an_output_leaves_an_identity() -> None:
    before = shaped_model("g (float[2,3] x) => (float[] y) { a = Transpose(x)\n y = Transpose(a) }")
    check_rewrite(RULES["compose-transposes"], before, ["Identity"])


def test_a_transpose_in_a_function_needs_no_types() -> None:
    functions = (
        '<domain: "local", opset_import: ["" : 17]> f (a) => (b) '
        "{ t = Transpose<perm=[0,2,1]>(a)\n u = Relu(t)\n b = Transpose<perm=[0,2,1]>(u) }"
    )
    before = model(
        "g (float[2,3,4] x) => (float[2,3,4] y) { y = local.f(x) }", functions=functions, domains=', "local" : 1'
    )
    after, _ = apply_pass(SimplifyLayout(), before)
    assert [n.op_type for n in after.functions[0].node] == ["Relu"]
    check_numbers(before, after, exact=True)


# body between a = Transpose(x, [0,2,3,1]) and y, weights, opset, operators that remain (with the one Transpose)
SINKS: list[tuple[str, Arrays, int, list[str]]] = [
    ("y = Relu(a)", {}, 17, ["Relu", "Transpose"]),
    ("y = Clip(a, l, h)", {"l": F(-1), "h": F(1)}, 17, ["Clip", "Transpose"]),
    ("y = Clip(a, , h)", {"h": F(1)}, 17, ["Clip", "Transpose"]),
    ("y = Cast<to=10>(a)", {}, 17, ["Cast", "Transpose"]),
    ("y = Add(a, c)", {"c": np.arange(3, dtype=F)}, 17, ["Add", "Transpose"]),
    ("y = Sub(c, a)", {"c": np.arange(4, dtype=F).reshape(1, 4, 1, 1)}, 17, ["Sub", "Transpose"]),
    ("y = Mul(a, c)", {"c": np.arange(15, dtype=F).reshape(5, 3)}, 17, ["Mul", "Transpose"]),
    ("y = Mul(a, c)", {"c": np.arange(120, dtype=F).reshape(2, 4, 5, 3)}, 17, ["Mul", "Transpose"]),
    ("y = Div(a, c)", {"c": F(3)}, 17, ["Div", "Transpose"]),
    ("y = Mul(a, a)", {}, 17, ["Mul", "Transpose"]),
    ("y = PRelu(a, c)", {"c": np.arange(3, dtype=F)}, 17, ["PRelu", "Transpose"]),
    ("b = Transpose<perm=[0,2,3,1]>(z)\n y = Add(a, b)", {}, 17, ["Add", "Transpose"]),
    ("y = ReduceMean<axes=[1,-1], keepdims=1>(a)", {}, 17, ["ReduceMean", "Transpose"]),
    ("y = ReduceMax<axes=[2], keepdims=0>(a)", {}, 17, ["ReduceMax", "Transpose"]),
    ("y = ReduceSum<keepdims=0>(a, d)", {"d": np.array([3])}, 17, ["ReduceSum"]),
    ("y = ReduceL2<keepdims=0>(a, d)", {"d": np.array([1, 2])}, 18, ["ReduceL2"]),
    ("b = Softmax<axis=-1>(a)\n y = Transpose<perm=[0,3,1,2]>(b)", {}, 17, ["Softmax"]),
    ("b = Pad(a, p)\n y = Transpose<perm=[0,3,1,2]>(b)", {"p": np.array([0, 1, 2, 0, 0, 3, 0, 1])}, 17, ["Pad"]),
    (
        "y = Slice(a, s, e, d)",
        {"s": np.array([1, -2]), "e": np.array([3, 9]), "d": np.array([1, -1])},
        17,
        ["Slice", "Transpose"],
    ),
    ("y = Slice<starts=[0,1], ends=[-1,2], axes=[2,3]>(a)", {}, 9, ["Slice", "Transpose"]),
    ("b = Transpose<perm=[0,2,3,1]>(z)\n y = Concat<axis=-1>(a, b)", {}, 17, ["Concat", "Transpose"]),
    ("y = Concat<axis=2>(a, c)", {"c": np.ones((2, 4, 1, 3), F)}, 17, ["Concat", "Transpose"]),
    (
        "b, c = Split<axis=3>(a, s)\n d = Transpose<perm=[0,3,1,2]>(b)\n e = Transpose<perm=[0,3,1,2]>(c)\n"
        " f = Relu(d)\n y = Concat<axis=1>(e, f)",
        {"s": np.array([1, 2])},
        17,
        ["Concat", "Relu", "Split"],
    ),
]


@pytest.mark.parametrize(("body", "weights", "opset", "expected"), SINKS, ids=[s[0].splitlines()[0] for s in SINKS])
def test_sinks(body: str, weights: Arrays, opset: int, expected: list[str]) -> None:
    out = "float16[] y" if "to=10" in body else "float[] y"
    more = ", float[2,3,4,5] z" if "(z)" in body else ""
    before = shaped_model(
        f"g (float[2,3,4,5] x{more}) => ({out}) {{ a = Transpose<perm=[0,2,3,1]>(x)\n {body} }}", weights, opset=opset
    )
    after, _ = apply(MOVES, before)
    assert sorted(ops(after)) == expected
    again, second = apply(MOVES, after)
    assert not second.applications
    assert again == after
    check_numbers(before, after, exact=False)


STAYS: list[tuple[str, str, Arrays, int]] = [
    ("another reader, and nothing to cancel", "b = Relu(a)\n c = Sin(a)\n y = Add(b, c)", {}, 17),
    (
        "another permutation",
        "v = Reshape(w, s)\n b = Transpose<perm=[0,2,1,3]>(v)\n y = Sub(a, b)",
        {"s": np.array([2, 5, 4, 3])},
        17,
    ),
    ("the other side is not transposed", "y = Add(a, w)", {}, 17),
    ("a constant of a higher rank", "y = Add(a, c)", {"c": np.ones((1, 1, 1, 1, 3), F)}, 17),
    ("Softmax flattens before 13", "b = Softmax<axis=3>(a)\n y = Transpose<perm=[0,3,1,2]>(b)", {}, 12),
    ("Softmax alone", "y = Softmax<axis=3>(a)", {}, 17),
    ("Pad alone", "y = Pad(a, p)", {"p": np.array([0, 1, 2, 0, 0, 3, 0, 1])}, 17),
    ("a reduction of all", "y = ReduceSum(a)", {}, 17),
    ("axes at run time", "s = Shape(w)\n d = Slice(s, o, o)\n y = ReduceSum(a, d)", {"o": np.array([0])}, 17),
    ("a convolution", "y = Conv(a, k)", {"k": np.ones((2, 4, 1, 1), F)}, 17),
    (
        "a Split without transposes",
        "b, c = Split<axis=3>(a, s)\n y = Concat<axis=3>(c, b)",
        {"s": np.array([1, 2])},
        17,
    ),
]


@pytest.mark.parametrize(("why", "body", "weights", "opset"), STAYS, ids=[s[0] for s in STAYS])
def test_stays(why: str, body: str, weights: Arrays, opset: int) -> None:
    more = ", float[2,4,5,3] w" if "w)" in body or "(w" in body else ""
    before = shaped_model(
        f"g (float[2,3,4,5] x{more}) => (float[] y) {{ a = Transpose<perm=[0,2,3,1]>(x)\n {body} }}",
        weights,
        opset=opset,
    )
    if any(not o.type.tensor_type.HasField("shape") for o in before.graph.output):
        before.graph.output[0].type.tensor_type.shape.dim.extend(before.graph.input[0].type.tensor_type.shape.dim)
    check_untouched(MOVES, before)


def test_a_residual_block_in_nhwc_loses_its_transposes() -> None:
    conv = "Conv<pads=[1,1,1,1]>"
    before = shaped_model(
        "g (float[1,3,N,N] x) => (float[] y) { a = Relu(x)\n"
        "t0 = Transpose<perm=[0,2,3,1]>(a)\n b0 = Add(t0, c)\n r0 = Relu(b0)\n"
        f"t1 = Transpose<perm=[0,3,1,2]>(r0)\n k = {conv}(t1, w)\n t2 = Transpose<perm=[0,2,3,1]>(k)\n"
        "b1 = Mul(t2, c)\n"
        "s = Add(r0, b1)\n r1 = Relu(s)\n t3 = Transpose<perm=[0,3,1,2]>(r1)\n"
        f"m = {conv}(t3, w)\n t4 = Transpose<perm=[0,2,3,1]>(m)\n u = Add(r1, t4)\n v = Transpose<perm=[0,3,1,2]>(u)\n"
        "y = Neg(v) }",
        {"c": np.array([0.5, -1, 2], F), "w": np.ones((3, 3, 3, 3), F)},
    )
    after, _ = apply_pass(SimplifyLayout(), before)
    assert "Transpose" not in ops(after)
    check_numbers(before, after, exact=False, N=4)


@pytest.mark.parametrize(
    ("kind", "perm", "target"),
    [
        ("float[2,1,3]", [0, 2, 1], [2, 3, 1]),
        ("float[1,2,1,3]", [1, 0, 3, 2], [2, 1, 3, 1]),
        ("float[N,1,3]", [1, 0, 2], [1, -1, 3]),
        ("float[N,1,M,3,1]", [0, 1, 2, 4, 3], [0, 1, 0, 1, 3]),
    ],
)
def test_a_transpose_of_ones_is_a_reshape(kind: str, perm: list[int], target: list[int]) -> None:
    before = shaped_model(f"g ({kind} x) => (float[] y) {{ y = Transpose<perm={perm}>(x) }}")
    after = check_rewrite(RULES["transpose-of-ones-to-reshape"], before, ["Reshape"], N=2, M=3)
    assert numpy_helper.to_array(after.graph.initializer[0]).tolist() == target


@pytest.mark.parametrize(
    ("kind", "perm", "because"),
    [
        ("float[2,3]", [1, 0], "moves data"),
        ("float[N,3]", [1, 0], "moves data"),
        ("float[N,1,M]", [1, 0, 2], "cannot be written"),
        ("float[0,1,3]", [1, 0, 2], "cannot be written"),
    ],
)
def test_other_transposes_stay(kind: str, perm: list[int], because: str) -> None:
    before = shaped_model(f"g ({kind} x) => (float[] y) {{ y = Transpose<perm={perm}>(x) }}")
    check_untouched(RULES["transpose-of-ones-to-reshape"], before, because=because)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_random_chains_keep_their_numbers(data: st.DataObject) -> None:
    body, shape, weights, last = [], [2, 3, 1, 4], {}, "x"
    for i in range(data.draw(st.integers(1, 7))):
        kind = data.draw(
            st.sampled_from(["transpose", "transpose", "unary", "constant", "reduce", "slice", "residual"])
        )
        perm = data.draw(st.permutations(range(4)))
        if kind == "transpose":
            body.append(f"t{i} = Transpose<perm={list(perm)}>({last})")
            shape = [shape[p] for p in perm]
        elif kind == "unary":
            body.append(f"t{i} = {data.draw(st.sampled_from(['Relu', 'Neg', 'Abs']))}({last})")
        elif kind == "constant":
            dims = [d if data.draw(st.booleans()) else 1 for d in shape][data.draw(st.integers(0, 4)) :]
            weights[f"c{i}"] = np.arange(int(np.prod(dims)), dtype=F).reshape(dims)
            body.append(f"t{i} = Sub(c{i}, {last})")
        elif kind == "reduce":
            axis = data.draw(st.integers(-4, 3))
            body.append(f"t{i} = ReduceMax<axes=[{axis}], keepdims=1>({last})")
            shape[axis] = 1
        elif kind == "slice":
            axis = data.draw(st.integers(0, 3))
            weights |= {f"s{i}": np.array([0]), f"e{i}": np.array([1]), f"a{i}": np.array([axis])}
            body.append(f"t{i} = Slice({last}, s{i}, e{i}, a{i})")
            shape[axis] = 1
        else:
            body.append(f"u{i} = Relu({last})\n t{i} = Add({last}, u{i})")
        last = f"t{i}"
    text = "\n ".join(body)
    before = shaped_model(f"g (float[2,3,1,4] x) => (float[] {last}) {{ {text} }}", weights)
    after, _ = apply_pass(SimplifyLayout(), before)
    assert len(after.graph.node) <= len(before.graph.node)
    check_numbers(before, after, exact=True)
    again, log = apply_pass(SimplifyLayout(), after)
    assert not log.applications
    assert again == after
