"""Unread nodes and outputs, bodies, functions, names of graph outputs, initializers and imports."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graphopt.graph import import_model
from graphopt.pipeline import Context, Options
from graphopt.rewrite import Rewriter
from graphopt_passes.dead_layers import CleanUp
from graphopt_passes.dead_layers.unread import DropUnreadOutputs, EraseUnreadNode
from tests.support.models import model, run
from tests.support.rewrites import apply, apply_pass, check_numbers, check_rewrite, check_untouched
from tests.support.shapes import shaped_model


def ops(proto: ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def clean(proto: ModelProto) -> ModelProto:
    """The model after the pass, which a second run leaves as it is."""
    result, _ = apply_pass(CleanUp(), proto)
    again, log = apply_pass(CleanUp(), result)
    assert not log.applications
    assert again == result
    return result


def test_unread_chain_goes() -> None:
    before = model("g (float[2] x) => (float[2] y) { a = Relu(x)\n b = Neg(a)\n c = Add(b, x)\n y = Abs(x) }")
    check_rewrite(EraseUnreadNode(), before, ["Abs"])


def test_what_a_body_reads_stays() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { a = Neg(x)\n y = If(c) <"
        "then_branch = t () => (float[2] p) { p = Abs(a) }, else_branch = e () => (float[2] q) { q = Relu(x) }> }"
    )
    check_untouched(EraseUnreadNode(), before, because="its outputs are read")


def test_unread_nodes_in_bodies_go_and_free_what_they_read() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { a = Neg(x)\n y = If(c) <"
        "then_branch = t () => (float[2] p) { d = Sin(a)\n p = Abs(x) },"
        "else_branch = e () => (float[2] q) { q = Relu(x) }> }"
    )
    after = clean(before)
    assert ops(after) == ["If"]
    check_numbers(before, after, exact=True)


def test_an_unread_if_goes_with_its_bodies() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { z = If(c) <"
        "then_branch = t () => (float[2] p) { d = Sin(x)\n u = Abs(x)\n v = Abs(u)\n p = Abs(d) },"
        "else_branch = e () => (float[2] q) { q = Identity(x) }>\n y = Cos(x) }"
    )
    assert ops(clean(before)) == ["Cos"]


@pytest.mark.parametrize(
    ("node", "kind", "opset"),
    [
        ("a, m = Dropout(x)", "float[1,2,4,4]", 17),
        ("a, m = MaxPool<kernel_shape=[2,2]>(x)", "float[1,2,4,4]", 17),
        ("a, m, v = LayerNormalization(x, s)", "float[1,2,4,4]", 17),
    ],
)
def test_unread_optional_outputs_become_absent(node: str, kind: str, opset: int) -> None:
    weights = {"s": np.ones(4, np.float32)} if "(x, s)" in node else {}
    before = shaped_model(f"g ({kind} x) => (float[] y) {{ {node}\n y = Neg(a) }}", weights, opset=opset)
    after, _ = apply(DropUnreadOutputs(), before)
    assert len(after.graph.node[0].output) == 1
    check_numbers(before, after, exact=True)


@pytest.mark.parametrize(
    ("why", "node", "opset", "because"),
    [
        ("the mask is read", "a, m = MaxPool<kernel_shape=[2]>(x)\n z = Neg(m)", 17, "is read"),
        ("variadic", "m, a = Split<axis=2>(x)\n z = Cast<to=7>(m)", 11, "is read"),
        ("variadic and last", "a, m = Split<axis=2>(x)\n z = Shape(x)", 11, "not optional"),
        ("required", "a, m = TopK(x, k)\n z = Shape(x)", 11, "not optional"),
    ],
)
def test_other_outputs_stay(why: str, node: str, opset: int, because: str) -> None:
    weights = {"k": np.array([1])} if "k)" in node else {}
    before = shaped_model(
        f"g (float[1,2,4] x) => (float[] y, int64[] z) {{ {node}\n y = Abs(a) }}", weights, opset=opset
    )
    check_untouched(DropUnreadOutputs(), before, because=because)


def attention(outputs: str, past: str, results: str = "") -> ModelProto:
    """Self-attention over q; `outputs` are its own, `results` those of the graph beside y."""
    return shaped_model(
        "g (float[1,2,3,4] q, float[1,2,5,4] k, float[1,2,5,4] v) => (float[] y" + results + ") { "
        f"{outputs} = Attention(q, q, q{past}) \n y = Neg(a) }}",
        opset=23,
    )


@pytest.mark.parametrize(
    ("why", "outputs", "past", "kept"),
    [
        ("past states", "a, b, c", ", , k, v", ["a", "b", "c"]),
        ("past states, the product unread", "a, b, c, d", ", , k, v", ["a", "b", "c"]),
        ("no past states", "a, b, c", "", ["a"]),
        ("no past states, the product unread", "a, b, c, d", "", ["a"]),
    ],
)
def test_past_and_present_states_go_together(why: str, outputs: str, past: str, kept: list[str]) -> None:
    before = attention(outputs, past)
    after, _ = apply(DropUnreadOutputs(), before)
    assert list(after.graph.node[0].output) == kept
    check_numbers(before, after, exact=True)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_indices_of_a_max_pool_whose_automatic_pads_may_be_negative(auto_pad: str) -> None:
    """ONNX Runtime computes these with indices, and refuses to without."""
    attributes = f'auto_pad = "{auto_pad}", kernel_shape = [3,1], strides'
    text = f"g (float[1,2,6,6] x) => (float[1,2,A,B] y) {{ y, i = MaxPool<{attributes} = [1,2]>(x) }}"
    before = model(text)
    run(before, {"x": np.ones((1, 2, 6, 6), np.float32)})
    check_untouched(DropUnreadOutputs(), before, because="negative automatic pads")
    for other in (text.replace("[1,2]>", "[3,1]>"), text.replace(auto_pad, "VALID")):
        assert apply(DropUnreadOutputs(), model(other))[1].applications


def test_a_present_value_stays_beside_a_present_key_that_is_read() -> None:
    before = attention("a, b, c", ", , k, v", ", float[1,2,8,4] b")
    check_untouched(DropUnreadOutputs(), before, because="past and present states go together")


@pytest.mark.parametrize("opset", [9, 15])
def test_training_batch_norm_keeps_its_outputs(opset: int) -> None:
    parameters = [f"p{i}" for i in range(4)]
    outputs, attrs = (["y", "m", "v", "sm", "sv"], {}) if opset == 9 else (["y", "m", "v"], {"training_mode": 1})
    nodes = [helper.make_node("BatchNormalization", ["x", *parameters], outputs, **attrs)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 3])],
        [numpy_helper.from_array(np.ones(2, np.float32), p) for p in parameters],
    )
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    check_untouched(DropUnreadOutputs(), before, because="training or inference")


def test_the_producer_takes_over_an_outputs_name() -> None:
    before = model("g (float[2] x) => (float[2] y) { a = Neg(x)\n y = Identity(a) }")
    after = clean(before)
    assert ops(after) == ["Neg"]
    assert list(after.graph.node[0].output) == ["y"]


@pytest.mark.parametrize(
    ("why", "body", "outputs", "kept"),
    [
        ("an input is an output", "y = Identity(x)", "float[2] y", ["Identity"]),
        ("both are outputs", "z = Neg(x)\n y = Identity(z)", "float[2] y, float[2] z", ["Neg", "Identity"]),
        ("three names for one", "a = Neg(x)\n y = Identity(a)\n z = Identity(a)", "float[2] y, float[2] z", None),
        ("an input twice", "y = Identity(x)\n z = Identity(x)", "float[2] y, float[2] z", ["Identity", "Identity"]),
        ("of a constant", "y = Identity(w)", "float[2] y", []),
        ("two of a constant", "y = Identity(w)\n z = Identity(w)", "float[2] y, float[2] z", []),
    ],
)
def test_names_of_outputs_stay(why: str, body: str, outputs: str, kept: list[str] | None) -> None:
    before = model(
        f"g (float[2] x) => ({outputs}) {{ {body} }}", {"w": np.ones(2, np.float32)} if "(w)" in body else {}
    )
    after = clean(before)
    assert ops(after) == (["Neg", "Identity"] if kept is None else kept)
    assert [o.name for o in after.graph.output] == [o.name for o in before.graph.output]
    check_numbers(before, after, exact=True)


def test_a_branch_that_returns_a_captured_tensor_keeps_its_identity() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { a = Neg(x)\n y = If(c) <"
        "then_branch = t () => (float[2] p) { p = Identity(a) },"
        "else_branch = e () => (float[2] q) { r = Abs(a)\n q = Identity(r) }> }"
    )
    after = clean(before)
    bodies = {a.name: [n.op_type for n in a.g.node] for a in after.graph.node[1].attribute}
    assert bodies == {"then_branch": ["Identity"], "else_branch": ["Abs"]}
    check_numbers(before, after, exact=True)


def loop_model() -> ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cin"], ["cout"]),
            helper.make_node("Identity", ["v"], ["v1"]),
            helper.make_node("Add", ["v1", "outer"], ["v2"]),
            helper.make_node("Transpose", ["v2"], ["v3"], perm=[0]),
            helper.make_node("Identity", ["v3"], ["vout"]),
            helper.make_node("Identity", ["v3"], ["scan"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cin", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [2]),
        ],
        [
            helper.make_tensor_value_info("cout", TensorProto.BOOL, []),
            helper.make_tensor_value_info("vout", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("scan", TensorProto.FLOAT, [2]),
        ],
    )
    nodes = [
        helper.make_node("Identity", ["x"], ["outer"]),
        helper.make_node("Loop", ["n", "", "x"], ["y", "z"], body=body),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, 2]),
        ],
        [numpy_helper.from_array(np.array(3), "n")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_a_loops_body_is_cleaned() -> None:
    before = loop_model()
    after = clean(before)
    assert ops(after) == ["Loop"]
    assert [n.op_type for n in after.graph.node[0].attribute[0].g.node] == ["Identity", "Add", "Identity"]
    check_numbers(before, after, exact=True)


@pytest.mark.parametrize("condition", [True, False])
def test_a_known_branch_is_inlined(condition: bool) -> None:
    before = model(
        "g (float[2] x) => (float[2] y, float[2] z) { a = Neg(x)\n y, z = If(c) <"
        "then_branch = t () => (float[2] p, float[2] p2)"
        " { w = Constant<value = float[2] {1.0, 2.0}>()\n b = Add(a, w)\n p = Abs(b)\n p2 = Identity(a) },"
        "else_branch = e () => (float[2] q, float[2] q2) { b = Mul(a, a)\n q = Relu(b)\n q2 = Sin(b) }> }",
        {"c": np.bool_(condition)},
    )
    after = clean(before)
    assert sorted(ops(after)) == (["Abs", "Add", "Neg"] if condition else ["Mul", "Neg", "Relu", "Sin"])
    assert [o.name for o in after.graph.output] == ["y", "z"]
    check_numbers(before, after, exact=True)


def test_a_nested_known_branch_and_equal_names_elsewhere() -> None:
    inner = (
        "If(c) <then_branch = t2 () => (float[2] p) { b = Sin(a)\n p = Abs(b) },"
        "else_branch = e2 () => (float[2] q) { b = Cos(a)\n q = Neg(b) }>"
    )
    before = model(
        "g (float[2] x, bool d) => (float[2] y, float[2] z) { a = Neg(x)\n "
        f"y = {inner}\n z = If(d) <then_branch = t () => (float[2] r) {{ r = {inner} }},"
        "else_branch = e () => (float[2] s) { b = Sinh(a)\n s = Cosh(b) }> }",
        {"c": np.bool_(True)},
    )
    after = clean(before)
    assert sorted(ops(after)) == ["Abs", "If", "Neg", "Sin"]
    check_numbers(before, after, exact=True)


def test_inlined_nodes_keep_names_apart() -> None:
    before = model(
        "g (float[2] x) => (float[2] y) { [n] a = Neg(x)\n [m] y = If(c) <"
        "then_branch = t () => (float[2] p) { [n] b = Sin(a)\n [m] p = Abs(b) },"
        "else_branch = e () => (float[2] q) { q = Neg(a) }> }",
        {"c": np.bool_(True)},
    )
    after = clean(before)
    names = [n.name for n in after.graph.node]
    assert len(set(names)) == 3
    assert names[0] == "n"
    check_numbers(before, after, exact=True)


def test_an_overridable_condition_is_not_known() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { y = If(c) <"
        "then_branch = t () => (float[2] p) { p = Abs(x) }, else_branch = e () => (float[2] q) { q = Relu(x) }> }"
    )
    before.graph.initializer.append(numpy_helper.from_array(np.bool_(True), "c"))
    after = clean(before)
    assert ops(after) == ["If"]
    assert [i.name for i in after.graph.input] == ["x", "c"]


FUNCTION = (
    '<domain: "local", opset_import: ["" : 17, "unused" : 1]> block (a) => (b) { t = Identity(a)\n u = Relu(t)\n'
    " w = Sin(u)\n b = Identity(u) }\n"
    '<domain: "local", opset_import: ["" : 17]> idle (a) => (b) { b = Relu(a) }'
)


def test_functions_are_cleaned_and_uncalled_ones_go() -> None:
    before = model(
        "g (float[2] x) => (float[2] y) { y = local.block(x) }",
        functions=FUNCTION,
        domains=', "local" : 1, "spare" : 3',
    )
    after = clean(before)
    assert [f.name for f in after.functions] == ["block"]
    assert [n.op_type for n in after.functions[0].node] == ["Relu"]
    assert list(after.functions[0].node[0].output) == ["b"]
    assert {o.domain for o in after.opset_import} == {"", "local"}
    check_numbers(before, after, exact=True)


def test_constant_nodes_become_initializers_in_bodies_too() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { k = Constant<value_floats = [1.0, 2.0]>()\n a = Mul(x, k)\n"
        " y = If(c) <then_branch = t () => (float[2] p) { w = Constant<value_float = 3.0>()\n p = Mul(a, w) },"
        "else_branch = e () => (float[2] q) { q = Constant<value = float[2] {1.0, 2.0}>() }> }"
    )
    after = clean(before)
    assert ops(after) == ["Mul", "If"]
    assert [t.name for t in after.graph.initializer] == ["k"]
    branches = {a.name: a.g for a in after.graph.node[1].attribute}
    assert [t.name for t in branches["then_branch"].initializer] == ["w"]
    assert [n.op_type for n in branches["else_branch"].node] == ["Constant"]
    check_numbers(before, after, exact=True)


def test_unread_initializers_go_but_not_overridable_inputs() -> None:
    before = model("g (float[2] x, float[2] d) => (float[2] y) { y = Relu(x) }", {"w": np.ones(3)})
    before.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "d"))
    after = clean(before)
    assert [t.name for t in after.graph.initializer] == ["d"]
    assert [i.name for i in after.graph.input] == ["x", "d"]


def test_annotated_initializers_stay() -> None:
    before = model("g (float[2] x) => (float[2] y) { y = Relu(x) }", {"s": np.float32(1), "t": np.float32(1)})
    note = before.graph.quantization_annotation.add(tensor_name="y")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    assert [t.name for t in clean(before).graph.initializer] == ["s"]


def test_metadata_survives() -> None:
    before = model("g (float[2] x) => (float[2] y) { a = Identity(x)\n y = Relu(a) }")
    before.producer_name, before.model_version, before.doc_string = "exporter", 7, "text"
    before.metadata_props.add(key="k", value="v")
    after = clean(before)
    assert (after.producer_name, after.model_version, after.doc_string) == ("exporter", 7, "text")
    assert after.metadata_props[0].key == "k"


def test_a_graph_without_nodes_stays() -> None:
    before = model("g (float[2] x) => (float[2] x) { }")
    assert clean(before) == before


def test_an_inlined_branch_can_be_taken_back() -> None:
    before = model(
        "g (float[2] x) => (float[2] y) { y = If(c) <"
        "then_branch = t () => (float[2] p) { b = Add(x, w)\n p = Abs(b) },"
        "else_branch = e () => (float[2] q) { q = Relu(x) }> }",
        {"c": np.bool_(True), "w": np.ones(2, np.float32)},
    )
    graph = import_model(before)
    edit = Rewriter(graph, judges=[lambda change: "no" if change.rule.name == "inline-known-branch" else None])
    from graphopt.facts import Facts

    CleanUp().run(Context(graph, Facts(graph), edit, Options()))
    from graphopt.model import to_proto

    after = to_proto(graph)
    assert ops(after) == ["If"]
    onnx.checker.check_model(after, full_check=True)
    check_numbers(before, after, exact=True)


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_zero_states_of_a_dynamic_batch_go(op: str) -> None:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    states = "h, h" if op == "LSTM" else "h"
    before = shaped_model(
        "g (float[5,N,3] x) => (float[] y) { s = Shape<start=1, end=2>(x)\n d = Concat<axis=0>(one, s, four)\n"
        f" z = ConstantOfShape(d)\n h = Identity(z)\n y = {op}<hidden_size=4>(x, w, r, b, , {states}) }}",
        {
            "one": np.array([1]),
            "four": np.array([4]),
            "w": np.ones((1, gates * 4, 3), np.float32),
            "r": np.ones((1, gates * 4, 4), np.float32),
            "b": np.zeros((1, gates * 8), np.float32),
        },
    )
    after = clean(before)
    assert ops(after) == [op]
    assert list(after.graph.node[0].input) == ["x", "w", "r"]
    check_numbers(before, after, exact=True, N=2)


def test_other_states_stay() -> None:
    before = shaped_model(
        "g (float[5,2,3] x, float[1,2,4] h) => (float[] y) { y = RNN<hidden_size=4>(x, w, r, b, , h) }",
        {
            "w": np.ones((1, 4, 3), np.float32),
            "r": np.ones((1, 4, 4), np.float32),
            "b": np.array([[0, 0, 0, 0, 0, 0, 0, -0.0]], np.float32),
        },
    )
    assert clean(before) == before


def test_cast_like_forgets_what_it_is_like() -> None:
    before = shaped_model("g (float[2] x, float16[2] t) => (float16[] y) { a = Neg(t)\n y = CastLike(x, a) }")
    assert ops(clean(before)) == ["Cast"]


@pytest.mark.parametrize(
    ("why", "node", "kind", "opset", "fires"),
    [
        ("older", "a, m1, v1, m2, v2 = BatchNormalization(x, s, b, m, v)", "float[1,3,5]", 9, True),
        (
            "training",
            "a, m1, v1 = BatchNormalization<training_mode=1, epsilon=0.1>(x, s, b, m, v)",
            "float[1,3,5]",
            15,
            True,
        ),
        ("a batch", "a, m1, v1 = BatchNormalization<training_mode=1>(x, s, b, m, v)", "float[2,3,5]", 15, False),
        ("a symbol", "a, m1, v1 = BatchNormalization<training_mode=1>(x, s, b, m, v)", "float[N,3,5]", 15, False),
        ("inference", "a = BatchNormalization(x, s, b, m, v)", "float[1,3,5]", 15, False),
        ("doubles", "a, m1, v1 = BatchNormalization<training_mode=1>(x, s, b, m, v)", "double[1,3,5]", 15, False),
        (
            "read",
            "c, d, e = BatchNormalization<training_mode=1>(x, s, b, m, v)\n a = Add(c, f)",
            "float[1,3,5]",
            15,
            False,
        ),
    ],
)
def test_training_on_a_batch_of_one(why: str, node: str, kind: str, opset: int, fires: bool) -> None:
    rng = np.random.default_rng(0)
    weights = {k: rng.random(3).astype(np.float64 if "double" in kind else np.float32) for k in "sbmv"}
    if why == "read":
        node += "\n g = Unsqueeze(d, one)\n"
        node = node.replace("a = Add(c, f)\n g = Unsqueeze(d, one)\n", "g = Unsqueeze(d, one)\n a = Add(c, g)")
        weights["one"] = np.array([1])
    end = kind.split("[")[0]
    before = shaped_model(f"g ({kind} x) => ({end}[] y) {{ {node}\n y = Relu(a) }}", weights, opset=opset)
    after, _ = apply(CleanUp.rules, before)
    assert ("InstanceNormalization" in ops(after)) == fires
    if fires:
        with np.errstate(all="ignore"):
            x = rng.standard_normal((1, 3, 5)).astype(np.float32)
            centred = x - x.mean(axis=2, keepdims=True)
            scaled = centred / np.sqrt(x.var(axis=2, keepdims=True) + (0.1 if why == "training" else 1e-5))
            expected = np.maximum(scaled * weights["s"][:, None] + weights["b"][:, None], 0)
        np.testing.assert_allclose(run(after, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)
