"""Equal nodes and equal constants are shared, and what only looks equal is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graphopt.driver import run_rules
from graphopt.facts import Facts
from graphopt.graph import Node, ProtoConstant, import_model
from graphopt.model import to_proto
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.duplicates import ShareDuplicates
from graphopt_passes.duplicates.constants import ShareEqualConstants
from graphopt_passes.duplicates.nodes import ShareEqualNodes
from tests.support.models import Arrays, model
from tests.support.rewrites import apply_pass, check_numbers, check_rewrite, check_untouched
from tests.support.shapes import shaped_model

F = np.float32


class AddConstant(Rule[Node]):
    """Puts x + [1, 2] in the place of the main graph's −x: a step that makes a constant. The numbers do not hold."""

    roots = ("Neg",)

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        return node if facts.model.graph is node.graph else NoMatch("of a body", node)

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        edit.replace(found, edit.node("Add", [found.inputs[0], edit.constant(np.array([1, 2], F))]))


def ops(proto: ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


@pytest.mark.parametrize(
    ("why", "body", "expected", "applied"),
    [
        ("unary", "a = Sin(x)\n b = Sin(x)\n y = Add(a, b)", ["Add", "Sin"], 1),
        ("a chain", "a = Sin(x)\n b = Abs(a)\n c = Sin(x)\n d = Abs(c)\n y = Sub(b, d)", ["Abs", "Sin", "Sub"], 2),
        ("commutes", "a = Add(x, z)\n b = Add(z, x)\n y = Sub(a, b)", ["Add", "Sub"], 1),
        ("equal attributes", "a = Elu<alpha=0.5>(x)\n b = Elu<alpha=0.5>(x)\n y = Add(a, b)", ["Add", "Elu"], 1),
        ("an attribute's default", "a = Elu<alpha=1.0>(x)\n b = Elu(x)\n y = Add(a, b)", ["Add", "Elu"], 1),
        (
            "several outputs",
            "a, b = Split<axis=0>(x)\n c, d = Split<axis=0>(x)\n e = Sub(a, d)\n y = Add(e, b)",
            None,
            1,
        ),
        ("Dropout at inference", "a = Dropout(x)\n b = Dropout(x)\n y = Add(a, b)", ["Add", "Dropout"], 1),
    ],
)
def test_equal_nodes_are_one(why: str, body: str, expected: list[str] | None, applied: int) -> None:
    before = shaped_model(f"g (float[2,N] x, float[2,N] z) => (float[] y) {{ {body} }}")
    check_rewrite(ShareEqualNodes(), before, expected or ["Add", "Split", "Sub"], applied=applied)


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("other inputs", "a = Sin(x)\n b = Sin(z)\n y = Add(a, b)"),
        ("the order counts", "a = Sub(x, z)\n b = Sub(z, x)\n y = Add(a, b)"),
        ("the order counts in rounding", "a = Sum(x, z, x)\n b = Sum(x, x, z)\n y = Add(a, b)"),
        ("other attributes", "a = Elu<alpha=0.5>(x)\n b = Elu<alpha=0.6>(x)\n y = Add(a, b)"),
        ("−0.0 is not 0.0", "a = Elu<alpha=-0.0>(x)\n b = Elu<alpha=0.0>(x)\n y = Add(a, b)"),
        ("random", "a = RandomNormalLike(x)\n b = RandomNormalLike(x)\n c = Sub(a, b)\n y = Mul(c, k)"),
        (
            "random with a seed",
            "a = RandomUniformLike<seed=1.0>(x)\n b = RandomUniformLike<seed=1.0>(x)\n y = Less(a, b)",
        ),
        ("training", "a = Dropout(x, r, t)\n b = Dropout(x, r, t)\n y = Add(a, b)"),
    ],
)
def test_other_nodes_stay(why: str, body: str) -> None:
    weights: Arrays = {"k": F(0), "r": F(0.5), "t": np.True_}
    used = {k: v for k, v in weights.items() if f" {k})" in body or f" {k}," in body}
    before = shaped_model(f"g (float[2,3] x, float[2,3] z) => (float[] y) {{ {body} }}", used)
    if "Random" in why or "random" in why or "training" in why:
        graph = import_model(before)
        edit = Rewriter(graph)
        run_rules([ShareEqualNodes()], Facts(graph), edit)
        assert not edit.log.applications
        assert to_proto(graph) == before
    else:
        check_untouched(ShareEqualNodes(), before, because="no other node computes the same")


def test_both_results_keep_their_names() -> None:
    before = model("g (float[2] x) => (float[2] y, float[2] z) { y = Sin(x)\n z = Sin(x) }")
    check_rewrite(ShareDuplicates.rules, before, ["Identity", "Sin"])


def test_one_result_gives_its_name_to_the_other() -> None:
    before = model("g (float[2] x) => (float[2] z) { a = Sin(x)\n z = Sin(x)\n b = Abs(a)\n c = Cos(b) }")
    after, _ = apply_pass(ShareDuplicates(), before)
    assert list(after.graph.node[0].output) == ["z"]
    check_numbers(before, after, exact=True)


def test_identities_of_one_tensor_both_stay() -> None:
    before = model("g (float[2] x) => (float[2] y, float[2] z) { y = Identity(x)\n z = Identity(x) }")
    check_untouched(ShareEqualNodes(), before, because="both names must stay")


BRANCHES = (
    "y = If(c) <then_branch = t () => (float[2] p) {{ b = Sin(x)\n p = Abs(b) }},"
    "else_branch = e () => (float[2] q) {{ b = Sin(x)\n q = Neg(b) }}>"
)


def test_a_body_reuses_an_outer_node_wherever_that_stands() -> None:
    text = "g (float[2] x, bool c) => (float[2] y, float[2] z) { " + BRANCHES.format() + "\n a = Sin(x)\n z = Cos(a) }"
    before = model(text)
    after, log = apply_pass(ShareDuplicates(), before)
    assert len(log.applications) == 2
    assert sorted(ops(after)) == ["Cos", "If", "Sin"]
    check_numbers(before, after, exact=True)


def test_an_outer_graph_does_not_reuse_a_branch() -> None:
    before = model("g (float[2] x, bool c) => (float[2] y) { " + BRANCHES.format() + " }")
    check_untouched(ShareDuplicates.rules, before)


def test_equal_constants_are_one() -> None:
    before = shaped_model(
        "g (float[2] x) => (float[] y) { a = Add(x, w)\n b = Mul(a, v)\n y = Sub(b, u) }",
        {"w": np.array([1, 2], F), "v": np.array([1, 2], F), "u": np.array([1, 3], F)},
    )
    after = check_rewrite(ShareEqualConstants(), before, ["Add", "Mul", "Sub"])
    assert [t.name for t in after.graph.initializer] == ["w", "u"]


@pytest.mark.parametrize(
    ("why", "a", "b"),
    [
        ("−0.0 is not 0.0", F(0), F(-0.0)),
        ("another shape", np.ones((1,), F), np.ones((1, 1), F)),
        ("another value", np.ones(2, F), np.array([1, 1.0000001], F)),
    ],
)
def test_other_constants_stay(why: str, a: np.ndarray, b: np.ndarray) -> None:
    before = shaped_model("g (float[2] x) => (float[] y) { a = Add(x, w)\n y = Mul(a, v) }", {"w": a, "v": b})
    check_untouched(ShareEqualConstants(), before, because="no other constant")


def test_another_dtype_stays() -> None:
    before = shaped_model(
        "g (float[2] x) => (int32[] y) { a = Add(x, w)\n b = Cast<to=6>(a)\n y = Mul(b, v) }",
        {"w": np.zeros(2, F), "v": np.zeros(2, np.int32)},
    )
    check_untouched(ShareEqualConstants(), before)


def test_a_batch_norm_that_trains_keeps_its_statistics_apart() -> None:
    before = shaped_model(
        "g (float[4,2,3] x) => (float[] y, float[] m) { y, m, v = BatchNormalization<training_mode=1>(x, s, b, a, c) }",
        {k: np.ones(2, F) for k in "sbac"},
        opset=15,
    )
    check_untouched(ShareEqualConstants(), before, because="it trains")


@pytest.mark.parametrize(
    "order", ["{norm}\n z = Add(x, k)\n w = Mul(x, {read})", "w = Mul(x, {read})\n z = Add(x, k)\n {norm}"]
)
@pytest.mark.parametrize("read", ["mean", "var"])
def test_nothing_is_shared_with_statistics_that_training_updates(order: str, read: str) -> None:
    norm = "y, m, v = BatchNormalization<training_mode=1>(x, s, b, mean, var)"
    weights = {name: np.full(2, i, F) for i, name in enumerate(("s", "b", "mean", "var"))}
    weights["k"] = weights[read]
    before = shaped_model(
        "g (float[4,2] x) => (float[] y, float[] m, float[] v, float[] z, float[] w) {"
        + order.format(norm=norm, read=read)
        + "}",
        weights,
        opset=15,
    )
    check_untouched(ShareEqualConstants(), before)


def test_overridable_constants_stay() -> None:
    before = model("g (float[2] x, float[2] w, float[2] v) => (float[2] y) { a = Add(x, w)\n y = Mul(a, v) }")
    before.graph.initializer.extend(numpy_helper.from_array(np.ones(2, F), name) for name in "wv")
    check_untouched(ShareEqualConstants(), before)


def test_a_body_shares_an_outer_constant() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { a = Mul(x, w)\n y = If(c) <"
        "then_branch = t () => (float[2] p) { v = Constant<value = float[2] {1.0, 2.0}>()\n p = Add(a, v) },"
        "else_branch = e () => (float[2] q) { u = Constant<value = float[2] {1.0, 2.0}>()\n q = Sub(a, u) }> }",
        {"w": np.array([1, 2], F)},
    )
    after, log = apply_pass(ShareDuplicates(), before)
    assert len(log.applications) == 2
    assert all(len(a.g.node) == 1 for a in after.graph.node[1].attribute)
    check_numbers(before, after, exact=True)


def test_branches_do_not_share_with_each_other() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { y = If(c) <"
        "then_branch = t () => (float[2] p) { v = Constant<value = float[2] {1.0, 2.0}>()\n p = Add(x, v) },"
        "else_branch = e () => (float[2] q) { u = Constant<value = float[2] {1.0, 2.0}>()\n q = Sub(x, u) }> }"
    )
    check_untouched(ShareEqualConstants(), before)


@pytest.mark.parametrize("others", ["", "o = Neg(x)\n k = Constant<value = float[2] {1.0, 2.0}>()\n r = Sub(o, k)"])
def test_a_body_shares_what_a_rewrite_makes_outside_after_it_was_visited(others: str) -> None:
    """The index lives as long as the pipeline; the second visit finds the constant that came between."""
    before = model(
        "g (float[2] x, bool c) => (float[2] y, float[2] z) { y = If(c) <"
        f"then_branch = t () => (float[2] p) {{ v = Constant<value = float[2] {{1.0, 2.0}}>()\n {others}\n"
        " p = Add(x, v) }, else_branch = e () => (float[2] q) { q = Abs(x) }>\n z = Neg(x) }"
    )
    graph = import_model(before)
    edit, facts = Rewriter(graph), Facts(graph)
    run_rules([ShareEqualConstants()], facts, edit)
    sooner = len(edit.log.applications)
    run_rules([AddConstant()], facts, edit)
    run_rules([ShareEqualConstants()], facts, edit)
    assert len(edit.log.applications) == sooner + 2
    after = to_proto(graph)
    branches = [a.g for n in after.graph.node for a in n.attribute if n.op_type == "If"]
    assert all(n.op_type != "Constant" for branch in branches for n in branch.node)
    run_rules([ShareEqualConstants()], facts, edit)
    assert len(edit.log.applications) == sooner + 2


def test_string_constants() -> None:
    before = model("g (string[2] x) => (bool[2] y) { a = Equal(x, w)\n b = Equal(x, v)\n y = And(a, b) }", opset=19)
    words = np.array(["a", "b"], object)
    before.graph.initializer.extend(numpy_helper.from_array(words, name) for name in "wv")
    after, _ = apply_pass(ShareDuplicates(), before)
    assert ops(after) == ["Equal", "And"]


def test_large_external_weights_are_compared_by_place_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 1 << 16
    np.arange(2 * size, dtype=F).tofile(tmp_path / "weights")
    weights = []
    for name, offset in (("w", 0), ("v", 0), ("u", 4 * size)):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[size])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", str(offset)), ("length", str(4 * size))):
            tensor.external_data.add(key=key, value=value)
        weights.append(tensor)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [size])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [size])
    nodes = [helper.make_node("Add", a, b) for a, b in ((["x", "w"], ["a"]), (["a", "v"], ["b"]), (["b", "u"], ["y"]))]
    proto = helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights), ir_version=10)
    graph = import_model(proto, tmp_path)

    def no_reading(self: ProtoConstant) -> None:
        raise AssertionError("a big weight was read")

    monkeypatch.setattr(ProtoConstant, "array", no_reading)
    edit = Rewriter(graph)
    run_rules([ShareEqualConstants()], Facts(graph), edit)
    assert [t.name for t in graph.graph.initializers] == ["w", "u"]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(["Sin", "Abs", "Add", "Sub", "Mul"]), st.integers(0, 9), st.integers(0, 9)),
        max_size=12,
    )
)
def test_random_graphs_keep_their_numbers(steps: list[tuple[str, int, int]]) -> None:
    tensors = ["x", "z", "w", "v"]
    nodes = []
    for op, i, j in steps:
        inputs = [tensors[i % len(tensors)], tensors[j % len(tensors)]][: 1 if op in ("Sin", "Abs") else 2]
        nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"]))
        tensors.append(nodes[-1].output[0])
    nodes.append(helper.make_node("Sum", tensors, ["y"]))
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "xz"]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])]
    weights = [numpy_helper.from_array(np.full((2, 3), 2, F), n) for n in "wv"]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(before)
    after, _ = apply_pass(ShareDuplicates(), before)
    computations = [
        (n.op_type, *sorted(n.input)) for n in after.graph.node if n.op_type in ("Add", "Mul", "Sin", "Abs")
    ]
    assert len(set(computations)) == len(computations)
    check_numbers(before, after, exact=True)
    again, log = apply_pass(ShareDuplicates(), after)
    assert not log.applications
    assert again == after


def test_what_a_quantization_annotation_names_stays() -> None:
    scale = np.array([0.5, 0.25], F)
    before = model("g (float[2] x) => (float[2] y) { a = Mul(x, s)\n y = Mul(a, t) }", {"s": scale, "t": scale})
    annotation = before.graph.quantization_annotation.add(tensor_name="a")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="t")
    after, log = apply_pass(ShareDuplicates(), before)
    assert len(log.applications) == 1
    assert [t.name for t in after.graph.initializer] == ["s", "t"]


@pytest.mark.parametrize(("op", "kind", "shared"), [
    ("Max", "float", False), ("Min", "float", False), ("Max", "int64", True), ("Add", "float", True),
])  # fmt: skip
def test_the_larger_of_two_zeros_depends_on_the_order(op: str, kind: str, shared: bool) -> None:
    before = model(f"g ({kind}[2] x, {kind}[2] z) => ({kind}[2] y) {{ a = {op}(x, z) b = {op}(z, x) y = Sub(a, b) }}")
    if shared:
        check_rewrite(ShareEqualNodes(), before, [op, "Sub"])
    else:
        check_untouched(ShareEqualNodes(), before)


@pytest.mark.parametrize("first", ["training", "inference"])
def test_a_norm_that_trains_is_no_norm_at_inference(first: str) -> None:
    """Before opset 14 the outputs behind the first say which of both it is."""
    outputs = {"training": ["a", "m", "v", "sm", "sv"], "inference": ["b", "", "", "", ""]}
    order = [first, *(other for other in outputs if other != first)]
    norms = [helper.make_node("BatchNormalization", ["x", "s", "s", "s", "s"], outputs[which]) for which in order]
    before = model("g (float[2,3] x) => (float[2,3] y) { y = Sub(a, b) }", {"s": np.ones(3, F)}, opset=9)
    before.graph.node.insert(0, norms[1])
    before.graph.node.insert(0, norms[0])
    check_untouched(ShareEqualNodes(), before)


@pytest.mark.parametrize(
    ("nodes", "kind", "opset"),
    [
        ("a = Cast<to=22>(x) b = Cast<to=22>(x)", "int4[2]", 21),
        ("a = SequenceConstruct(x) b = SequenceConstruct(x)", "seq(float[2])", 13),
    ],
)
def test_two_outputs_that_no_identity_copies_stay_two(nodes: str, kind: str, opset: int) -> None:
    before = model(f"g (float[2] x) => ({kind} a, {kind} b) {{ {nodes} }}", opset=opset)
    check_untouched(ShareEqualNodes(), before, "both names must stay")
