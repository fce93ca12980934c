"""Every no-op: it becomes a wire where it is one, and stays where a condition fails."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt_passes.dead_layers import CleanUp
from tests.support.models import Arrays
from tests.support.rewrites import apply_pass, check_numbers, check_rewrite, check_untouched
from tests.support.shapes import shaped_model

F = np.float32
I = np.int64  # noqa: E741
RULES = {rule.name: rule for rule in CleanUp.rules}

# rule, opset, body between `a = Relu(x)` and `y = Sigmoid(b)`, dtype and shape of x, weights
FIRES: list[tuple[str, int, str, str, Arrays]] = [
    ("drop-identity", 17, "b = Identity(a)", "float[2,3]", {}),
    ("drop-dropout", 7, "b = Dropout<ratio=0.5>(a)", "float[2,3]", {}),
    ("drop-dropout", 10, "b, m = Dropout<ratio=0.5>(a)", "float[2,3]", {}),
    ("drop-dropout", 13, "b = Dropout(a, r)", "float[2,3]", {"r": F(0.5)}),
    ("drop-dropout", 13, "b = Dropout(a, r, t)", "float[2,3]", {"r": F(0.5), "t": np.bool_(False)}),
    ("drop-dropout", 13, "b = Dropout(a, r, t)", "float[2,3]", {"r": F(0), "t": np.bool_(True)}),
    ("drop-cast-to-same-type", 17, "b = Cast<to=1>(a)", "float[2,N]", {}),
    ("drop-cast-to-same-type", 17, "b = CastLike(a, x)", "float[2,N]", {}),
    ("drop-join-of-one", 17, "b = Concat<axis=1>(a)", "float[2,3]", {}),
    ("drop-join-of-one", 17, "b = Sum(a)", "float[2,3]", {}),
    ("drop-join-of-one", 17, "b = Mean(a)", "float[2,3]", {}),
    ("drop-join-of-one", 17, "b = Max(a)", "float[2,3]", {}),
    ("drop-split-into-one", 11, "b = Split<axis=1, split=[3]>(a)", "float[2,3]", {}),
    ("drop-split-into-one", 13, "b = Split<axis=-1>(a, s)", "float[2,3]", {"s": np.array([3])}),
    ("drop-split-into-one", 18, "b = Split<axis=0, num_outputs=1>(a)", "float[2,3]", {}),
    ("drop-identity-transpose", 17, "b = Transpose<perm=[0,1]>(a)", "float[2,N]", {}),
    ("drop-identity-transpose", 17, "b = Transpose(a)", "float[5]", {}),
    ("drop-reshape-to-same-shape", 17, "b = Reshape(a, s)", "float[2,N]", {"s": np.array([2, -1])}),
    ("drop-reshape-to-same-shape", 17, "b = Reshape(a, s)", "float[M,N]", {"s": np.array([0, 0])}),
    ("drop-reshape-to-same-shape", 17, "s = Shape(x)\n b = Reshape(a, s)", "float[M,N]", {}),
    ("drop-reshape-to-same-shape", 17, "b = Reshape<allowzero=1>(a, s)", "float[2,3]", {"s": np.array([2, 3])}),
    ("drop-flatten-of-matrix", 17, "b = Flatten(a)", "float[M,N]", {}),
    ("drop-flatten-of-matrix", 13, "b = Flatten<axis=-1>(a)", "float[M,N]", {}),
    ("drop-squeeze-of-nothing", 11, "b = Squeeze(a)", "float[2,3]", {}),
    ("drop-squeeze-of-nothing", 17, "b = Squeeze(a)", "float[2,3]", {}),
    ("drop-unsqueeze-of-nothing", 17, "b = Unsqueeze(a, s)", "float[2,3]", {"s": np.zeros(0, I)}),
    ("drop-expand-to-same-shape", 17, "b = Expand(a, s)", "float[2,N]", {"s": np.array([2, 1])}),
    ("drop-expand-to-same-shape", 17, "b = Expand(a, s)", "float[2,N]", {"s": np.array([1])}),
    ("drop-expand-to-same-shape", 17, "s = Shape(x)\n b = Expand(a, s)", "float[2,N]", {}),
    ("drop-tile-once", 17, "b = Tile(a, s)", "float[2,N]", {"s": np.array([1, 1])}),
    ("drop-full-slice", 9, "b = Slice<starts=[0], ends=[9], axes=[1]>(a)", "float[2,3]", {}),
    ("drop-full-slice", 17, "b = Slice(a, s, e)", "float[M,N]", {"s": np.array([0]), "e": np.array([2**63 - 1])}),
    (
        "drop-full-slice",
        17,
        "b = Slice(a, s, e, d, t)",
        "float[2,3]",
        {"s": np.array([-3]), "e": np.array([3]), "d": np.array([-1]), "t": np.array([1])},
    ),
    ("drop-pad-of-nothing", 10, "b = Pad<pads=[0,0,0,0]>(a)", "float[2,3]", {}),
    ("drop-pad-of-nothing", 17, 'b = Pad<mode="reflect">(a, p)', "float[2,3]", {"p": np.zeros(4, I)}),
    ("drop-pad-of-nothing", 18, "b = Pad(a, p, , d)", "float[2,3]", {"p": np.zeros(2, I), "d": np.array([1])}),
    ("drop-full-gather", 17, "b = Gather<axis=1>(a, i)", "float[2,3]", {"i": np.array([0, 1, 2])}),
    ("drop-full-gather", 17, "b = Gather<axis=-1>(a, i)", "float[2,3]", {"i": np.array([0, -2, 2])}),
    ("drop-reduction-of-nothing", 17, "b = ReduceMean<axes=[1]>(a)", "float[N,1]", {}),
    ("drop-reduction-of-nothing", 18, "b = ReduceMax(a, d)", "float[N,1]", {"d": np.array([-1])}),
    ("drop-reduction-of-nothing", 17, "b = ReduceSum<noop_with_empty_axes=1>(a)", "float[N,3]", {}),
    ("drop-resize-to-same-size", 9, "b = Upsample(a, s)", "float[1,2,3,4]", {"s": np.ones(4, F)}),
    ("drop-resize-to-same-size", 13, 'b = Resize<mode="linear">(a, , s)', "float[1,2,3,4]", {"s": np.ones(4, F)}),
    ("drop-resize-to-same-size", 13, "b = Resize(a, , , s)", "float[1,2,3,4]", {"s": np.array([1, 2, 3, 4])}),
    ("drop-neutral-element", 17, "b = Mul(a, c)", "float[2,N]", {"c": np.ones((2, 1), F)}),
    ("drop-neutral-element", 17, "b = Mul(c, a)", "float16[2,N]", {"c": np.float16(1)}),
    ("drop-neutral-element", 17, "b = Div(a, c)", "float[2,N]", {"c": F(1)}),
    ("drop-neutral-element", 17, "b = Sub(a, c)", "float[2,N]", {"c": F(0)}),
    ("drop-neutral-element", 17, "b = Add(c, a)", "float[2,N]", {"c": F(-0.0)}),
    ("drop-neutral-element", 17, "b = Pow(a, c)", "float[2,N]", {"c": I(1)}),
    ("drop-positive-zero", 17, "b = Add(a, c)", "float[2,3]", {"c": np.zeros((2, 3), F)}),
    ("drop-select-of-known-side", 17, "b = Where(c, a, x)", "float[2,N]", {"c": np.array([True])}),
    ("drop-select-of-known-side", 17, "b = Where(c, x, a)", "float[2,N]", {"c": np.array([[False], [False]])}),
    ("drop-select-of-known-side", 17, "b = Where(c, a, a)", "float[2,3]", {"c": np.array([True, False, True])}),
    ("drop-operation-with-itself", 17, "b = Max(a, a, a)", "float[2,N]", {}),
    ("drop-repeated-unary", 17, "b = Relu(a)", "float[2,N]", {}),
    ("drop-repeated-unary", 17, "b = LeakyRelu<alpha=0.1>(a)", "float[2,N]", {}),
]


@pytest.mark.parametrize(
    ("rule", "opset", "body", "kind", "weights"), FIRES, ids=[f"{r}-{o}-{i}" for i, (r, o, *_) in enumerate(FIRES)]
)
def test_becomes_a_wire(rule: str, opset: int, body: str, kind: str, weights: Arrays) -> None:
    base = kind.partition("[")[0]
    before = shaped_model(
        f"g ({kind} x) => ({base}[] y) {{ a = Relu(x)\n {body}\n y = Sigmoid(b) }}", weights, opset=opset
    )
    check_rewrite(RULES[rule], before, ["Relu", "Sigmoid"], N=3, M=2)


# rule, why it stays, opset, body, dtype and shape of x, weights, part of the reason
STAYS: list[tuple[str, str, int, str, str, Arrays, str]] = [
    ("drop-dropout", "it trains", 13, "b = Dropout(a, r, t)", "float[2,3]", {"r": F(0.5), "t": np.True_}, "may drop"),
    ("drop-dropout", "its mask is read", 13, "b, m = Dropout(a)\n z = Cast<to=1>(m)", "float[2,3]", {}, "further"),
    (
        "drop-cast-to-same-type",
        "half to float",
        17,
        "c = Cast<to=1>(a)\n b = Cast<to=10>(c)",
        "float16[2,3]",
        {},
        "changes the dtype",
    ),
    ("drop-split-into-one", "size unknown", 13, "b = Split<axis=1>(a, s)", "float[2,N]", {"s": np.array([3])}, "size"),
    ("drop-identity-transpose", "it swaps", 17, "b = Transpose(a)", "float[2,3]", {}, "permutes"),
    ("drop-reshape-to-same-shape", "other shape", 17, "b = Reshape(a, s)", "float[2,3]", {"s": np.array([3, 2])}, ""),
    ("drop-reshape-to-same-shape", "two unknown", 17, "b = Reshape(a, s)", "float[M,N]", {"s": np.array([2, -1])}, ""),
    ("drop-flatten-of-matrix", "a cube", 17, "b = Flatten(a)", "float[2,3,4]", {}, "no matrix"),
    ("drop-squeeze-of-nothing", "a one", 17, "b = Squeeze(a)", "float[2,1]", {}, "1 or unknown"),
    (
        "drop-squeeze-of-nothing",
        "N may be 1",
        17,
        "c = Squeeze(a)\n b = Reshape(c, s)",
        "float[2,N]",
        {"s": np.array([-1])},
        "1 or unknown",
    ),
    ("drop-expand-to-same-shape", "it grows", 17, "b = Expand(a, s)", "float[2,1]", {"s": np.array([2, 3])}, "may"),
    ("drop-expand-to-same-shape", "a new rank", 17, "b = Expand(a, s)", "float[2,3]", {"s": np.array([1, 1, 1])}, ""),
    ("drop-expand-to-same-shape", "a symbol may be 1", 17, "b = Expand(a, s)", "float[2,N]", {"s": np.array([3])}, ""),
    ("drop-tile-once", "it repeats", 17, "b = Tile(a, s)", "float[2,3]", {"s": np.array([1, 2])}, "repeat"),
    (
        "drop-full-slice",
        "a negative step",
        17,
        "b = Slice(a, s, e, d, t)",
        "float[3]",
        {"s": np.array([-1]), "e": np.array([-(2**63)]), "d": np.array([0]), "t": np.array([-1])},
        "leave elements out",
    ),
    ("drop-full-slice", "it ends early", 9, "b = Slice<starts=[0], ends=[-1]>(a)", "float[3]", {}, "leave elements"),
    ("drop-full-slice", "symbol", 17, "b = Slice(a, s, e)", "float[N]", {"s": np.array([0]), "e": np.array([9])}, ""),
    ("drop-pad-of-nothing", "one", 17, "b = Pad(a, p)", "float[3]", {"p": np.array([1, 0])}, "may pad"),
    ("drop-pad-of-nothing", "it crops and pads", 17, "b = Pad(a, p)", "float[3]", {"p": np.array([-1, 1])}, "may pad"),
    ("drop-full-gather", "reversed", 17, "b = Gather(a, i)", "float[2]", {"i": np.array([1, 0])}, "order"),
    ("drop-full-gather", "a scalar index", 17, "b = Gather(a, i)", "float[1,2]", {"i": I(0)}, "no known list"),
    ("drop-full-gather", "a symbol", 17, "b = Gather(a, i)", "float[N,2]", {"i": np.array([0, 1])}, "every element"),
    (
        "drop-reduction-of-nothing",
        "no keepdims",
        17,
        "b = ReduceMean<axes=[1], keepdims=0>(a)",
        "float[3,1]",
        {},
        "drops",
    ),
    ("drop-reduction-of-nothing", "all axes", 17, "b = ReduceSum(a)", "float[3,1]", {}, "more than one"),
    ("drop-reduction-of-nothing", "a symbol", 17, "b = ReduceMax<axes=[1]>(a)", "float[3,N]", {}, "more than one"),
    ("drop-resize-to-same-size", "1.1", 13, "b = Resize(a, , s)", "float[1,3]", {"s": np.array([1, 1.1], F)}, "size"),
    (
        "drop-resize-to-same-size",
        "off by a half",
        12,
        'b = Resize<coordinate_transformation_mode="tf_half_pixel_for_nn">(a, e, s)',
        "float[1,1,3,4]",
        {"e": np.zeros(0, F), "s": np.ones(4, F)},
        "do not fall",
    ),
    ("drop-neutral-element", "a new rank", 17, "b = Mul(a, c)", "float[2,3]", {"c": np.ones((1, 1, 1), F)}, "enlarge"),
    ("drop-neutral-element", "it grows", 17, "b = Mul(a, c)", "float[2,1]", {"c": np.ones((2, 3), F)}, "enlarge"),
    ("drop-neutral-element", "N may be 1", 17, "b = Mul(a, c)", "float[2,N]", {"c": np.ones((2, 3), F)}, "enlarge"),
    ("drop-neutral-element", "−0.0", 17, "b = Add(a, c)", "float[2,3]", {"c": F(0)}, "+0.0"),
    ("drop-neutral-element", "0 − x", 17, "b = Sub(c, a)", "float[2,3]", {"c": F(0)}, "neutral"),
    ("drop-neutral-element", "1 / x", 17, "b = Div(c, a)", "float[2,3]", {"c": F(1)}, "neutral"),
    ("drop-neutral-element", "1 to the x", 17, "b = Pow(c, a)", "float[2,3]", {"c": F(1)}, "neutral"),
    ("drop-neutral-element", "nearly 1", 17, "b = Mul(a, c)", "float[2,3]", {"c": F(1.0000001)}, "neutral"),
    ("drop-neutral-element", "NaN", 17, "b = Mul(a, c)", "float[2]", {"c": np.array([1, np.nan], F)}, "neutral"),
    ("drop-neutral-element", "empty", 17, "b = Mul(a, c)", "float[1]", {"c": np.ones(0, F)}, "neutral"),
    ("drop-select-of-known-side", "mixed", 17, "b = Where(c, a, x)", "float[2]", {"c": np.array([True, False])}, ""),
    (
        "drop-select-of-known-side",
        "it grows",
        17,
        "b = Where(c, a, x)",
        "float[1]",
        {"c": np.array([True] * 3)},
        "side",
    ),
    ("drop-operation-with-itself", "two", 17, "b = Max(a, x)", "float[2]", {}, "differ"),
    ("drop-repeated-unary", "Relu of LeakyRelu", 17, "c = LeakyRelu(x)\n b = Relu(c)", "float[2]", {}, "range"),
    ("drop-self-inverse-pair", "one Neg", 17, "b = Neg(a)", "float[2]", {}, "own inverse"),
]


@pytest.mark.parametrize(
    ("rule", "why", "opset", "body", "kind", "weights", "because"), STAYS, ids=[f"{s[0]}-{s[1]}" for s in STAYS]
)
def test_stays(rule: str, why: str, opset: int, body: str, kind: str, weights: Arrays, because: str) -> None:
    base = kind.partition("[")[0]
    more = f", {base}[] z" if "z =" in body else ""
    before = shaped_model(
        f"g ({kind} x) => ({base}[] y{more}) {{ a = Relu(x)\n {body}\n y = Sigmoid(b) }}", weights, opset=opset
    )
    check_untouched(RULES[rule], before, because=because)


@pytest.mark.parametrize(
    ("rule", "body", "kind", "weights"),
    [
        ("drop-neutral-element", "y = Add(x, c)", "int32[3]", {"c": np.int32(0)}),
        ("drop-neutral-element", "y = BitwiseOr(x, c)", "int32[3]", {"c": np.int32(0)}),
        ("drop-neutral-element", 'y = BitShift<direction="LEFT">(x, c)', "uint32[3]", {"c": np.uint32(0)}),
        ("drop-neutral-element", "y = And(x, c)", "bool[3]", {"c": np.True_}),
        ("drop-neutral-element", "y = Or(c, x)", "bool[3]", {"c": np.array([False])}),
        ("drop-neutral-element", "y = Xor(c, x)", "bool[3]", {"c": np.array([False])}),
        ("drop-self-inverse-pair", "a = Not(x)\n y = Not(a)", "bool[3]", {}),
        ("drop-self-inverse-pair", "a = Neg(x)\n y = Neg(a)", "float[3]", {}),
        ("drop-operation-with-itself", "y = And(x, x)", "bool[3]", {}),
    ],
)
def test_an_input_that_is_an_output_keeps_both_names(rule: str, body: str, kind: str, weights: Arrays) -> None:
    before = shaped_model(f"g ({kind} x) => ({kind} y) {{ {body} }}", weights, opset=18)
    check_rewrite(RULES[rule], before, ["Identity"])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("a = Ceil(x)\n b = Floor(a)\n y = Round(b)", ["Ceil"]),
        ("a = Abs(x)\n b = Abs(a)\n y = Abs(b)", ["Abs"]),
        ("a = Neg(x)\n y = Abs(a)", ["Abs"]),
        ("a = Sign(x)\n y = Sign(a)", ["Sign"]),
    ],
)
def test_unary_chains_collapse(body: str, expected: list[str]) -> None:
    before = shaped_model(f"g (float[2,N] x) => (float[2,N] y) {{ {body} }}")
    after, _ = apply_pass(CleanUp(), before)
    assert [n.op_type for n in after.graph.node] == expected
    special = {"x": np.array([[-0.0, np.nan, np.inf], [-np.inf, -1.5, 2.5]], F)}
    check_numbers(before, after, exact=True, inputs=special)


def test_mul_by_one_keeps_the_sign_of_zero() -> None:
    before = shaped_model("g (float[3] x) => (float[3] y) { a = Mul(x, c)\n y = Reciprocal(a) }", {"c": F(1)})
    after, _ = apply_pass(CleanUp(), before)
    assert [n.op_type for n in after.graph.node] == ["Reciprocal"]
    check_numbers(before, after, exact=True, inputs={"x": np.array([-0.0, 0.0, np.nan], F)})


@pytest.mark.parametrize(("opset", "refused"), [(10, True), (13, False)])
def test_a_mask_that_is_read_becomes_true(opset: int, refused: bool) -> None:
    before = shaped_model("g (float[2,3] x) => (float[] y, bool[] m) { y, m = Dropout(x) }", opset=opset)
    if refused:
        check_untouched(RULES["dropout-mask-is-true"], before, because="runtimes differ")
    else:
        check_rewrite(RULES["dropout-mask-is-true"], before, ["ConstantOfShape", "Dropout", "Shape"])


def test_a_small_mask_becomes_an_initializer() -> None:
    before = shaped_model(
        "g (float[2,3] x) => (float[] y, float[] z) { a, m = Dropout(x)\n z = Cast<to=1>(m)\n y = Relu(a) }"
    )
    after, _ = apply_pass(CleanUp(), before)
    assert sorted(n.op_type for n in after.graph.node) == ["Cast", "Relu"]
    check_numbers(before, after, exact=True)
