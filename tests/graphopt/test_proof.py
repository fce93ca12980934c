"""Taking back: a wrong rewrite is found by bisection, left out, and named; the rest stays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from onnx import ModelProto

import graphopt
from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.pipeline import Pass, Pipeline
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from tests.support.models import feeds, model, run

pytestmark = pytest.mark.unchecked  # rules that are wrong on purpose


class MergeRelus(Rule[tuple[Node, Node]]):
    """Relu(Relu(x)) = Relu(x)."""

    roots = ("Relu",)

    def match(self, node: Node, facts: Facts) -> tuple[Node, Node] | NoMatch:
        first = facts.sole_producer(node.input(0), "Relu")
        return (first, node) if first is not None else NoMatch("no Relu before it", node)

    def rewrite(self, found: tuple[Node, Node], edit: Rewriter) -> None:
        first, second = found
        edit.replace(second, edit.like(second, first.inputs))


class LoseNeg(Rule[Node]):
    """Neg(x) becomes Abs(x): right for negative x only."""

    roots = ("Neg",)

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        return node

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        edit.replace(found, edit.node("Abs", found.inputs))


@dataclass(frozen=True)
class Mixed(Pass):
    """A right rule and a wrong one."""

    name = "mixed"
    rules = (MergeRelus(), LoseNeg())


def chain(length: int, negations: set[int]) -> ModelProto:
    lines = [f"t{i + 1} = {'Neg' if i in negations else 'Relu'}(t{i})" for i in range(length)]
    return model(f"g (float[4] t0) => (float[4] t{length}) {{ {' '.join(lines)} }}")


@pytest.mark.parametrize("negations", [{1}, {0, 4}, {2, 5, 8}])
def test_wrong_rewrites_are_named_and_the_right_ones_stay(negations: set[int]) -> None:
    before = chain(12, negations)
    result = graphopt.optimize(before, pipeline=Pipeline((Mixed(),)))
    assert {w.rule for w in result.report.withdrawn} <= {"lose-neg"}
    assert result.report.verification["passed"]
    given = feeds(before)
    np.testing.assert_array_equal(run(result.model, given)[0], run(before, given)[0])
    assert result.report.applied["merge-relus"] >= 1
    wrong = {w.at for w in result.report.withdrawn}
    assert wrong
    assert all(n.op_type != "Abs" or n.output[0] not in wrong for n in result.model.graph.node)


def test_a_rule_that_is_wrong_everywhere_is_dropped_as_a_whole() -> None:
    lines = " ".join(f"t{i + 1} = Neg(t{i}) o{i} = Sin(t{i + 1})" for i in range(7))
    outputs = ", ".join(f"float[4] o{i}" for i in range(7))
    before = model(f"g (float[4] t0) => ({outputs}) {{ {lines} }}")
    result = graphopt.optimize(before, pipeline=Pipeline((Mixed(),)))
    assert result.report.verification["passed"]
    assert len(result.report.withdrawn) <= 5
    assert result.model == before


def test_without_verification_the_report_says_so() -> None:
    result = graphopt.optimize(chain(4, {1}), pipeline=Pipeline((Mixed(),)), verify=False)
    assert result.report.verification["checks"] == ("checker",)
    assert any("not compared" in point for point in result.report.verification["not_checked"])
