"""Calls of model-local functions are written out, with the values that they give to attributes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto
from onnx.inliner import inline_local_functions

import graphopt
from graphopt_passes.constants.shapes import FoldShapeArithmetic
from graphopt_passes.dead_layers.functions import InlineFunction
from tests.support.models import feeds, model, run
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

LOCAL = ', "local" : 1'


def calling(body: str, functions: str, *, opset: int = 17, inputs: str = "float[2,3] x") -> ModelProto:
    return model(f"g ({inputs}) => (float[a,b] y) {{ {body} }}", opset=opset, functions=functions, domains=LOCAL)


def function(body: str, signature: str = "f (a) => (b)", opset: int = 17) -> str:
    return f'<domain: "local", opset_import: ["" : {opset}, "local" : 1]> {signature} {{ {body} }}\n'


def test_a_call_becomes_the_functions_nodes() -> None:
    before = calling("t = local.f(x) \n y = local.f(t)", function("c = Neg(a) \n b = Relu(c)"))
    check_rewrite(InlineFunction(), before, ["Neg", "Relu", "Neg", "Relu"], applied=2)


def test_calls_inside_functions_follow() -> None:
    functions = function("c = local.h(a) \n b = Neg(c)") + function("b = Abs(a)", "h (a) => (b)")
    check_rewrite(InlineFunction(), calling("y = local.f(x)", functions), ["Abs", "Neg"], applied=2)


def test_a_call_inside_a_branch_is_written_out_there() -> None:
    body = (
        "y = If(c) <then_branch = t () => (float[2,3] p) { p = local.f(x) },"
        "else_branch = e () => (float[2,3] q) { q = Neg(x) }>"
    )
    before = calling(body, function("b = Relu(a)"), inputs="float[2,3] x, bool c")
    after = check_rewrite(InlineFunction(), before, ["If"])
    assert [n.op_type for a in after.graph.node[0].attribute for n in a.g.node if a.name == "then_branch"] == ["Relu"]


@pytest.mark.parametrize(
    ("call", "expected"),
    [("local.f<alpha = 0.5>(x)", 0.5), ("local.f(x)", 0.25)],
)
def test_attributes_are_the_calls_or_the_defaults(call: str, expected: float) -> None:
    functions = function("b = LeakyRelu<alpha: float = @alpha>(a)", "f <alpha: float = 0.25> (a) => (b)")
    after = check_rewrite(InlineFunction(), calling(f"y = {call}", functions), ["LeakyRelu"])
    assert after.graph.node[0].attribute[0].f == expected


def test_an_attribute_that_nobody_gives_is_left_out() -> None:
    functions = function("b = LeakyRelu<alpha: float = @alpha>(a)", "f <alpha> (a) => (b)")
    after = check_rewrite(InlineFunction(), calling("y = local.f(x)", functions), ["LeakyRelu"])
    assert not after.graph.node[0].attribute


def test_a_constant_that_refers_to_an_attribute_is_one() -> None:
    functions = function("c = Constant<value_float: float = @v>() \n b = Mul(a, c)", "f <v> (a) => (b)")
    before = calling("y = local.f<v = 3.0>(x)", functions)
    check_rewrite(InlineFunction(), before, ["Constant", "Mul"])


def test_references_in_the_bodies_of_a_function_are_replaced_too() -> None:
    body = (
        "m = ReduceMax<keepdims = 0>(a) \n z = Constant<value = float {0.0}>() \n d = Greater(m, z) \n"
        "b = If(d) <then_branch = t () => (p) { p = LeakyRelu<alpha: float = @alpha>(a) },"
        "else_branch = e () => (q) { q = Neg(a) }>"
    )
    before = calling("y = local.f<alpha = 0.5>(x)", function(body, "f <alpha> (a) => (b)"))
    after, log = apply(InlineFunction(), before)
    assert len(log.applications) == 1
    check_numbers(before, after, exact=True)


def overloaded(opset: int = 17) -> ModelProto:
    """f calls the overload b of h, with an attribute of its own; h without an overload is there too."""
    leaky = "b = LeakyRelu<alpha: float = @alpha>"
    before = calling(
        "y = local.f<k = 2.0>(x)",
        function("c = Sin(a) \n b = local.h<alpha: float = @k>(c)", "f <k> (a) => (b)")
        + function(f"{leaky}(a)", "h <alpha> (a) => (b)")
        + function(f"c = Neg(a) \n {leaky}(c)", "h <alpha> (a) => (b)", opset),
    )
    before.functions[0].node[1].overload = before.functions[2].overload = "b"
    before.functions[0].node[1].metadata_props.add(key="where", value="here")
    return before


@pytest.mark.parametrize(("opset", "ops"), [(17, ["Sin", "Neg", "LeakyRelu"]), (16, ["Sin", "h"])])
def test_a_call_with_references_stays_one_of_its_overload(opset: int, ops: list[str]) -> None:
    before = overloaded(opset)
    after, _ = apply(InlineFunction(), before)
    assert [n.op_type for n in after.graph.node] == ops
    if opset != 17:  # h:b cannot be written out
        assert after.graph.node[1].overload == "b"
        assert [e.value for e in after.graph.node[1].metadata_props] == ["here"]
        return
    given = feeds(before)  # ONNX Runtime knows no overloads
    expected = run(inline_local_functions(before), given)
    np.testing.assert_array_equal(run(after, given)[0], expected[0])


def test_a_function_that_returns_its_input_and_names_that_are_taken() -> None:
    functions = function("c = Neg(a) \n b = Abs(c) \n d = Identity(a)", "f (a) => (b, d)")
    before = calling("b = Relu(x) \n c, d = local.f(b) \n y = Add(c, d)", functions)
    check_rewrite(InlineFunction(), before, ["Relu", "Neg", "Abs", "Identity", "Add"])


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        (
            "another operator set",
            calling("y = local.f(x)", function("b = Abs(a)", opset=13)),
            "of other versions than the model's",
        ),
        (
            "an input is left out",
            calling('y = local.f(x, "")', function("b = Relu(a)", "f (a, c) => (b)")),
            "leaves out an input",
        ),
        (
            "a block that was spelled as a function",
            model(
                "g (float[2,3] x) => (float[2,3] y) { y = graphopt.block.f(x) }",
                functions='<domain: "graphopt.block", opset_import: ["" : 17]> f (a) => (b) { b = Relu(a) }',
                domains=', "graphopt.block" : 1',
            ),
            "calls no function",
        ),
        ("no call", calling("y = Relu(x)", function("b = Relu(a)")), "calls no function"),
    ],
)
def test_other_nodes_stay(why: str, before: ModelProto, because: str) -> None:
    check_untouched(InlineFunction(), before, because=because)


def test_what_was_written_out_is_optimized_with_the_rest() -> None:
    before = calling("t = Transpose(x) \n y = local.f(t)", function("c = Transpose(a) \n b = Relu(c)"))
    result = graphopt.optimize(before)
    assert [n.op_type for n in result.model.graph.node] == ["Relu"]
    assert not result.model.functions
    np.testing.assert_array_equal(run(result.model, feeds(before))[0], run(before, feeds(before))[0])


@pytest.mark.parametrize(("opset", "folds"), [(8, False), (9, True)])
def test_before_opset_9_no_shape_in_a_function_becomes_a_constant(opset: int, folds: bool) -> None:
    body = "k = Constant<value = float[3,2] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}>() \n s = Shape(k) \n b = Reshape(a, s)"
    before = calling("y = local.f(x)", function(body, opset=opset), opset=opset)
    if not folds:  # a function has no initializers, and Constant-1 makes floats only
        check_untouched(FoldShapeArithmetic(), before, because="no Constant node makes an output of integers")
        return
    after, log = apply(FoldShapeArithmetic(), before)
    assert [a.rule for a in log.applications] == ["fold-shape-arithmetic"]
    check_numbers(before, after, exact=True)


def test_before_opset_9_a_shape_in_the_main_graph_does() -> None:
    before = model(
        "g (float[2,3] x) => (float[a,b] y) { s = Shape(k) \n y = Reshape(x, s) }",
        {"k": np.ones((3, 2), np.float32)},
        opset=8,
    )
    check_rewrite(FoldShapeArithmetic(), before, ["Reshape"], opset=8)


def test_before_opset_9_no_shape_in_a_branch_of_a_function_becomes_a_constant() -> None:
    body = (
        "m = ReduceMax<keepdims = 0>(a) \n z = Constant<value = float {0.0}>() \n d = Greater(m, z) \n"
        "k = Constant<value = float[3,2] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}>() \n b = If(d) <"
        "then_branch = t () => (p) { s = Shape(k) \n p = Reshape(a, s) }, else_branch = e () => (q) { q = Neg(k) }>"
    )
    before = calling("y = local.f(x)", function(body, opset=8), opset=8)
    check_untouched(FoldShapeArithmetic(), before, because="no Constant node makes an output of integers")


def test_before_opset_9_no_integers_are_written_into_a_function() -> None:
    """Its constants are Constant nodes, which make floats only: the Reshape keeps the Shape that it reads."""
    function = """<domain: "d", opset_import: ["" : 8]> f (x, w) => (y) {
        c = Constant<value = float[1,2] {1.0, 2.0}>()
        s = Shape(c)
        t = Reshape(x, s)
        y = Neg(t) }"""
    before = model("g (float[2] x) => (float[1,2] y) { y = d.f(x) }", opset=8, functions=function, domains=', "d" : 1')
    result = graphopt.optimize(before, verify=False)
    assert not any("its result was wrong" in r.reason for r in result.report.refusals)
    assert [n.op_type for n in result.model.functions[0].node] == ["Constant", "Shape", "Reshape", "Neg"]
