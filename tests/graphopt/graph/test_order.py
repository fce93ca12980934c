"""Levels, parts and reachability."""

from __future__ import annotations

from graphopt.graph import Node, import_model
from graphopt.graph.order import depends_on, levels, parts
from tests.support.models import model


def nodes(text: str) -> dict[str, Node]:
    graph = import_model(model(text)).graph
    return {n.result.name: n for n in graph.nodes}


DIAMOND = (
    "g (float[2] x, float[2] z) => (float[2] y, float[2] w) "
    "{ a = Relu(x) b = Neg(a) c = Abs(a) y = Add(b, c) w = Exp(z) }"
)


def test_levels_are_what_may_run_at_once() -> None:
    found = nodes(DIAMOND)
    names = [sorted(n.result.name for n in level) for level in levels(found["a"].owner)]
    assert names == [["a", "w"], ["b", "c"], ["y"]]


def test_parts_share_nothing() -> None:
    found = nodes(DIAMOND)
    assert sorted(sorted(n.result.name for n in part) for part in parts(found["a"].owner)) == [
        ["a", "b", "c", "y"],
        ["w"],
    ]


def test_reachability() -> None:
    found = nodes(DIAMOND)
    assert depends_on(found["y"], found["a"])
    assert not depends_on(found["b"], found["c"])
    assert not depends_on(found["a"], found["a"])


def test_what_a_body_captures_counts() -> None:
    found = nodes(
        "g (float[2] x, bool c) => (float[2] y) { a = Relu(x) y = If (c) "
        "<then_branch = t () => (float[2] p) { p = Neg(a) }, else_branch = e () => (float[2] p) { p = Abs(x) }> }"
    )
    assert depends_on(found["y"], found["a"])
