"""Pipelines that hold a GraphSurgeon graph hand it in and get one back."""

from __future__ import annotations

import onnx_graphsurgeon as gs
import pytest

import graphopt
from tests.support.models import model


def test_a_surgeon_graph_goes_in_and_comes_out() -> None:
    graph = gs.import_onnx(model("g (float[2] x) => (float[2] y) { a = Identity(x) y = Relu(a) }"))
    result = graphopt.optimize(graph)
    assert [n.op_type for n in result.model.graph.node] == ["Relu"]
    assert [n.op for n in result.to_graphsurgeon().nodes] == ["Relu"]
    assert [n.op for n in graph.nodes] == ["Identity", "Relu"]


def test_a_graph_that_surgeon_cannot_write_is_an_error_in_one_sentence() -> None:
    x = gs.Variable("x")  # without a type
    graph = gs.Graph([gs.Node("Relu", inputs=[x], outputs=[gs.Variable("y")])], inputs=[x], opset=17)
    with pytest.raises(graphopt.GraphoptError, match="onnx-graphsurgeon cannot write this graph"):
        graphopt.optimize(graph)
