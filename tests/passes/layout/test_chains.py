"""Chains of reshapes, casts, clips, slices, gathers, pads and expands merge, each with its near misses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graphopt import optimize
from graphopt_passes.layout import SimplifyLayout
from graphopt_passes.layout.casts import is_widening
from tests.support.models import Arrays, model
from tests.support.rewrites import apply_pass, check_numbers, check_rewrite, check_untouched
from tests.support.shapes import shaped_model

F = np.float32
RULES = {rule.name: rule for rule in SimplifyLayout.rules}


def ops(proto: ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def ints(**values: list[int]) -> Arrays:
    return {k: np.array(v, np.int64) for k, v in values.items()}


def built(body: str, kind: str, weights: Arrays, opset: int = 17, dtype: str = "float", **more: str) -> ModelProto:
    """A model of `body` between `a = Relu(x)` and `y = Neg(b)`; outputs in `more` besides."""
    extra = "".join(f", {k}[] {n}" for n, k in more.items())
    text = f"g ({kind} x) => ({dtype}[] y{extra}) {{ a = Relu(x)\n {body}\n y = Neg(b) }}"
    return shaped_model(text, weights, opset=opset)


RESHAPES: list[tuple[str, str, Arrays, int, list[str]]] = [
    ("c = Reshape(a, s)\n b = Reshape(c, t)", "float[2,3,4]", ints(s=[6, 4], t=[2, 12]), 17, ["Reshape"]),
    ("c = Reshape(a, s)\n b = Reshape(c, t)", "float[2,3,4]", ints(s=[6, 4], t=[2, 3, 4]), 17, []),
    ("c = Flatten(a)\n b = Reshape(c, t)", "float[N,3,4]", ints(t=[-1, 3, 4]), 17, ["Reshape"]),
    ("c = Reshape(a, s)\n b = Reshape(c, t)", "float[N,3,4]", ints(s=[0, -1], t=[0, 4, 3]), 17, ["Reshape"]),
    ("c = Reshape(a, s)\n b = Reshape(c, t)", "float[N,M,4]", ints(s=[0, 0, 2, 2], t=[0, 0, -1]), 17, []),
    ("c = Unsqueeze<axes=[1]>(a)\n b = Squeeze<axes=[1]>(c)", "float[N,M]", {}, 11, []),
    ("c = Unsqueeze(a, s)\n b = Squeeze(c, s)", "float[N,M]", ints(s=[-1]), 17, []),
    ("c = Unsqueeze(a, s)\n b = Reshape(c, t)", "float[2,3]", ints(s=[0], t=[3, 2]), 17, ["Reshape"]),
    ("c = Squeeze(a)\n b = Unsqueeze(c, s)", "float[1,3]", ints(s=[1]), 17, ["Reshape"]),
    ("c = Squeeze(a, s)\n b = Flatten(c)", "float[2,1,3,4]", ints(s=[1]), 17, ["Reshape"]),
]


@pytest.mark.parametrize(("body", "kind", "weights", "opset", "kept"), RESHAPES)
def test_reshapes_merge(body: str, kind: str, weights: Arrays, opset: int, kept: list[str]) -> None:
    before = built(body, kind, weights, opset)
    check_rewrite(RULES["compose-reshapes"], before, ["Relu", "Neg", *kept], N=2, M=3)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_merged_reshape_holds_for_every_batch(size: int) -> None:
    before = built("c = Flatten(a)\n b = Reshape(c, t)", "float[N,3,4]", ints(t=[-1, 4, 3]))
    after, _ = apply_pass(SimplifyLayout(), before)
    assert ops(after) == ["Relu", "Reshape", "Neg"]
    check_numbers(before, after, exact=True, N=size)


@pytest.mark.parametrize(
    ("why", "body", "kind", "weights", "because"),
    [
        (
            "another reader",
            "c = Reshape(a, s)\n b = Reshape(c, t)\n z = Sin(c)",
            "float[2,3]",
            ints(s=[6], t=[3, 2]),
            "other",
        ),
        (
            "the 0 copies the middle",
            "c = Reshape(a, s)\n b = Reshape(c, t)",
            "float[M,N]",
            ints(s=[-1, 2], t=[0, 1, 2]),
            "",
        ),
        (
            "allowzero",
            "c = Reshape(a, s)\n b = Reshape<allowzero=1>(c, t)",
            "float[0,3]",
            ints(s=[3, 0], t=[0, 5]),
            "last shape",
        ),
        ("a computed shape", "c = Flatten(a)\n d = Shape(x)\n b = Reshape(c, d)", "float[M,N,4]", {}, ""),
    ],
)
def test_other_reshapes_stay(why: str, body: str, kind: str, weights: Arrays, because: str) -> None:
    if why == "a computed shape":
        # it is x's shape again: a copy, which the constants pass tells
        result = optimize(built(body, kind, weights), verify=False, pipeline="clean")
        assert ops(result.model) == ["Relu", "Neg"]
        return
    more = {"z": "float"} if "z =" in body else {}
    before = built(body, kind, weights, **more)
    if why == "the 0 copies the middle":
        check_rewrite(RULES["compose-reshapes"], before, ["Neg", "Relu", "Reshape"], M=2, N=3)
        return
    check_untouched(RULES["compose-reshapes"], before, because=because)


@pytest.mark.parametrize(
    ("op", "first", "second", "whole"),
    [
        ("Unsqueeze", [0], [0], [0, 1]),
        ("Unsqueeze", [1], [0, 3], [0, 2, 3]),
        ("Unsqueeze", [0, 2], [1, 4], [0, 1, 3, 4]),
        ("Squeeze", [0], [1], [0, 2]),
        ("Squeeze", [2], [0], [0, 2]),
        ("Squeeze", [0, 2], [0, 1], [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("opset", [12, 17])
def test_squeezes_of_one_kind_merge(op: str, first: list[int], second: list[int], whole: list[int], opset: int) -> None:
    kind = "float[M,N]" if op == "Unsqueeze" else "float[1,1,1,1,N]"
    if op == "Squeeze" and whole == [0, 2]:
        kind = "float[1,M,1,N]"
    if opset >= 13:
        before = built(f"c = {op}(a, s)\n b = {op}(c, t)", kind, ints(s=first, t=second), opset)
    else:
        before = built(f"c = {op}<axes={first}>(a)\n b = {op}<axes={second}>(c)", kind, {}, opset)
    after = check_rewrite(RULES["compose-unsqueezes"], before, ["Relu", op, "Neg"], M=2, N=3)
    got = (
        numpy_helper.to_array(after.graph.initializer[0]).tolist()
        if opset >= 13
        else list(after.graph.node[1].attribute[0].ints)
    )
    assert got == whole


CASTS = {
    (1, 11, 1): True,
    (10, 1, 10): True,
    (16, 1, 16): True,
    (6, 7, 6): True,
    (6, 11, 1): True,
    (9, 1, 7): True,
    (3, 10, 3): True,
    (3, 16, 1): True,
    (1, 10, 1): False,  # float → half → float rounds
    (1, 7, 1): False,  # float → int → float cuts
    (6, 1, 6): False,  # int32 has more bits than float32's significand
    (10, 16, 1): False,
    (16, 10, 1): False,
    (7, 6, 7): False,  # wraps
    (3, 2, 6): False,  # negative numbers wrap
    (1, 11, 7): False,  # float → double → int: out of range is undefined
    (7, 9, 7): False,
}


@pytest.mark.parametrize(("chain", "merges"), CASTS.items())
def test_casts(chain: tuple[int, int, int], merges: bool) -> None:
    a, b, c = chain
    info = [helper.make_tensor_value_info(n, t, [4]) for n, t in (("x", a), ("y", c))]
    nodes = [helper.make_node("Cast", ["x"], ["m"], to=b), helper.make_node("Cast", ["m"], ["y"], to=c)]
    before = helper.make_model(
        helper.make_graph(nodes, "g", info[:1], info[1:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=10
    )
    if not merges:
        check_untouched(RULES["compose-casts"], before)
        return
    after, log = apply_pass(SimplifyLayout(), before)
    assert len(log.applications) == 1
    assert ops(after) == (["Identity"] if a == c else ["Cast"])


def test_widening_is_told_from_all_values_of_small_types() -> None:
    names = {"bool": 9, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "float16": 10, "float32": 1}
    for name in ("bool", "uint8", "int8", "uint16", "int16", "float16"):
        kind = np.dtype(name)
        bits = np.arange(1 << (8 * kind.itemsize)).astype(f"u{kind.itemsize}") if name != "bool" else np.arange(2)
        values = bits.view(kind) if name != "bool" else bits.astype(bool)
        for other, number in names.items():
            with np.errstate(all="ignore"):
                there = values.astype(other)
                exact = bool(np.array_equal(there.astype(np.float64), values.astype(np.float64), equal_nan=True))
            if is_widening(names[name], number):
                assert exact, (name, other)
            else:
                assert not exact or (name == "float16") or other == "bool", (name, other)


CLIPS: list[tuple[str, Arrays, int, list[str], tuple[float | None, float | None]]] = [
    ("b = Clip(a, l, h)", {"l": F(-1), "h": F(6)}, 17, ["Clip", "Neg"], (0, 6)),
    ("b = Clip(a, , h)", {"h": F(6)}, 17, ["Clip", "Neg"], (0, 6)),
    ("b = Clip(a, l)", {"l": F(2)}, 17, ["Clip", "Neg"], (2, None)),
    ("c = Clip(a, l, h)\n b = Relu(c)", {"l": F(-1), "h": F(-0.5)}, 17, ["Clip", "Neg"], (-0.5, -0.5)),
    ("b = Clip<min=1.0, max=2.0>(a)", {}, 10, ["Clip", "Neg"], (1, 2)),
    ("b = Clip(a, l, h)", {"l": np.array(-3, F), "h": np.array(-2, F)}, 13, ["Clip", "Neg"], (-2, -2)),
]


@pytest.mark.parametrize(("body", "weights", "opset", "kept", "ends"), CLIPS)
def test_clips_merge(
    body: str, weights: Arrays, opset: int, kept: list[str], ends: tuple[float | None, float | None]
) -> None:
    before = built(body, "float[4,5]", weights, opset)
    after, _ = apply_pass(SimplifyLayout(), before)
    assert sorted(ops(after)) == kept
    check_numbers(before, after, exact=True)


def test_integers_clip_too() -> None:
    before = shaped_model(
        "g (int64[4] x) => (int64[] y) { a = Clip(x, l, h)\n y = Clip(a, , m) }",
        {"l": np.int64(-(2**62) - 1), "h": np.int64(2**62 + 1), "m": np.int64(2**62)},
    )
    after = check_rewrite(RULES["compose-clips"], before, ["Clip"])
    low, high = sorted(numpy_helper.to_array(t).item() for t in after.graph.initializer)
    assert (low, high) == (-(2**62) - 1, 2**62)


@pytest.mark.parametrize(
    ("why", "body", "weights"),
    [
        ("the bounds cross", "b = Clip(a, l, h)", {"l": F(2), "h": F(1)}),
        ("a NaN bound", "b = Clip(a, l)", {"l": F(np.nan)}),
        ("a bound at run time", "m = ReduceMax<keepdims=0>(x)\n b = Clip(a, , m)", {}),
        ("another reader", "c = Neg(a)\n d = Clip(a, l)\n b = Add(c, d)", {"l": F(1)}),
    ],
)
def test_other_clips_stay(why: str, body: str, weights: Arrays) -> None:
    check_untouched(RULES["compose-clips"], built(body, "float[4,5]", weights))


def test_doubles_are_clipped_where_the_runtime_can() -> None:
    text = "g (double[4] x) => (double[N] y) { a = Max(x, l)\n y = Min(a, h) }"
    weights = {"l": np.array(0.1), "h": np.array(1.0)}
    check_untouched(RULES["compose-clips"], model(text, weights, opset=10), because="no Clip of this dtype")
    check_rewrite(RULES["compose-clips"], model(text, weights, opset=12), ["Clip"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from([None, -2, -1, 0, 1, 2]), st.sampled_from([None, -2, -1, 0, 1, 2])), max_size=4)
)
def test_random_clips_keep_their_numbers(bounds: list[tuple[int | None, int | None]]) -> None:
    weights: dict[str, np.ndarray] = {}
    body, last = [], "a"
    for i, (low, high) in enumerate(bounds):
        ends = [f"{side}{i}" if v is not None else "" for side, v in (("l", low), ("h", high))]
        weights |= {n: np.array(v, F) for n, v in zip(ends, (low, high), strict=True) if v is not None}
        body.append(f"c{i} = Clip({last}, {ends[0]}, {ends[1]})" if any(ends) else f"c{i} = Relu({last})")
        last = f"c{i}"
    text = "\n ".join([*body, f"b = Abs({last})"]).replace(", )", ")")
    before = built(text, "float[4,5]", weights)
    after, _ = apply_pass(SimplifyLayout(), before)
    assert len(after.graph.node) <= len(before.graph.node)
    check_numbers(before, after, exact=True)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(*[st.integers(-9, 9)] * 2, st.sampled_from([1, 1, 2, 3, -1, -2])), min_size=2, max_size=4))
def test_random_slices_keep_their_numbers(ranges: list[tuple[int, int, int]]) -> None:
    """Of a known and an unknown dimension; whatever is taken, also nothing."""
    for kind in ("float[7]", "float[N]"):
        names = [f"w{i}" for i in range(len(ranges))]
        weights: dict[str, np.ndarray] = {"d": np.array([0])}
        body, last = [], "a"
        for name, (start, end, step) in zip(names, ranges, strict=True):
            weights |= {f"{name}s": np.array([start]), f"{name}e": np.array([end]), f"{name}t": np.array([step])}
            body.append(f"{name} = Slice({last}, {name}s, {name}e, d, {name}t)")
            last = name
        before = shaped_model(
            f"g ({kind} x) => (float[] y) {{ a = Relu(x)\n " + "\n ".join(body) + f"\n y = Neg({last}) }}", weights
        )
        after, _ = apply_pass(SimplifyLayout(), before)
        check_numbers(before, after, exact=True, N=7)
        check_numbers(before, after, exact=True, **({"N": 3} if "N" in kind else {}))


@pytest.mark.parametrize(
    ("body", "kind", "weights", "opset"),
    [
        (
            "c = Slice(a, s, e, d, t)\n b = Slice(c, u, f, d, v)",
            "float[20]",
            ints(s=[1], e=[2**63 - 1], d=[0], t=[3], u=[1], f=[4], v=[2]),
            17,
        ),
        ("c = Slice(a, s, e, d)\n b = Slice(c, s, e, g)", "float[N,M]", ints(s=[1], e=[2**31 - 1], d=[0], g=[1]), 17),
        ("c = Slice<starts=[1], ends=[-1]>(a)\n b = Slice<starts=[0,1], ends=[9,-1]>(c)", "float[6,5]", {}, 9),
    ],
)
def test_slices_merge(body: str, kind: str, weights: Arrays, opset: int) -> None:
    before = built(body, kind, weights, opset)
    check_rewrite(RULES["compose-slices"], before, ["Relu", "Slice", "Neg"], N=4, M=3)


@pytest.mark.parametrize(
    ("why", "body", "weights"),
    [
        (
            "a negative step",
            "c = Slice(a, s, e, d, t)\n b = Slice(c, z, e, d)",
            ints(s=[-1], e=[-99], d=[0], t=[-1], z=[0]),
        ),
        ("from the back of an unknown", "c = Slice(a, s, e, d)\n b = Slice(c, s, e, d)", ints(s=[-3], e=[99], d=[0])),
        ("another reader", "c = Slice(a, s, e, d)\n k = Slice(c, s, e, d)\n b = Sub(c, k)", ints(s=[0], e=[1], d=[0])),
    ],
)
def test_other_slices_stay(why: str, body: str, weights: Arrays) -> None:
    check_untouched(RULES["compose-slices"], built(body, "float[N]", weights))


@pytest.mark.parametrize(
    ("body", "weights", "fires"),
    [
        ("c = Gather<axis=1>(a, i)\n b = Gather<axis=-1>(c, j)", ints(i=[4, -1, 0, 2], j=[-1, 1, 1]), True),
        ("c = Gather<axis=1>(a, i)\n b = Gather<axis=1>(c, j)", {"i": np.array([4, 1]), "j": np.array(1)}, True),
        ("c = Gather<axis=1>(a, i)\n b = Gather<axis=0>(c, j)", ints(i=[4, 1], j=[1]), False),
        ("c = Gather<axis=1>(a, i)\n b = Gather<axis=1>(c, j)", {"i": np.array([[4, 1]]), "j": np.array([0])}, False),
    ],
)
def test_gathers(body: str, weights: Arrays, fires: bool) -> None:
    before = built(body, "float[2,5]", weights)
    if fires:
        check_rewrite(RULES["compose-gathers"], before, ["Relu", "Gather", "Neg"])
    else:
        check_untouched(RULES["compose-gathers"], before)


PADS: list[tuple[str, str, Arrays, int, bool]] = [
    ("sum", "c = Pad(a, p)\n b = Pad(c, q, v)", {**ints(p=[1, 0, 0, 2], q=[1, 1, 1, 0]), "v": F(0)}, 17, True),
    ("attributes", "c = Pad<pads=[1,0,0,2]>(a)\n b = Pad<pads=[1,1,1,0]>(c)", {}, 10, True),
    ("axes", "c = Pad(a, p, , d)\n b = Pad(c, q)", ints(p=[1, 2], d=[-1], q=[1, 1, 1, 0]), 18, True),
    ("other values", "c = Pad(a, p)\n b = Pad(c, p, v)", {**ints(p=[1, 0, 0, 2]), "v": F(1)}, 17, False),
    ("−0.0", "c = Pad(a, p)\n b = Pad(c, p, v)", {**ints(p=[1, 0, 0, 2]), "v": F(-0.0)}, 17, False),
    ("it crops", "c = Pad(a, p)\n b = Pad(c, q)", ints(p=[1, 0, 0, 2], q=[-1, 0, 0, 0]), 17, False),
    ("reflect", 'c = Pad<mode="reflect">(a, p)\n b = Pad<mode="reflect">(c, p)', ints(p=[1, 0, 0, 1]), 17, False),
    ("edge", 'c = Pad(a, p)\n b = Pad<mode="edge">(c, p)', ints(p=[1, 0, 0, 1]), 17, False),
]


@pytest.mark.parametrize(("why", "body", "weights", "opset", "fires"), PADS, ids=[p[0] for p in PADS])
def test_pads(why: str, body: str, weights: Arrays, opset: int, fires: bool) -> None:
    before = built(body, "float[3,4]", weights, opset)
    if fires:
        check_rewrite(RULES["compose-pads"], before, ["Relu", "Pad", "Neg"])
    else:
        check_untouched(RULES["compose-pads"], before)


@pytest.mark.parametrize(
    ("why", "body", "kind", "weights", "fires"),
    [
        ("of a number", "c = Expand(z, s)\n b = Mul(a, c)", "float[2,3]", ints(s=[2, 3]), True),
        ("of a symbol", "s = Shape(a)\n c = Expand(z, s)\n b = Mul(a, c)", "float[N,3]", {}, True),
        ("it makes the shape", "c = Expand(z, s)\n b = Mul(a, c)", "float[1,3]", ints(s=[2, 3]), False),
        ("of an unknown", "c = Expand(z, s)\n b = Mul(a, c)", "float[N,3]", ints(s=[2, 1]), False),
    ],
)
def test_expands(why: str, body: str, kind: str, weights: Arrays, fires: bool) -> None:
    text = f"g ({kind} x, float[1,3] z) => (float[] y) {{ a = Relu(x)\n {body}\n y = Neg(b) }}"
    before = shaped_model(text, weights)
    if fires:
        check_rewrite(RULES["drop-expand-before-broadcast"], before, ["Mul", "Neg", "Relu"], N=2)
    else:
        check_untouched(RULES["drop-expand-before-broadcast"], before)


def test_chains_merge_inside_bodies() -> None:
    before = model(
        "g (float[2,3] x, bool c) => (float[2,3] y) { y = If(c) <"
        "then_branch = t () => (float[2,3] p) { a = Transpose(x)\n b = Relu(a)\n p = Transpose(b) },"
        "else_branch = e () => (float[2,3] q) { a = Neg(x)\n b = Unsqueeze(a, s)\n q = Squeeze(b, s) }> }",
        ints(s=[0]),
    )
    after, _ = apply_pass(SimplifyLayout(), before)
    bodies = {a.name: [n.op_type for n in a.g.node] for a in after.graph.node[0].attribute}
    assert bodies == {"then_branch": ["Relu"], "else_branch": ["Neg"]}
    check_numbers(before, after, exact=True)
    assert after.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
