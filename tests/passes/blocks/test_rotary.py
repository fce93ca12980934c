"""Rotary position embeddings become one operator where both halves surely turn by the same angles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt_passes.blocks.rotary import RecognizeRotaryEmbedding
from tests.support.models import Arrays, model
from tests.support.rewrites import check_rewrite, check_untouched

RULE = RecognizeRotaryEmbedding()
F = np.float32
HEAD = "g (float[{b},2,3,4] x, float[{b},2,3] p, float[{b},1,3,4] t) => (float[{b},2,3,4] y)"
ANGLES = "a = Transpose<perm=[0,2,1]>(p) f = Concat<axis=-1>(a, a) e = Unsqueeze(f, one) c = Cos(e) s = Sin(e)"
TURN = "l, r = Split<axis=-1>(x, sizes) n = Neg(r) o = Concat<axis=-1>(n, l)"
SUM = "u = Mul(x, c) v = Mul(o, s) y = Add(u, v)"
SIZES: Arrays = {"sizes": np.array([2, 2]), "one": np.array([1])}


def text(angles: str = ANGLES, turn: str = TURN, total: str = SUM, batch: object = "B") -> str:
    return f"{HEAD.format(b=batch)} {{ {angles} {turn} {total} }}"


SPELLINGS = [
    ("angles twice", ANGLES, SUM),
    ("cosines twice", "a = Transpose<perm=[0,2,1]>(p) k = Cos(a) q = Sin(a) w = Concat<axis=2>(k, k)"
     " z = Concat<axis=2>(q, q) c = Unsqueeze(w, one) s = Unsqueeze(z, one)", SUM),
    ("tiled before the transpose", "f = Tile(p, twice) a = Transpose<perm=[0,2,1]>(f) e = Unsqueeze(a, one) c = Cos(e)"
     " s = Sin(e)", SUM),
    ("factors and terms exchanged", ANGLES, "u = Mul(c, x) v = Mul(s, o) y = Add(v, u)"),
]  # fmt: skip


@pytest.mark.parametrize(("why", "angles", "total"), SPELLINGS, ids=[s[0] for s in SPELLINGS])
def test_it_is_recognized(why: str, angles: str, total: str) -> None:
    before = model(text(angles, total=total, batch=2), {**SIZES, "twice": np.array([1, 2, 1])}, opset=23)
    made = ["Cos", "RotaryEmbedding", "Sin", "Squeeze", "Squeeze", "Transpose"]
    after = check_rewrite(RULE, before, sorted([*made, *_unsqueezes(angles)]), B=2)
    assert "Split" not in [n.op_type for n in after.graph.node]


def _unsqueezes(angles: str) -> list[str]:
    return ["Unsqueeze"] * angles.count("Unsqueeze")


def test_constant_tables_are_halved() -> None:
    tables = {"c": np.tile(np.linspace(0, 1, 6, dtype=F).reshape(1, 1, 3, 2), 2)}
    tables["s"] = np.sqrt(1 - tables["c"] ** 2)
    after = check_rewrite(
        RULE, model(text("", batch=1), {"sizes": SIZES["sizes"], **tables}, opset=23), ["RotaryEmbedding"]
    )
    assert sorted(list(t.dims) for t in after.graph.initializer) == [[1, 3, 2], [1, 3, 2]]


def test_constant_tables_that_differ_stay() -> None:
    tables = {n: np.arange(12, dtype=F).reshape(1, 1, 3, 4) for n in ("c", "s")}
    check_untouched(
        RULE,
        model(text("", batch=1), {"sizes": SIZES["sizes"], **tables}, opset=23),
        because="differ between the halves",
    )


NEAR = [
    ("the tables are inputs", text("c = Cos(t) s = Sin(t)"), 23, "may differ"),
    ("two halves", text(ANGLES.replace("(a, a)", "(a, k)").replace("f =", "k = Neg(a) f =")), 23, "may differ"),
    ("the first half is negated", text(turn=TURN.replace("Neg(r)", "Neg(l)").replace("(n, l)", "(n, r)")), 23, ""),
    ("the negated half comes last", text(turn=TURN.replace("(n, l)", "(l, n)")), 23, ""),
    ("nothing is negated", text(turn=TURN.replace("Neg", "Abs")), 23, ""),
    ("unequal parts", text(turn=TURN.replace("sizes", "parts")), 23, ""),
    ("another tensor is turned", text(turn="b = Abs(x) " + TURN.replace("(x, sizes)", "(b, sizes)")), 23, ""),
    ("one table for all", text(ANGLES + " d = ReduceMax<keepdims=1>(c, none)", total=SUM.replace("x, c", "x, d")),
     23, "one table for each batch element"),
    ("the turned is read twice", text(total=SUM.replace("y =", "m = Add(v, o) y =").replace("u, v", "u, m")), 23, ""),
    ("doubles", text().replace("float[", "double["), 23, "floats that the operator takes"),
    ("an opset without it", text(), 22, "opset 23"),
]  # fmt: skip


@pytest.mark.parametrize(("why", "before", "opset", "because"), NEAR, ids=[n[0] for n in NEAR])
def test_near_misses_stay(why: str, before: str, opset: int, because: str) -> None:
    weights = {**SIZES, "parts": np.array([1, 3]), "none": np.array([0])}
    check_untouched(RULE, model(before, weights, opset=opset), because=because)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_numbers_hold(batch: int, heads: int, length: int, half: int) -> None:
    size = f"{batch},{heads},{length},{2 * half}"
    head = f"g (float[{size}] x, float[{batch},{half},{length}] p) => (float[{size}] y)"
    before = model(f"{head} {{ {ANGLES} {TURN} {SUM} }}", {**SIZES, "sizes": np.array([half, half])}, opset=23)
    made = ["Cos", "RotaryEmbedding", "Sin", "Squeeze", "Squeeze", "Transpose", "Unsqueeze"]
    check_rewrite(RULE, before, made)
