"""Graphs that are none: cycles, names twice or missing, graphs in graphs, functions that call each other."""

from __future__ import annotations

from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from tests.graphopt.hostile.cases import HUGE, Cases, graph, with_nodes

CASES = Cases()
node = helper.make_node


@CASES.add("cycle|not valid")
def a_cycle_of_two(folder: Path) -> ModelProto:
    return with_nodes(node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Neg", ["b"], ["y"]))


@CASES.add("cycle|not valid")
def a_node_that_reads_itself(folder: Path) -> ModelProto:
    return with_nodes(node("Add", ["x", "y"], ["y"]))


@CASES.add("cycle|not valid|nothing makes")
def a_cycle_through_a_branch(folder: Path) -> ModelProto:
    return graph(
        """g (float[4] x, bool c) => (float[4] y) {
            a = If (c) <then_branch = t () => (float[4] p) { p = Neg(b) },
                        else_branch = e () => (float[4] q) { q = Neg(x) }>
            b = Relu(a) y = Neg(b)
        }"""
    )


@CASES.add("made twice|not valid")
def a_tensor_that_two_nodes_make(folder: Path) -> ModelProto:
    return with_nodes(node("Neg", ["x"], ["y"]), node("Relu", ["x"], ["y"]))


@CASES.add("made twice|not valid")
def a_tensor_that_a_node_makes_twice(folder: Path) -> ModelProto:
    return with_nodes(node("Split", ["x"], ["y", "y"], axis=0))


@CASES.add("")
def an_input_that_is_there_twice(folder: Path) -> ModelProto:
    return with_nodes(node("Neg", ["x"], ["y"]), inputs=("x", "x"))


@CASES.add("made twice|not valid")
def an_input_that_a_node_makes(folder: Path) -> ModelProto:
    return with_nodes(node("Neg", ["x"], ["x"]), node("Neg", ["x"], ["y"]))


@CASES.add("")
def an_output_that_is_there_twice(folder: Path) -> ModelProto:
    return with_nodes(node("Neg", ["x"], ["y"]), outputs=("y", "y"))


@CASES.add(None)
def two_nodes_of_one_name(folder: Path) -> ModelProto:
    return with_nodes(node("Neg", ["x"], ["a"], name="n"), node("Relu", ["a"], ["y"], name="n"))


@CASES.add("defined twice|made twice|not valid")
def an_initializer_that_is_there_twice(folder: Path) -> ModelProto:
    proto = with_nodes(node("Add", ["x", "w"], ["y"]))
    for _ in range(2):
        proto.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [4], [1, 2, 3, 4]))
    return proto


@CASES.add("nothing makes|not valid")
def an_input_that_nothing_makes(folder: Path) -> ModelProto:
    return with_nodes(node("Add", ["x", "missing"], ["y"]))


@CASES.add("nothing makes|not valid")
def an_output_that_nothing_makes(folder: Path) -> ModelProto:
    return with_nodes(node("Neg", ["x"], ["z"]))


@CASES.add("nothing makes|not valid")
def a_branch_that_gives_what_nothing_makes(folder: Path) -> ModelProto:
    proto = graph(
        """g (float[4] x, bool c) => (float[4] y) {
            y = If (c) <then_branch = t () => (float[4] p) { p = Neg(x) },
                        else_branch = e () => (float[4] q) { q = Neg(x) }>
        }"""
    )
    del proto.graph.node[0].attribute[0].g.node[:]
    return proto


@CASES.add("")
def no_nodes_and_no_outputs(folder: Path) -> ModelProto:
    return with_nodes(inputs=(), outputs=())


@CASES.add("")
def no_outputs(folder: Path) -> ModelProto:
    return with_nodes(node("Neg", ["x"], ["y"]), outputs=())


@CASES.add("not valid")
def a_node_without_an_operator(folder: Path) -> ModelProto:
    return with_nodes(node("", ["x"], ["y"]))


@CASES.add(None)
def a_node_without_inputs_and_outputs(folder: Path) -> ModelProto:
    return with_nodes(node("Neg", [], []), node("Neg", ["x"], ["y"]))


@CASES.add("")
def a_node_with_a_hundred_thousand_inputs(folder: Path) -> ModelProto:
    return with_nodes(node("Sum", ["x"] * 100_000, ["y"]))


@CASES.add("")
def empty_names(folder: Path) -> ModelProto:
    return with_nodes(node("Neg", [""], ["y"]), inputs=("",))


@CASES.add("not valid|opset")
def no_opset(folder: Path) -> ModelProto:
    proto = with_nodes(node("Neg", ["x"], ["y"]))
    del proto.opset_import[:]
    return proto


@CASES.add("opset")
def an_opset_of_the_far_future(folder: Path) -> ModelProto:
    proto = with_nodes(node("Neg", ["x"], ["y"]))
    proto.opset_import[0].version = HUGE
    return proto


@CASES.add("not valid|opset")
def a_negative_opset(folder: Path) -> ModelProto:
    proto = with_nodes(node("Neg", ["x"], ["y"]))
    proto.opset_import[0].version = -1
    return proto


@CASES.add("not valid|IR")
def an_ir_version_of_the_far_future(folder: Path) -> ModelProto:
    proto = with_nodes(node("Neg", ["x"], ["y"]))
    proto.ir_version = HUGE
    return proto


@CASES.add("not valid|IR")
def a_negative_ir_version(folder: Path) -> ModelProto:
    proto = with_nodes(node("Neg", ["x"], ["y"]))
    proto.ir_version = -1
    return proto


@CASES.add("not valid|no type|cannot be")
def an_input_without_a_type(folder: Path) -> ModelProto:
    proto = with_nodes(node("Neg", ["x"], ["y"]))
    proto.graph.input[0].CopyFrom(ValueInfoProto(name="x"))
    return proto


@CASES.add("")
def an_output_of_another_type(folder: Path) -> ModelProto:
    proto = with_nodes(node("Neg", ["x"], ["y"]))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    return proto


@CASES.add(None)
def twenty_graphs_in_each_other(folder: Path) -> ModelProto:
    return nested(20)


@CASES.add(None)
def a_thousand_graphs_beside_each_other(folder: Path) -> ModelProto:
    nodes = [choice(f"t{i}", f"t{i + 1}", branch(f"t{i}", f"b{i}")) for i in range(500)]
    proto = with_nodes(*nodes, node("Neg", ["t500"], ["y"]), inputs=("t0",))
    proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    return proto


@CASES.add("itself|recurs|not valid")
def a_function_that_calls_itself(folder: Path) -> ModelProto:
    return graph(
        "g (float[4] x) => (float[4] y) { y = own.f(x) }",
        '<opset_import: ["" : 17, "own" : 1], domain: "own"> f (a) => (b) { n = Neg(a) b = own.f(n) }',
        ', "own" : 1',
    )


@CASES.add("itself|recurs|not valid")
def functions_that_call_each_other(folder: Path) -> ModelProto:
    return graph(
        "g (float[4] x) => (float[4] y) { y = own.f(x) }",
        '<opset_import: ["" : 17, "own" : 1], domain: "own"> f (a) => (b) { n = Neg(a) b = own.h(n) }\n'
        '<opset_import: ["" : 17, "own" : 1], domain: "own"> h (a) => (b) { n = Neg(a) b = own.f(n) }',
        ', "own" : 1',
    )


@CASES.add("itself|recurs|not valid")
def a_function_that_calls_itself_in_a_branch(folder: Path) -> ModelProto:
    return graph(
        "g (float[4] x, bool c) => (float[4] y) { y = own.f(x, c) }",
        """<opset_import: ["" : 17, "own" : 1], domain: "own"> f (a, c) => (b) {
            b = If (c) <then_branch = t () => (p) { p = own.f(a, c) }, else_branch = e () => (q) { q = Neg(a) }>
        }""",
        ', "own" : 1',
    )


@CASES.add("itself|recurs|not valid")
def a_recursive_function_that_nothing_calls(folder: Path) -> ModelProto:
    return graph(
        "g (float[4] x) => (float[4] y) { y = Neg(x) }",
        '<opset_import: ["" : 17, "own" : 1], domain: "own"> f (a) => (b) { n = Neg(a) b = own.f(n) }',
        ', "own" : 1',
    )


@CASES.add("nodes when its functions are written out")
def functions_that_double_forty_times(folder: Path) -> ModelProto:
    return doubling_functions(40)


@CASES.add(None)
def functions_that_double_three_times(folder: Path) -> ModelProto:
    return doubling_functions(3)


@CASES.add("")
def a_function_that_is_there_twice(folder: Path) -> ModelProto:
    one = '<opset_import: ["" : 17], domain: "own"> f (a) => (b) { b = Neg(a) }'
    other = '<opset_import: ["" : 17], domain: "own"> f (a) => (b) { b = Relu(a) }'
    return graph("g (float[4] x) => (float[4] y) { y = own.f(x) }", f"{one}\n{other}", ', "own" : 1')


@CASES.add("")
def a_function_called_with_too_much(folder: Path) -> ModelProto:
    function = '<opset_import: ["" : 17], domain: "own"> f (a) => (b) { b = Neg(a) }'
    return graph("g (float[4] x) => (float[4] y) { y, z = own.f(x, x, x) }", function, ', "own" : 1')


@CASES.add("")
def a_function_with_the_name_of_an_operator(folder: Path) -> ModelProto:
    function = '<opset_import: ["" : 17], domain: "ai.onnx"> Neg (a) => (b) { b = Relu(a) }'
    return graph("g (float[4] x) => (float[4] y) { y = Neg(x) }", function)


def doubling_functions(depth: int) -> ModelProto:
    """f0 is a Neg; each next function calls the one before twice."""
    opsets = '<opset_import: ["" : 17, "own" : 1], domain: "own">'
    functions = [f"{opsets} f0 (a) => (b) {{ b = Neg(a) }}"]
    functions += [
        f"{opsets} f{i} (a) => (b) {{ n = own.f{i - 1}(a) b = own.f{i - 1}(n) }}" for i in range(1, depth + 1)
    ]
    return graph(f"g (float[4] x) => (float[4] y) {{ y = own.f{depth}(x) }}", "\n".join(functions), ', "own" : 1')


def nested(depth: int) -> ModelProto:
    """An If in an If in an If."""
    body = branch("x", f"t{depth}")
    for level in range(depth - 1, 0, -1):
        body = branch("x", f"t{level}", choice("x", f"t{level}", body))
    proto = with_nodes(choice("x", "y", body))
    proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    return proto


def branch(source: str, output: str, inner: object = None) -> GraphProto:
    made = inner or node("Neg", [source], [output])
    return helper.make_graph([made], "b", [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, [4])])


def choice(source: str, output: str, body: GraphProto) -> object:
    other = branch(source, f"{output}_else")
    return node("If", ["c"], [output], then_branch=body, else_branch=other)
