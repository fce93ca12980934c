"""Traps that broke other tools, for dead layers, duplicates and layout together: the model stays right."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphopt
from tests.support.models import model
from tests.support.rewrites import check_numbers
from tests.support.shapes import shaped_model

F = np.float32


def clean(proto: ModelProto) -> ModelProto:
    """The model after the clean preset; its structure checked, its interface unchanged, a second run without effect."""
    result = graphopt.optimize(proto, verify=False, pipeline="clean")
    assert not result.report.withdrawn
    onnx.checker.check_model(result.model, full_check=True)
    assert [i.name for i in result.model.graph.input] == [i.name for i in proto.graph.input]
    assert [o.name for o in result.model.graph.output] == [o.name for o in proto.graph.output]
    again = graphopt.optimize(result.model, verify=False, pipeline="clean")
    assert again.model == result.model
    return result.model


def ops(proto: ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def test_unsorted_unnamed_nodes_with_equal_names() -> None:
    before = model("g (float[2,3] x) => (float[2,3] y) { a = Transpose(x)\n b = Neg(a)\n y = Transpose(b) }")
    nodes = list(before.graph.node)
    for node in nodes:
        node.name = "same"
    del before.graph.node[:]
    before.graph.node.extend(reversed(nodes))
    result = graphopt.optimize(before, verify=False, pipeline="clean").model
    assert ops(result) == ["Neg"]


def test_names_that_collide_with_new_ones() -> None:
    before = _colliding()
    after = clean(before)
    assert ops(after) == ["Reshape", "Neg"]
    check_numbers(before, after, exact=True)


def _colliding() -> ModelProto:
    """Two reshapes that merge into one whose target wants the name of a tensor that is there already."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 8])
    nodes = [
        helper.make_node("Reshape", ["x", "b.shape"], ["a"]),
        helper.make_node("Reshape", ["a", "t"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([6, 4]), "b.shape"),
        numpy_helper.from_array(np.array([3, 8]), "t"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize(
    ("why", "graph", "kept"),
    [
        ("the same tensor twice among the inputs of a node", "a = Identity(x)\n y = Mul(a, x)", ["Mul"]),
        ("an absent optional input", "a = Clip(x, , h)\n y = Clip(a, , h)", ["Clip"]),
        ("an output that feeds other nodes", "a = Neg(x)\n y = Identity(a)\n b = Abs(a)\n c = Sin(b)", ["Neg"]),
        ("a transposed constant with two readers", "t = Transpose(w)\n a = Add(x, t)\n y = Mul(a, t)", ["Add", "Mul"]),
        ("NaN and infinity in constants", "a = Max(x, n)\n b = Add(a, i)\n y = Mul(b, o)", None),
    ],
)
def test_small_traps(why: str, graph: str, kept: list[str] | None) -> None:
    known = {"h": F(1), "w": np.arange(6, dtype=F).reshape(3, 2), "n": F(np.nan), "i": F(np.inf), "o": F(1)}
    weights = {k: v for k, v in known.items() if f", {k})" in graph or f"({k})" in graph}
    before = shaped_model(f"g (float[2,3] x) => (float[] y) {{ {graph} }}", weights)
    after = clean(before)
    if kept is not None:
        assert ops(after) == kept
    check_numbers(before, after, exact=True)


def test_the_same_tensor_twice_among_the_outputs() -> None:
    before = model("g (float[2] x) => (float[2] y, float[2] z) { a = Neg(x)\n y = Identity(a)\n z = Identity(a) }")
    after = clean(before)
    assert ops(after) == ["Neg", "Identity"]
    check_numbers(before, after, exact=True)


def test_strings_pass_through() -> None:
    before = model(
        "g (string[2] x) => (string[2] y) { a = Identity(x)\n b = Unsqueeze(a, s)\n y = Squeeze(b, s) }",
        {"s": np.array([0])},
    )
    assert ops(clean(before)) == ["Identity"]


def test_a_custom_domain_is_left_alone() -> None:
    before = model(
        "g (float[2] x) => (float[2] y) { a = custom.Op(x)\n b = custom.Op(x)\n c = Identity(a)\n y = Add(c, b) }",
        domains=', "custom" : 1',
    )
    result = graphopt.optimize(before, verify=False, pipeline="clean").model
    assert ops(result) == ["Op", "Op", "Add"]


def test_a_nested_function_of_another_opset() -> None:
    functions = (
        '<domain: "local", opset_import: ["" : 11]> inner (a) => (b) { d = Selu(a)\n e = Softplus(d)\n b = Elu(a) }\n'
        '<domain: "local", opset_import: ["" : 17, "local" : 1]> outer (a) => (b) '
        "{ t = Identity(a)\n c = local.inner(t)\n b = Identity(c) }"
    )
    before = model(
        "g (float[2] x) => (float[2] y) { y = local.outer(x) }", functions=functions, domains=', "local" : 1'
    )
    result = graphopt.optimize(before, verify=False, pipeline="clean", forbid=["inline-function"]).model
    bodies = {f.name: [n.op_type for n in f.node] for f in result.functions}
    assert bodies == {"inner": ["Elu"], "outer": ["inner"]}
    check_numbers(before, result, exact=True)


def test_a_body_that_shadows_an_outer_name() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { a = Neg(x)\n b = Neg(a)\n y = If(c) <"
        "then_branch = t () => (float[2] p) { d = Identity(b)\n p = Abs(d) },"
        "else_branch = e () => (float[2] q) { d = Sin(a)\n q = Identity(d) }> }"
    )
    after = clean(before)
    assert ops(after) == ["Neg", "If"]
    check_numbers(before, after, exact=True)


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22])
def test_every_opset(opset: int) -> None:
    before = shaped_model(
        "g (float[2,3,4] x) => (float[] y) { a = Identity(x)\n b = Transpose<perm=[2,0,1]>(a)\n c = Relu(b)\n"
        " d = Transpose<perm=[1,2,0]>(c)\n e = Dropout(d)\n f = Flatten(e)\n g = Flatten(f)\n h = Concat<axis=0>(g)\n"
        " i = Mul(h, o)\n y = Reshape(i, s) }",
        {"o": F(1), "s": np.array([4, 6])},
        opset=opset,
    )
    after = clean(before)
    assert ops(after) == ["Relu", "Reshape"]
    assert after.opset_import[0].version == opset
    check_numbers(before, after, exact=True)


def test_sparse_constants_stay() -> None:
    dense = np.array([0, 1, 0, 2], F)
    values = numpy_helper.from_array(dense[[1, 3]], "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 3]), "i"), [4])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Add", ["a", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], sparse_initializer=[sparse])
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    result = graphopt.optimize(before, verify=False, pipeline="clean").model
    assert ops(result) == ["Add"]
    assert len(result.graph.sparse_initializer) == 1
    check_numbers(before, result, exact=True)
