"""What the benchmarks measure with: node counts, standard operators, means, processes, verdicts, pages."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree

import pytest
from onnx import ModelProto

from benchmarks.nodes import count_nodes, foreign_operators
from benchmarks.peers import Attempt, Row
from benchmarks.peers_report import best_peer, excess, render
from benchmarks.plot import chart
from benchmarks.process import best_of, run_measured
from benchmarks.tables import geometric_mean, median, table
from benchmarks.tool import PEERS, TOOLS
from tests.support.models import model

IF = """g (bool c, float[2] x) => (float[2] y) {
    y = If (c) <
        then_branch = t () => (float[2] a) { k = Constant <value = float {2.0}> () a = Mul (x, k) },
        else_branch = e () => (float[2] b) { m = Neg (x) b = Relu (m) }
    >
}"""
TWICE = """<domain: "own", opset_import: ["" : 17]>
twice (a) => (c) { b = Relu (a) c = Neg (b) }"""


def with_function(text: str) -> ModelProto:
    return model(text, functions=TWICE, domains=', "own" : 1')


def test_bodies_count_and_constants_do_not() -> None:
    assert count_nodes(model(IF)) == 4  # If, Mul, Neg, Relu


def test_a_function_counts_once_for_each_call() -> None:
    text = "g (float[2] x) => (float[2] z) { y = own.twice (x) z = own.twice (y) }"
    assert count_nodes(with_function(text)) == 4


def test_functions_of_the_model_are_no_foreign_operators() -> None:
    assert foreign_operators(with_function("g (float[2] x) => (float[2] z) { z = own.twice (x) }")) == []


@pytest.mark.parametrize(("domain", "operator"), [("com.microsoft", "FusedConv"), ("ai.onnx", "SimplifiedLayerNorm")])
def test_operators_outside_the_standard_are_named(domain: str, operator: str) -> None:
    made = model("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    made.graph.node[0].op_type = operator
    made.graph.node[0].domain = "" if domain == "ai.onnx" else domain
    assert foreign_operators(made) == [f"{domain}::{operator}"]


def test_an_operator_newer_than_the_opset_is_foreign() -> None:
    made = model("g (float[2] x) => (float[2] y) { y = Gelu (x) }", opset=20)
    assert foreign_operators(made) == []
    made.opset_import[0].version = 17
    assert foreign_operators(made) == ["ai.onnx::Gelu"]


def test_means() -> None:
    assert geometric_mean([1, 4]) == pytest.approx(2)
    assert geometric_mean([]) is None
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5
    assert median([]) is None


def test_tables_align_numbers() -> None:
    assert table(["a", "b"], [["x", 1]]) == "| a | b |\n|---|---:|\n| x | 1 |"


def test_a_process_is_measured() -> None:
    outcome = run_measured([sys.executable, "-c", "x = bytearray(200_000_000); print('said')"], 60)
    assert (outcome.status, outcome.output) == ("ok", "said\n")
    assert outcome.peak_bytes > 200_000_000
    assert outcome.cpu_seconds > 0


def test_a_crash_leaves_its_last_words() -> None:
    outcome = run_measured([sys.executable, "-c", "raise SystemExit('the reason')"], 60)
    assert outcome.status == "crash"
    assert outcome.problem == "exit 1: the reason"


def test_a_process_over_its_limit_is_ended() -> None:
    outcome = best_of(2, [sys.executable, "-c", "import time; time.sleep(600)"], 0.2)
    assert outcome.status == "timeout"


def row(**attempts: Attempt) -> Row:
    default = Attempt("ok", 1.0, 1.0, 2**20, 50)
    return Row("net", 60, {tool: attempts.get(tool, default) for tool in TOOLS})


def test_wrong_and_foreign_results_are_no_peers_to_beat() -> None:
    found = row(
        graphopt=Attempt("ok", 1.0, 1.0, 1, 48),
        onnxsim=Attempt("ok", 1.0, 1.0, 1, 10, ["com.microsoft::Attention"]),
        onnxslim=Attempt("wrong", 1.0, 1.0, 1, 20, problem="output y differs"),
        onnxscript=Attempt("crash", 1.0, 1.0, 1),
        onnxruntime=Attempt("ok", 1.0, 1.0, 1, 45),
    )
    assert best_peer(found) == 45
    assert excess(found) == 3
    page = render([found], "a machine", 1)
    assert "keeps more nodes than the best peer on 1 of 1 models: net (3)" in page
    assert "| net | 60 | 10 † | 20 ✗ | 50 | crash | 45 | 45 | 48 | 3 more |" in page
    assert "- onnxslim on net: wrong; output y differs" in page


def test_as_few_as_the_best_peer_is_enough() -> None:
    assert excess(row()) == 0
    assert "no more nodes than the best peer on all 1 models" in render([row()], "a machine", 1)


def test_every_peer_is_a_tool() -> None:
    assert set(PEERS) == set(TOOLS) - {"graphopt"}


def test_charts_are_valid_svg_with_a_line_for_each_series() -> None:
    drawn = chart("a <b>", "nodes", "seconds", {"one": [(1e3, 0.5), (1e5, 20)], "two": [(1e3, 1)], "none": []})
    root = ElementTree.fromstring(drawn)
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2
    first = [tuple(map(float, pair.split(","))) for pair in (lines[0].get("points") or "").split()]
    assert first[0][0] < first[1][0]
    assert first[0][1] > first[1][1]
