"""Optimizing a result again changes nothing: rounds of the pipeline, and types that only the result makes known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import ModelProto

from graphopt.facts import Facts
from graphopt.graph import Node, import_model
from graphopt.inference import infer_types, refresh_types
from graphopt.pipeline import MOST_ROUNDS, Context, Options, Pass, PassManager, Pipeline
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.dead_layers import CleanUp
from tests.fuzz.generate import stream
from tests.fuzz.models import Case
from tests.fuzz.oracle import SETTINGS, Setting, optimize
from tests.support.models import model


class Swap(Rule[Node]):
    """Puts one operator in the place of another: a step for pipelines that are tested here."""

    roots = ("Relu", "Abs", "Expand")

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        return node if node.op == self.old else NoMatch("another operator", node)

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        edit.replace(found, edit.node(self.new, found.inputs[:1]))


def swapping(name: str, *pairs: tuple[str, str]) -> Pass:
    """A pass that makes these swaps."""

    @dataclass(frozen=True)
    class Swapping(Pass):
        rules = tuple(Swap(old, new) for old, new in pairs)

    Swapping.name = name
    return Swapping()


def managed(proto: ModelProto, *passes: Pass) -> tuple[PassManager, Context]:
    """A manager that ran `passes`, and the context that they worked in."""
    graph = import_model(proto)
    infer_types(graph)
    context = Context(graph, Facts(graph), Rewriter(graph), Options())
    manager = PassManager(Pipeline(passes))
    manager.run(context)
    return manager, context


RELU = "g (float[2] x) => (float[2] y) { y = Relu(x) }"


def test_what_a_late_pass_leaves_is_done_by_an_early_one_in_the_next_round() -> None:
    manager, context = managed(model(RELU), swapping("early", ("Abs", "Neg")), swapping("late", ("Relu", "Abs")))
    assert [n.op for n in context.model.graph.nodes] == ["Neg"]
    assert [(r.number, r.text) for r in manager.records] == [(0, "early"), (1, "late"), (2, "early")]


def test_one_round_is_enough_where_nothing_changes() -> None:
    manager, _ = managed(model(RELU), swapping("early", ("Abs", "Neg")))
    assert [r.number for r in manager.records] == [0]


def test_passes_that_undo_each_other_end_and_are_named() -> None:
    manager, context = managed(model(RELU), swapping("there", ("Relu", "Abs")), swapping("back", ("Abs", "Relu")))
    assert len(manager.records) == 2 * MOST_ROUNDS
    assert ("swap", "these rules undo each other; stopped") in context.edit.log.refusals


def test_a_limit_counts_through_the_rounds() -> None:
    graph = import_model(model(RELU))
    context = Context(graph, Facts(graph), Rewriter(graph, limit=1), Options())
    PassManager(Pipeline((swapping("early", ("Abs", "Neg")), swapping("late", ("Relu", "Abs"))))).run(context)
    assert [n.op for n in graph.graph.nodes] == ["Abs"]
    assert context.edit.log.stopped_at_limit


def test_types_that_rewriting_makes_known_are_used_in_the_next_round() -> None:
    text = "g (float[2,3] x, int64[n] s) => (float y) { t = Expand(x, s) \n u = Relu(t) \n y = Squeeze(u) }"
    _, context = managed(model(text), CleanUp(), swapping("late", ("Expand", "Abs")))
    assert [n.op for n in context.model.graph.sorted_nodes()] == ["Abs", "Relu"]


def test_an_output_that_is_an_input_has_its_shape() -> None:
    graph = import_model(model("g (float[2,3] x) => (float[2,3] x, float y) { y = Relu(x) }"))
    infer_types(graph)
    assert graph.graph.outputs[1].shape == (2, 3)


def test_what_was_known_stays_known_when_types_are_inferred_again() -> None:
    graph = import_model(
        model("g (float[n] x, int64[1] s) => (float y) { t = Reshape(x, s) \n u = Relu(t) \n y = Relu(u) }")
    )
    infer_types(graph)
    t, u = (next(n.result for n in graph.graph.nodes if n.result.name == name) for name in "tu")
    t.shape, u.shape = ("n",), (7,)
    refresh_types(graph)
    assert t.shape == ("n",)
    assert u.shape == (7,)


PRESETS = [s for s in SETTINGS if s.pipeline in ("default", "clean") and s.target == "tensorrt"]


@pytest.mark.parametrize("setting", PRESETS, ids=str)
def test_a_second_run_changes_nothing_in_drawn_models(setting: Setting) -> None:
    cases: list[Case] = []
    draw: Callable[[int], None] = stream(20, cases.append)
    for number in range(25):
        draw(number)
    assert len(cases) > 10
    for case in cases:
        first = optimize(case.model, setting).model
        again = optimize(first, setting)
        assert again.report.applied == {}
        assert again.model == first


def test_a_constant_made_late_is_shared_with_a_body_that_was_visited_before() -> None:
    """Relu and Clip become one Clip with the bound 0, which the loop's body holds too."""
    proto = model(
        """g (float[4,5] x, float[2] s) => (float[4,5] y, float[2] z) {
        a = Relu(x) y = Clip(a, , six)
        z = Loop(n, , s) <body = b (int64 i, bool g, float[2] p) => (bool h, float[2] q) {
            m = Constant<value = float {0.0}>() f = ReduceMax<keepdims = 0>(p) h = Greater(f, m) q = Neg(p) }> }""",
        {"six": np.float32(6), "n": np.int64(3)},
        opset=12,
    )
    setting = Setting("default", "tensorrt")
    assert not optimize(optimize(proto, setting).model, setting).report.applied
