"""Inference in pieces tells what inference of the whole tells."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scale_models import FAMILIES
from graphopt import pieces
from graphopt.graph import Model, import_model
from graphopt.inference import infer_types
from graphopt.model import strict_problem
from tests.support.models import model

# the shape of each If's result depends on the input; the Unique's length is a dimension that onnx names
TEXT = """g (float[N,4] x, bool c) => (float[N,4] y, int64[2] z) {
    u, i = Unique<axis = 0>(x)
    a = If (c) < then_branch = t () => (float[] p) { p = Add(u, w) }, else_branch = e () => (float[] q) { q = Neg(u) } >
    v, j = Unique<axis = 0>(a)
    s = Shape(v)
    k = Relu(v)
    b = If (c) < then_branch = t2 () => (float[] p2) { r = Relu(k) p2 = Abs(r) }, else_branch = e2 () => (float[] q2) { q2 = Neg(a) } >
    y = Identity(x)
    z = Identity(s)
}"""  # noqa: E501


def types(graph: Model) -> dict[str, tuple[int | None, int | None, tuple[object, ...]]]:
    """dtype, rank, and the known dimensions of every tensor; names that onnx made up count as one."""
    return {
        t.name: (
            t.dtype,
            None if t.shape is None else len(t.shape),
            tuple("?" if str(d).startswith(pieces.MADE_UP) else d for d in t.shape or ()),
        )
        for g in graph.graphs()
        for n in g.nodes
        for t in n.outputs
        if t is not None
    }


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("family", ["text", "branches", "transformer"])
def test_pieces_tell_what_the_whole_tells(family: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model(TEXT, {"w": np.ones((1, 4), np.float32)}) if family == "text" else FAMILIES[family](200)
    whole, cut = import_model(proto), import_model(proto)
    infer_types(whole)
    monkeypatch.setattr(pieces, "MOST_HOLDERS", -1)
    monkeypatch.setattr(pieces, "PIECE_BODIES", size)
    monkeypatch.setattr(pieces, "PIECE_NODES", 40 * size)
    infer_types(cut)
    if family != "transformer":  # its shape arithmetic is followed within a piece only
        assert types(cut) == types(whole)
    assert {name: found[:2] for name, found in types(cut).items()} == {n: f[:2] for n, f in types(whole).items()}
    assert strict_problem(cut) is None


def test_dimensions_that_onnx_names_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MOST_HOLDERS", -1)
    monkeypatch.setattr(pieces, "PIECE_NODES", 1)
    graph = import_model(model(TEXT, {"w": np.ones((1, 4), np.float32)}))
    infer_types(graph)
    shapes = {t.name: t.shape for n in graph.graph.nodes for t in n.outputs if t is not None}
    assert shapes["u"] is not None
    assert shapes["v"] is not None
    assert shapes["u"][0] != shapes["v"][0]


def test_a_contradiction_is_found_in_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MOST_HOLDERS", -1)
    monkeypatch.setattr(pieces, "PIECE_NODES", 1)
    wrong = import_model(model("g (float[2,3] x, float[4,5] z) => (float[2,5] y) { a = Relu(x) y = MatMul(a, z) }"))
    assert strict_problem(wrong) is not None
