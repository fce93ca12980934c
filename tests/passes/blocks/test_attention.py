"""Attention written as two products around a Softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

import graphopt
from graphopt.targets import Target
from graphopt_passes.blocks.attention import RecognizeAttention
from tests.passes.vertical.weights import normal, used
from tests.support.models import model, run
from tests.support.rewrites import apply, check_numbers, check_untouched

RULE = RecognizeAttention()
WEIGHTS = {
    "c": np.float32(0.25),
    "d": np.float32(4.0),
    "n": np.float32(-4.0),
    "row": np.array([0.5], np.float32),
    "bias": normal(1, 4, 5, 7),
    "pad": np.where(np.arange(7) < 5, 0, -3e38).astype(np.float32).reshape(1, 1, 1, 7),
    "causal": np.where(np.tri(5, 7, 2) > 0, 0, -np.inf).astype(np.float32),
    "thin": normal(2, 4, 5, 1),
    "five": normal(3, 1, 1, 1, 1),
    "minus": np.float32(-np.inf),
    "large": np.float32(-1e4),
    "two": np.array([2]),
    "twice": np.array([1, 1, 2, 1, 1]),
    "heads": np.array([2, 4, 7, 8]),
    "t1": normal(4, 1, 1),
}
INPUTS = "float[2,4,5,8] q, float[2,4,7,8] k, float[2,4,7,6] v"


def graph(text: str, inputs: str = INPUTS, opset: int = 23, dims: str = "A,B,C,D") -> ModelProto:
    text = f"graph ({inputs}) => (float[{dims}] y) {{ {text} }}"
    return model(text, used(WEIGHTS, text), opset=opset)


PLAIN = "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) p = Softmax<axis=-1>(s) y = MatMul(p, v)"
SPELLINGS = [
    (PLAIN, 1.0),
    (PLAIN.replace("p = Softmax<axis=-1>(s)", "e = Mul(s, c) p = Softmax<axis=-1>(e)"), 0.25),
    (PLAIN.replace("p = Softmax<axis=-1>(s)", "e = Div(s, d) p = Softmax(e)"), 0.25),
    (PLAIN.replace("MatMul(q, t)", "MatMul(a, b)").replace("s =", "a = Mul(q, row) b = Mul(row, t) s ="), 0.25),
    (PLAIN.replace("(k)", "(b)").replace("t =", "b = Div(k, d) t ="), 0.25),
    (PLAIN.replace("p = Softmax<axis=-1>(s)", "e = Mul(s, c) f = Add(e, bias) p = Softmax<axis=3>(f)"), 0.25),
    (PLAIN.replace("p = Softmax<axis=-1>(s)", "e = Mul(s, c) f = Add(causal, e) p = Softmax<axis=-1>(f)"), 0.25),
    (PLAIN.replace("p = Softmax<axis=-1>(s)", "e = Div(s, d) f = Add(e, bias) g = Add(f, pad) p = Softmax(g)"), 0.25),
]  # fmt: skip


@pytest.mark.parametrize(("text", "scale"), SPELLINGS)
def test_spellings(text: str, scale: float) -> None:
    before = graph(text)
    result, log = apply(RULE, before, Target.PORTABLE)
    operators = [n.op_type for n in result.graph.node]
    assert operators == ["Attention"]
    assert len(log.applications) == 1
    assert result.graph.node[-1].attribute[0].f == np.float32(scale)
    check_numbers(before, result, exact=False)


def test_a_truth_mask() -> None:
    text = "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) w = Where(m, s, minus) p = Softmax(w) y = MatMul(p, v)"
    before = graph(text, INPUTS + ", bool[2,1,5,7] m")
    result, _ = apply(RULE, before, Target.PORTABLE)
    assert [n.op_type for n in result.graph.node] == ["Attention"]
    allowed = np.tri(5, 7, 1, dtype=bool)[None, None].repeat(2, 0)
    given = {"q": normal(2, 4, 5, 8), "k": normal(2, 4, 7, 8), "v": normal(2, 4, 7, 6), "m": allowed}
    check_numbers(before, result, exact=False, inputs=given)


def test_a_transpose_that_splits_heads_too() -> None:
    text = "t = Transpose<perm=[0,2,3,1]>(k) s = MatMul(q, t) p = Softmax(s) y = MatMul(p, v)"
    before = graph(text, "float[2,4,5,8] q, float[2,7,4,8] k, float[2,4,7,6] v")
    result, _ = apply(RULE, before, Target.PORTABLE)
    assert [n.op_type for n in result.graph.node] == ["Transpose", "Attention"]
    check_numbers(before, result, exact=False)


GROUPED = """ku = Unsqueeze(k, two) ke = Expand(ku, twice) kr = Reshape(ke, heads)
             vu = Unsqueeze(v, two) ve = Expand(vu, twice) vr = Reshape(ve, heads)
             t = Transpose<perm=[0,1,3,2]>(kr) s = MatMul(q, t) e = Mul(s, c) p = Softmax(e) y = MatMul(p, vr)"""
GROUPED_INPUTS = "float[2,4,5,8] q, float[2,2,7,8] k, float[2,2,7,8] v"


def test_grouped_queries() -> None:
    before = graph(GROUPED, GROUPED_INPUTS)
    result, _ = apply(RULE, before, Target.PORTABLE)
    assert [n.op_type for n in result.graph.node] == ["Attention"]
    check_numbers(before, result, exact=False)


def test_grouped_keys_alone_stay_repeated() -> None:
    text = GROUPED.replace("MatMul(p, vr)", "MatMul(p, v4)").replace(
        "vr = Reshape(ve, heads)", "v4 = Concat<axis=1>(v, v)"
    )
    before = graph(text.replace("ve = Expand(vu, twice)", ""), GROUPED_INPUTS)
    result, log = apply(RULE, before, Target.PORTABLE)
    assert "Expand" in [n.op_type for n in result.graph.node]
    assert log.applications
    check_numbers(before, result, exact=False)


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        (PLAIN, "float[B,4,S,8] q, float[B,4,L,8] k, float[B,4,L,6] v"),
        (PLAIN.replace("[0,1,3,2]", "[0,2,3,1]"), "float[B,H,S,8] q, float[B,L,H,8] k, float[B,H,L,E] v"),
        (PLAIN.replace("p = Softmax<axis=-1>(s)", "e = Mul(s, c) f = Add(e, m) p = Softmax(f)"),
         "float[B,4,S,8] q, float[B,4,L,8] k, float[B,4,L,8] v, float[B,1,S,L] m"),
        (PLAIN.replace("p = Softmax<axis=-1>(s)", "f = Add(m, s) p = Softmax(f)"),
         "float[B,4,S,8] q, float[B,4,L,8] k, float[B,4,L,8] v, float[S,L] m"),
    ],
)  # fmt: skip
def test_dimensions_that_are_symbols(text: str, inputs: str) -> None:
    before = graph(text, inputs, dims="A,R,C,D")
    result, log = apply(RULE, before, Target.PORTABLE)
    assert len(log.applications) == 1
    assert "Softmax" not in {n.op_type for n in result.graph.node}
    check_numbers(before, result, exact=False, B=3, H=2, S=5, L=7, E=3)


def test_grouped_queries_of_symbols() -> None:
    """As Llama is exported: what Expand and Reshape are told is computed of the shapes."""
    shapes = """b = Shape<start=0, end=1>(k) l = Shape<start=2, end=3>(k)
                o = Concat<axis=0>(b, four, l, eight) w = Concat<axis=0>(b, two, two, l, eight) """
    text = GROUPED.replace("heads)", "o)").replace("twice)", "w)")
    text = f"graph (float[B,4,S,8] q, float[B,2,L,8] k, float[B,2,L,8] v) => (float[A,R,C,D] y) {{ {shapes} {text} }}"
    weights = {**WEIGHTS, "four": np.array([4]), "eight": np.array([8])}
    before = model(text, used(weights, text), opset=23)
    result = graphopt.optimize(before, target="portable", verify=False).model
    assert {"Softmax", "Expand"}.isdisjoint(n.op_type for n in result.graph.node)
    check_numbers(before, result, exact=False, B=3, S=5, L=7)


def test_a_mask_of_another_symbol_may_enlarge() -> None:
    text = PLAIN.replace("p = Softmax<axis=-1>(s)", "f = Add(s, m) p = Softmax(f)")
    before = graph(text, "float[B,4,S,8] q, float[B,4,L,8] k, float[B,4,L,8] v, float[B,1,R,L] m")
    check_untouched(RULE, before, "may enlarge", target=Target.PORTABLE)


@pytest.mark.parametrize("mask", ["f = Add(s, m)", "f = Where(m, s, minus)"])
def test_a_mask_of_a_larger_batch_enlarges(mask: str) -> None:
    text = PLAIN.replace("p = Softmax<axis=-1>(s)", f"{mask} p = Softmax(f)")
    kind = "bool" if "Where" in mask else "float"
    before = graph(text, f"float[1,4,5,8] q, float[1,4,7,8] k, float[1,4,7,6] v, {kind}[2,1,5,7] m")
    check_untouched(RULE, before, "may enlarge", target=Target.PORTABLE)


@pytest.mark.parametrize(
    ("why", "text", "inputs", "because"),
    [
        ("another axis", PLAIN.replace("axis=-1", "axis=1"), INPUTS, "over the last axis"),
        ("no transpose", "s = MatMul(q, k) p = Softmax(s) y = MatMul(p, v)",
         "float[2,4,5,8] q, float[2,4,8,7] k, float[2,4,7,6] v", "with a transpose"),
        ("the scores are read", "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) p = Softmax(s) o = MatMul(p, v) "
         "z = ReduceMax(s) y = Add(o, z)", INPUTS, "scaled and masked product"),
        ("the weights are read", "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) p = Softmax(s) o = MatMul(p, v) "
         "z = ReduceMax(p) y = Add(o, z)", INPUTS, "no Softmax"),
        ("a negative scale", PLAIN.replace("p = Softmax<axis=-1>(s)", "e = Div(s, n) p = Softmax(e)"), INPUTS,
         "not positive"),
        ("a scale for each head", PLAIN.replace("p = Softmax<axis=-1>(s)", "e = Mul(s, t1) p = Softmax(e)"), INPUTS,
         "scaled and masked product"),
        ("a mask for each query", PLAIN.replace("p = Softmax<axis=-1>(s)", "e = Add(s, thin) p = Softmax(e)"), INPUTS,
         "one column a key"),
        ("one value for the batch", PLAIN, "float[2,4,5,8] q, float[2,4,7,8] k, float[1,4,7,6] v", "not surely equal"),
        ("one key for all heads", PLAIN, "float[2,4,5,8] q, float[2,1,7,8] k, float[2,4,7,6] v", "not surely equal"),
        ("rank 3", PLAIN.replace("[0,1,3,2]", "[0,2,1]"),
         "float[2,5,8] q, float[2,7,8] k, float[2,7,6] v", "last axis"),
        ("unknown batches", PLAIN, "float[a,4,5,8] q, float[b,4,7,8] k, float[c,4,7,6] v", "not surely equal"),
        ("a finite fill", "t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) w = Where(m, s, large) p = Softmax(w) "
         "y = MatMul(p, v)", INPUTS + ", bool[2,1,5,7] m", "scaled and masked product"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, text: str, inputs: str, because: str) -> None:
    check_untouched(
        RULE, graph(text, inputs, dims="A,B,C" if why == "rank 3" else "A,B,C,D"), because, target=Target.PORTABLE
    )


def test_an_older_opset_is_told_what_it_lacks() -> None:
    check_untouched(RULE, graph(PLAIN, opset=20), "take --opset 23", target=Target.PORTABLE)


@pytest.mark.parametrize(
    ("dtype", "width", "mask", "because"),
    [
        ("float", 16, "", "for float32"),
        ("float16", 8, "", "of this width"),
        ("float16", 20, "", "of this width"),
        ("float16", 264, "", "of this width"),
        ("float16", 16, "bool[2,1,5,7] m", "truth values"),
        ("float16", 16, "", None),
        ("bfloat16", 64, "", None),
        ("float16", 256, "float16[5,7] f", None),
    ],
)
def test_what_tensorrt_has_kernels_for(dtype: str, width: int, mask: str, because: str | None) -> None:
    scores = {"m": "w = Where(m, s, minus)", "f": "w = Add(s, f)", "": "w = Identity(s)"}[mask[-1:]]
    shape = f"{dtype}[2,4,5,{width}] q, {dtype}[2,4,7,{width}] k, {dtype}[2,4,7,{width}] v"
    text = f"""graph ({shape}{", " if mask else ""}{mask}) => ({dtype}[A,B,C,D] y) {{
                 t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t) {scores} p = Softmax(w) y = MatMul(p, v) }}"""
    text = text.replace("w = Identity(s)", "").replace("Softmax(w)", "Softmax(s)") if not mask else text
    weights = {"minus": np.asarray(-np.inf, np.float16 if dtype == "float16" else np.float32)}
    proto = model(text, used(weights, text), opset=23)
    if because is not None:
        check_untouched(RULE, proto, because)
    else:
        assert [n.op_type for n in apply(RULE, proto)[0].graph.node] == ["Attention"]


LOWEST = np.finfo(np.float32).min
MASKED = PLAIN.replace("p = Softmax<axis=-1>(s)", "e = Mul(s, c) f = Add(e, w) p = Softmax(f)")


@pytest.mark.parametrize("mask", ["w = Where(m, zero, lowest)", "i = Cast<to=1>(m) o = Sub(one, i) w = Mul(o, lowest)"])
def test_queries_without_any_key_keep_equal_weights(mask: str) -> None:
    text = f"graph ({INPUTS}, bool[2,1,5,7] m) => (float[A,B,C,D] y) {{ {mask} {MASKED} }}"
    numbers = {"zero": np.float32(0), "one": np.float32(1), "lowest": LOWEST, "c": WEIGHTS["c"]}
    before = model(text, used(numbers, text), opset=23)
    result, _ = apply(RULE, before, Target.PORTABLE)
    assert "Attention" in [n.op_type for n in result.graph.node]
    allowed = np.tri(5, 7, 1, dtype=bool)[None, None].repeat(2, 0)
    allowed[1, :, 2] = False
    given = {"q": normal(2, 4, 5, 8), "k": normal(2, 4, 7, 8), "v": normal(2, 4, 7, 6), "m": allowed}
    check_numbers(before, result, exact=False, inputs=given)


def test_a_mended_mask_beside_the_old_one_has_another_name() -> None:
    both = f"w = Where(m, zero, lowest) {MASKED.replace('y =', 'o =')} r = ReduceMax(w) y = Add(o, r)"
    text = f"graph ({INPUTS}, bool[2,1,5,7] m) => (float[A,B,C,D] y) {{ {both} }}"
    before = model(text, used({"zero": np.float32(0), "lowest": LOWEST, "c": WEIGHTS["c"]}, text), opset=23)
    before.graph.node[0].name = "mask"
    result, log = apply(RULE, before, Target.PORTABLE)
    assert len(log.applications) == 1
    assert [n.name for n in result.graph.node if n.op_type == "Where"].count("mask") == 1


# a row that is left without a key is masked by the lowest number from more than one place, or not where it is made
LATE = {
    "a causal mask inside": "w = Where(m, triangle, lowest)",
    "a causal mask beside": "b = Where(m, zero, lowest) w = Add(b, triangle)",
    "a learned bias": "b = Where(m, zero, lowest) w = Add(bias, b)",
    "expanded": "b = Expand(lowest, shape) w = Where(m, zero, b)",
    "made of a shape": "b = ConstantOfShape<value = float[1] {-3.4028235e38}>(shape) w = Where(m, zero, b)",
    "the smaller one": "b = Where(m, zero, lowest) w = Min(b, triangle)",
    "carried": "b = Where(m, zero, lowest) w = Identity(b)",
    "the greater one": "b = Where(m, zero, minus) w = Max(b, lowest)",
    "negative": "i = Cast<to=1>(m) o = Sub(one, i) b = Mul(o, highest) w = Neg(b)",
    "joined": "b = Where(m, zero, lowest) b0, b1 = Split<axis=2, num_outputs=2>(b) w = Concat<axis=2>(b0, b1)",
    "of doubles": "b = Where(m, wide_zero, wide) w = Cast<to=1>(b)",
    "a product": "b = Where(m, zero, eighth) w = Mul(b, eight)",
    "by parts": "i = Sigmoid(r) o = Sub(one, i) b = Mul(o, lowest) d = Where(m, zero, b) w = Where(m, d, lowest)",
}
MASK_NUMBERS = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "lowest": LOWEST,
    "highest": -LOWEST,
    "minus": np.float32(-np.inf),
    "wide": np.float64(LOWEST),
    "wide_zero": np.float64(0),
    "eighth": np.float32(LOWEST / 8),
    "eight": np.float32(8),
    "c": WEIGHTS["c"],
    "bias": WEIGHTS["bias"],
    "triangle": np.where(np.tri(5, 7, 1) > 0, 0, LOWEST).astype(np.float32),
    "shape": np.array([1, 1, 5, 7]),
}


@pytest.mark.parametrize("mask", LATE.values(), ids=LATE)
def test_a_lowest_number_from_elsewhere_is_raised_in_the_sum(mask: str) -> None:
    text = f"graph ({INPUTS}, bool[2,1,5,7] m, float[2,1,5,7] r) => (float[A,B,C,D] y) {{ {mask} {MASKED} }}"
    before = model(text, used(MASK_NUMBERS, text), opset=23)
    result, _ = apply(RULE, before, Target.PORTABLE)
    assert [n.op_type for n in result.graph.node][-3:] == ["Equal", "Where", "Attention"]
    allowed = np.tri(5, 7, 1, dtype=bool)[None, None].repeat(2, 0)
    allowed[1, :, 2] = False
    allowed[0, :, 1:] = False  # left padding leaves the first queries without a key
    allowed[0, :3] = False
    given = {"q": normal(2, 4, 5, 8), "k": normal(2, 4, 7, 8), "v": normal(2, 4, 7, 6), "m": allowed}
    check_numbers(before, result, exact=False, inputs={**given, "r": normal(2, 1, 5, 7)})


def test_a_lowest_number_in_two_masks() -> None:
    """Both are added to the scores: where they meet, −∞ is left, and the numbers beside it still have no weight."""
    both = "w = Where(m, zero, lowest)" + MASKED.replace("f =", "g = Add(e, triangle) f =").replace(
        "Add(e, w)", "Add(g, w)"
    )
    text = f"graph ({INPUTS}, bool[1,1,1,7] m) => (float[A,B,C,D] y) {{ {both} }}"
    before = model(text, used(MASK_NUMBERS, text), opset=23)
    result, _ = apply(RULE, before, Target.PORTABLE)
    assert [n.op_type for n in result.graph.node][-3:] == ["Equal", "Where", "Attention"]
    allowed = np.array([False, False, False, True, True, True, True]).reshape(1, 1, 1, 7)
    given = {"q": normal(2, 4, 5, 8), "k": normal(2, 4, 7, 8), "v": normal(2, 4, 7, 6), "m": allowed}
    check_numbers(before, result, exact=False, inputs=given)


def test_a_mask_that_enters_a_loop() -> None:
    """What a body is given is made somewhere else; what a model is given, its caller makes."""
    body = f"d = Identity(on) n = Identity(w) {MASKED.replace('y =', 'o =')}"
    text = f"""graph ({INPUTS}, bool[1,1,5,7] m) => (float[R,A,B,C,D] y) {{ mask = Where(m, zero, lowest)
                 last, y = Loop(twice, , mask) <body = b (int64 i, bool on, float[1,1,5,7] w)
                   => (bool d, float[1,1,5,7] n, float[A1,B1,C1,D1] o) {{ {body} }}> }}"""
    before = model(text, used({**MASK_NUMBERS, "twice": np.array(2)}, text), opset=23)
    result, log = apply(RULE, before, Target.PORTABLE)
    assert len(log.applications) == 1
    allowed = np.ones((1, 1, 5, 7), bool)
    allowed[:, :, :3] = False
    given = {"q": normal(2, 4, 5, 8), "k": normal(2, 4, 7, 8), "v": normal(2, 4, 7, 6), "m": allowed}
    check_numbers(before, result, exact=False, inputs=given)


def test_the_lowest_number_in_constants() -> None:
    first, second = np.zeros((5, 7), np.float32), np.zeros((5, 7), np.float32)
    first[0, 1:], second[0, 0] = LOWEST, LOWEST
    both = MASKED.replace("f =", "g = Add(e, u) f =").replace("Add(e, w)", "Add(g, w)")
    before = model(
        f"graph ({INPUTS}) => (float[A,B,C,D] y) {{ {both} }}", {"u": first, "w": second, "c": WEIGHTS["c"]}, opset=23
    )
    result, _ = apply(RULE, before, Target.PORTABLE)
    assert [n.op_type for n in result.graph.node] == ["Attention"]
    check_numbers(before, result, exact=False)


HALF_MASKS = {
    "the lowest beside it": ("w = Where(m, triangle, lowest)", True),
    "computed in float32": ("b = Where(m, wide_zero, wide) w = Cast<to=10>(b)", True),
    "of integers": ("b = Where(m, none, many) w = Cast<to=10>(b)", True),
    "a learned bias": ("b = Where(m, zero, lowest) w = Add(b, triangle)", True),
    "another number": ("w = Where(m, zero, low)", False),
    "another number of integers": ("i = Cast<to=10>(m) o = Sub(one, i) w = Mul(o, low)", False),
}


@pytest.mark.parametrize(("mask", "mended"), HALF_MASKS.values(), ids=HALF_MASKS)
@pytest.mark.parametrize("target", [Target.PORTABLE, Target.TENSORRT])
def test_the_lowest_number_of_float16(mask: str, mended: bool, target: Target) -> None:
    """Compared in float32, for which runtimes have kernels."""
    half = "float16[2,4,5,16] q, float16[2,4,7,16] k, float16[2,4,7,16] v"
    text = f"graph ({half}, bool[2,1,5,7] m) => (float16[A,B,C,D] y) {{ {mask} {MASKED} }}"
    numbers = {
        "triangle": np.where(np.tri(5, 7, 1) > 0, 0, -65504).astype(np.float16),
        "c": np.float16(0.25),
        "zero": np.float16(0),
        "one": np.float16(1),
        "lowest": np.float16(-65504),
        "low": np.float16(-60000),
        "wide": np.float32(-65504),
        "wide_zero": np.float32(0),
        "many": np.array(-65504),
        "none": np.array(0),
    }
    result, _ = apply(RULE, model(text, used(numbers, text), opset=23), target)
    tail = ["Cast", "Equal", "Where", "Attention"] if mended else ["Attention"]
    assert [n.op_type for n in result.graph.node][-len(tail) :] == tail
    assert [n.op_type for n in result.graph.node].count("Equal") == mended
    allowed = np.tri(5, 7, 1, dtype=bool)[None, None].repeat(2, 0)
    allowed[0, :3] = False
    given = {"q": normal(2, 4, 5, 16), "k": normal(2, 4, 7, 16), "v": normal(2, 4, 7, 16)}
    (y,) = run(result, {**{name: a.astype(np.float16) for name, a in given.items()}, "m": allowed})
    assert np.abs(y[0, :, 0]).max() > 0  # not the zeros of a row that is taken for one without any key


def test_masks_of_one_row() -> None:
    row = np.array([0, 0, 0, 0, 0, -1e4, -1e4], np.float32)
    text = f"graph ({INPUTS}) => (float[A,B,C,D] y) {{ {MASKED} }}"
    for mask in (row, np.full(7, LOWEST, np.float32)):
        before = model(text, {"w": mask, "c": WEIGHTS["c"]}, opset=23)
        result, _ = apply(RULE, before, Target.PORTABLE)
        assert [n.op_type for n in result.graph.node] == ["Attention"]
        check_numbers(before, result, exact=False)


def test_a_choice_between_truth_values_is_a_mask() -> None:
    text = f"graph ({INPUTS}, bool[5,7] m, bool[5,7] o) => (float[A,B,C,D] y) {{ w = Where(m, yes, o) "
    text += PLAIN.replace("p = Softmax<axis=-1>(s)", "f = Where(w, s, minus) p = Softmax(f)") + " }"
    result, _ = apply(RULE, model(text, {"yes": np.True_, "minus": np.float32(-np.inf)}, opset=23), Target.PORTABLE)
    assert [n.op_type for n in result.graph.node] == ["Where", "Attention"]


def test_a_constant_that_masks_a_whole_row() -> None:
    text = f"graph ({INPUTS}) => (float[A,B,C,D] y) {{ {MASKED} }}"
    mask = np.zeros((5, 7), np.float32)
    mask[2] = -np.inf
    check_untouched(
        RULE, model(text, {"w": mask, "c": WEIGHTS["c"]}, opset=23), "without any key", target=Target.PORTABLE
    )


@pytest.mark.parametrize("shape", ["2,1,1,7", "1,7", "7"])
def test_a_mask_for_all_queries_gets_a_row_for_each(shape: str) -> None:
    before = graph(MASKED, f"{INPUTS}, float[{shape}] w")
    result, _ = apply(RULE, before, Target.PORTABLE)
    assert [n.op_type for n in result.graph.node] == ["Expand", "Attention"]
    check_numbers(before, result, exact=False)
    dynamic = graph(MASKED, f"float[2,4,S,8] q, float[2,4,7,8] k, float[2,4,7,6] v, float[{shape}] w")
    check_untouched(RULE, dynamic, "not static", target=Target.PORTABLE)


@given(data=st.data())
@settings(max_examples=30, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    heads, groups = data.draw(st.sampled_from([(4, 4), (4, 1), (4, 2)]))
    text, _ = data.draw(st.sampled_from(SPELLINGS))
    batch = data.draw(st.sampled_from(["2", "N"]))
    masks = ["bias", "pad", "causal"]
    if data.draw(st.booleans()):
        text = text.replace("bias", data.draw(st.sampled_from([*masks, "thin"])))
    before = graph(text, f"float[{batch},{heads},5,8] q, float[{batch},{groups},7,8] k, float[{batch},{heads},7,6] v")
    if groups == 2:  # not broadcastable
        before = graph(text, f"float[{batch},{heads},5,8] q, float[{batch},{heads},7,8] k, float[1,{heads},7,6] v")
    result, log = apply(RULE, before, Target.PORTABLE)
    if log.applications:
        check_numbers(before, result, exact=False, N=2)
    else:
        assert result == before
