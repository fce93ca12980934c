"""Time grows with the graph, not with its square: rules are asked a bounded number of times a node, links stay cheap.

Counts, not seconds: twice the nodes may take twice the questions and a little more.
"""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType

import numpy as np
import pytest
from onnx import ModelProto

import graphopt
from benchmarks.scale_corners import CORNERS
from benchmarks.scale_models import FAMILIES
from graphopt.driver import run_rules
from graphopt.facts import Facts
from graphopt.graph import Node, ProtoConstant, import_model
from graphopt.rewrite import Rewriter
from graphopt.rule import Rule

pytestmark = pytest.mark.unchecked  # how work grows, which checking would hide

SMALL, LARGE = 200, 800
# more than the ratio of sizes: what is done once a model counts in the small one, and a group at its edges
MOST = 1.25 * LARGE / SMALL


def calls(proto: ModelProto) -> Counter[str]:
    """How often each function of the engine and of the passes is called or calls a builtin, by file and name."""
    found: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            code = frame.f_code
            if "graphopt" in code.co_filename:
                found[f"{code.co_filename.rpartition('graphopt')[2]}:{code.co_name}"] += 1

    graphopt.optimize(proto, verify=False)  # what is remembered from model to model is there now
    sys.setprofile(count)
    try:
        graphopt.optimize(proto, verify=False)
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("family", sorted({**FAMILIES, **CORNERS}))
def test_calls_grow_no_faster_than_nodes(family: str) -> None:
    make = {**FAMILIES, **CORNERS}[family]
    small, large = calls(make(SMALL)), calls(make(LARGE))
    assert sum(large.values()) <= MOST * sum(small.values()), worst(small, large)
    steep = {name: (small[name], times) for name, times in large.items() if times > 4 * MOST * max(small[name], LARGE)}
    assert not steep


def worst(small: Counter[str], large: Counter[str]) -> list[tuple[str, int, int]]:
    """The functions whose calls grow most."""
    return [(name, small[name], times) for name, times in (large - small).most_common(8)]


def test_a_rule_is_asked_only_at_its_roots() -> None:
    asked: list[str] = []

    class Watch(Rule[None]):
        """Sees which nodes it is asked about."""

        roots = ("Relu",)

        def match(self, node: Node, facts: Facts) -> graphopt.NoMatch:
            asked.append(node.op)
            return graphopt.NoMatch("only looking", node)

        def rewrite(self, found: None, edit: Rewriter) -> None:
            raise AssertionError

    model = import_model(FAMILIES["chain"](300))
    run_rules([Watch()], Facts(model), Rewriter(model))
    assert asked == ["Relu"] * 100


def test_the_order_of_nodes_is_worked_out_once_until_a_link_changes() -> None:
    model = import_model(FAMILIES["chain"](30))
    first = model.graph.sorted_nodes()
    assert model.graph.sorted_nodes() is first
    edit = Rewriter(model)
    relu = next(n for n in first if n.op == "Relu")

    class Replace(Rule[None]):
        """Puts a Sigmoid in the place of a node."""

        roots = ("Relu",)

        def match(self, node: Node, facts: object) -> None:
            return None

        def rewrite(self, found: None, edit: Rewriter) -> None:
            edit.replace(relu, edit.node("Sigmoid", [relu.inputs[0]]))

    edit.apply(Replace(), relu, lambda e: Replace().rewrite(None, e))
    again = model.graph.sorted_nodes()
    assert again is not first
    assert [n.op for n in again][1] == "Sigmoid"


def test_a_weight_that_nothing_changes_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = ProtoConstant.array

    def array(self: ProtoConstant) -> np.ndarray:
        read.append(self.nbytes)
        return original(self)

    monkeypatch.setattr(ProtoConstant, "array", array)
    proto = FAMILIES["transformer"](400)
    result = graphopt.optimize(proto, verify=False, pipeline="clean")
    result.report.to_json()
    assert max(read) <= 1 << 16
