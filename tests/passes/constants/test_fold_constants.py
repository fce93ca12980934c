"""The pass: constant subgraphs in batches, a size budget, and what is never folded."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from graphopt.facts import Facts
from graphopt.graph import LazyConstant, import_model
from graphopt.inference import infer_types
from graphopt.pipeline import Context, Options
from graphopt.rewrite import Rewriter
from graphopt_passes.constants import FoldConstants, evaluator
from tests.support.models import model, run
from tests.support.rewrites import apply_pass, check_numbers

W = np.arange(12, dtype=np.float32).reshape(3, 4)


def fold(proto: ModelProto, max_growth: int = 1 << 20) -> ModelProto:
    """The model after the pass; its numbers are equal and a second run changes nothing."""
    after, _ = apply_pass(FoldConstants(), proto, Options(max_growth=max_growth))
    again, log = apply_pass(FoldConstants(), after, Options(max_growth=max_growth))
    assert not log.applications
    assert again == after
    check_numbers(proto, after, exact=True)
    return after


def operators(proto: ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


def test_a_constant_subgraph_becomes_an_initializer() -> None:
    before = model(
        "g (float[3,4] x) => (float[3,4] y) { a = Sqrt(w) \n b = Mul(a, a) \n c = Neg(b) \n y = Add(x, c) }", {"w": W}
    )
    after = fold(before)
    assert operators(after) == ["Add"]
    assert len(after.graph.initializer) == 1


def test_one_session_for_a_whole_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = []
    original = evaluator._run
    monkeypatch.setattr(evaluator, "_run", lambda *a: sessions.append(1) or original(*a))
    lines = "\n".join(f"a{i} = Exp(w) \n b{i} = Sin(a{i}) \n y{i} = Mul(x, b{i})" for i in range(20))
    sums = ", ".join(f"y{i}" for i in range(20))
    before = model(f"g (float[3,4] x) => (float[3,4] y) {{ {lines} \n y = Sum({sums}) }}", {"w": W})
    after = fold(before)
    assert sorted(set(operators(after))) == ["Mul", "Sum"]
    assert len(sessions) == 1


def test_a_node_that_cannot_be_run_does_not_spoil_the_rest() -> None:
    """A Gather out of bounds fails at run time; it stays, its neighbours are folded."""
    text = """g (float[3,4] x) => (float[3,4] y, float[1,4] z) {
        a = Exp(w)
        b = Neg(a)
        bad = Gather<axis=0>(b, far)
        worse = Relu(bad)
        y = Add(x, b)
        z = Identity(worse) }"""
    after, _ = apply_pass(FoldConstants(), model(text, {"w": W, "far": np.array([7], np.int64)}))
    assert operators(after) == ["Gather", "Relu", "Add", "Identity"]


def test_a_constant_graph_output_keeps_its_name() -> None:
    after = fold(model("g (float[3,4] x) => (float[3,4] y, float[3,4] z) { y = Exp(w) \n z = Add(x, y) }", {"w": W}))
    assert operators(after) == ["Constant", "Add"]
    assert [o.name for o in after.graph.output] == ["y", "z"]


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("random operators", "r = RandomUniformLike(w) \n y = Add(x, r)"),
        ("random numbers without an input", "r = RandomNormal<shape = [3, 4]>() \n y = Add(x, r)"),
        ("a quantized weight would lose its quantization", "r = DequantizeLinear(q, s) \n y = Add(x, r)"),
        (
            "and so it would when it is only moved",
            "d = DequantizeLinear(q, s) \n t = Transpose(d) \n r = Reshape(t, p) \n y = Add(x, r)",
        ),
        ("an input with a default can be overridden", "r = Exp(v) \n y = Add(x, r)"),
    ],
)
def test_never_folded(why: str, body: str) -> None:
    weights = {"w": W, "q": W.astype(np.int8), "s": np.float32(0.5), "p": np.array([3, 4]), "v": W}
    used = {k: np.asarray(a) for k, a in weights.items() if f"({k}" in body or f" {k})" in body}
    proto = model(f"g (float[3,4] x) => (float[3,4] y) {{ {body} }}", used)
    if "v" in used:
        proto.graph.input.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [3, 4]))
    after, log = apply_pass(FoldConstants(), proto)
    assert not log.applications
    assert after == proto


def test_training_mode_batch_normalization_is_not_folded() -> None:
    proto = model(
        """g (float[3,4] x) => (float[3,4] y) {
        n, m, v = BatchNormalization<training_mode = 1>(w, c, c, c, c)
        y = Add(x, n) }""",
        {"w": W, "c": np.ones(4, np.float32)},
    )
    after, _ = apply_pass(FoldConstants(), proto)
    assert operators(after) == ["BatchNormalization", "Add"]


def test_what_is_quantized_again_is_folded() -> None:
    before = model(
        """g (float[4,3] x) => (float[4,3] y) {
        d = DequantizeLinear(q, s)
        t = Transpose(d)
        r = QuantizeLinear(t, s, z)
        e = DequantizeLinear(r, s)
        y = Add(x, e) }""",
        {"q": W.astype(np.int8), "s": np.float32(0.5), "z": np.int8(0)},
    )
    assert operators(fold(before)) == ["DequantizeLinear", "Add"]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("b = Tile(w, n)", ["Tile", "ReduceMax", "Add"]),
        ("b = Expand(w, n)", ["Expand", "ReduceMax", "Add"]),
        ("b = ConstantOfShape(n)", ["ConstantOfShape", "ReduceMax", "Add"]),
        ("r = Range(o, l, d) \n b = Unsqueeze(r, a)", ["Range", "Unsqueeze", "ReduceMax", "Add"]),
        ("b = ScatterND(t, i, u)", None),
    ],
)
def test_results_that_bloat_the_model_are_not_kept(body: str, left: list[str] | None) -> None:
    """Sizes are known beforehand: nothing is computed that would take terabytes."""
    weights = {
        "w": np.ones((1, 1), np.float32),
        "n": np.array([1 << 21, 1 << 21]),
        "o": np.float32(0),
        "l": np.float32(1e12),
        "d": np.float32(1),
        "a": np.array([1]),
        "t": np.zeros((2, 2), np.float32),
        "i": np.array([[0, 0]]),
        "u": np.ones(1, np.float32),
    }
    used = {k: np.asarray(v) for k, v in weights.items() if f"({k}" in body or f" {k}" in body}
    proto = model(
        f"g (float[1,1] x) => (float[1,1] y) {{ {body} \n m = ReduceMax<axes = [0, 1]>(b) \n y = Add(x, m) }}", used
    )
    after, _ = apply_pass(FoldConstants(), proto)
    assert operators(after) == (left or ["Add"])


def test_growth_is_counted_over_the_initializers_that_go() -> None:
    text = "g (float[64,4] x) => (float[64,4] y) { b = Tile(w, n) \n y = Add(x, b) }"
    proto = model(text, {"w": np.ones((32, 4), np.float32), "n": np.array([2, 1])})
    assert operators(fold(proto, max_growth=496)) == ["Add"]
    assert operators(fold(proto, max_growth=495)) == ["Tile", "Add"]


def test_a_shared_weight_is_not_doubled() -> None:
    text = "g (float[4,4] x) => (float[4,4] y) { a = Transpose(w) \n b = MatMul(x, w) \n y = MatMul(b, a) }"
    proto = model(text, {"w": np.ones((4, 4), np.float32)})
    assert operators(fold(proto)) == ["MatMul", "MatMul"]
    assert operators(fold(proto, max_growth=60)) == ["Transpose", "MatMul", "MatMul"]


@pytest.mark.parametrize(("count", "left"), [(16, 0), (18, 18)])
def test_all_results_together_stay_within_a_budget(count: int, left: int) -> None:
    """All or none, so that a second run finds nothing left to do."""
    lines = "\n".join(f"n{i} = Expand(w{i}, n) \n y{i} = Add(x, n{i})" for i in range(count))
    sums = ", ".join(f"y{i}" for i in range(count))
    weights = {f"w{i}": np.full((1, 1), i, np.float32) for i in range(count)}
    proto = model(
        f"g (float[16,16] x) => (float[16,16] y) {{ {lines} \n y = Sum({sums}) }}", {**weights, "n": np.array([16, 16])}
    )
    assert operators(fold(proto, max_growth=1024)).count("Expand") == left


def test_a_result_too_large_to_keep_still_serves_what_comes_after_it() -> None:
    text = """g (float[1,1] x) => (float[A,B] y, float[1,1] z) {
        b = Tile(w, n)
        m = ReduceSum(b)
        y = Add(x, b)
        z = Add(x, m) }"""
    proto = model(text, {"w": np.ones((1, 1), np.float32), "n": np.array([1000, 1000])})
    assert operators(fold(proto)) == ["Tile", "Add", "Add"]


def test_a_big_intermediate_result_is_fine_when_the_end_is_small() -> None:
    text = "g (float[1,1] x) => (float[1,1] y) { b = Tile(w, n) \n m = ReduceSum(b) \n y = Add(x, m) }"
    proto = model(text, {"w": np.ones((1, 1), np.float32), "n": np.array([1000, 1000])})
    assert operators(fold(proto)) == ["Add"]


@pytest.mark.parametrize("op", ["Transpose", "Reshape", "Cast"])
def test_big_weights_are_moved_without_being_read(op: str, tmp_path: Path) -> None:
    """The weight is in a file that does not exist: only reading it would fail."""
    line = {"Transpose": "b = Transpose(w)", "Reshape": "b = Reshape(w, n)", "Cast": "b = Cast<to = 10>(w)"}[op]
    proto = model(
        f"g (float[1,1] x) => (float[A,B] y) {{ {line} \n c = Cast<to = 1>(b) \n y = Add(x, c) }}",
        {"n": np.array([512, 1024])} if op == "Reshape" else {},
    )
    weight = numpy_helper.from_array(np.zeros((1024, 512), np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, "missing.bin", 0, 1024 * 512 * 4)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    proto.graph.initializer.append(weight)
    graph = import_model(proto, tmp_path)
    infer_types(graph)
    edit = Rewriter(graph)
    FoldConstants().run(Context(graph, Facts(graph), edit, Options()))
    assert [n.op for n in graph.graph.nodes if n.op == op and op != "Cast"] == []
    (big,) = [t.constant for t in graph.graph.initializers if t.constant is not None and t.constant.nbytes > 100]
    assert isinstance(big, LazyConstant)


def test_bfloat16_keeps_its_type() -> None:
    before = model("g (bfloat16[3] x) => (bfloat16[3] y) { c = Cast<to = 16>(w) \n y = Identity(c) }", {"w": W[0, :3]})
    after, _ = apply_pass(FoldConstants(), before)
    (node,) = after.graph.node
    assert node.op_type == "Constant"
    assert numpy_helper.to_array(node.attribute[0].t).dtype == ml_dtypes.bfloat16


def test_bodies_and_functions_fold_too() -> None:
    before = model(
        """g (float[3,4] x, bool c) => (float[3,4] y) {
        z = If(c) <
            then_branch = t () => (float[3,4] a) { e = Exp(w) \n a = Add(x, e) },
            else_branch = f () => (float[3,4] b) { b = local.twice(x) }
        >
        y = Neg(z) }""",
        {"w": W},
        functions="""<domain: "local", opset_import: ["" : 17]>
        twice (v) => (r) { one = Constant<value_float = 1.0>() \n two = Add(one, one) \n r = Mul(v, two) }""",
        domains=', "local" : 1',
    )
    after = fold(before)
    (then_branch,) = [a.g for a in after.graph.node[0].attribute if a.name == "then_branch"]
    assert [n.op_type for n in then_branch.node] == ["Add"]
    assert sorted(n.op_type for n in after.functions[0].node) == ["Constant", "Mul"]


def test_a_fold_makes_shapes_known_and_they_fold_on() -> None:
    """The Reshape's shape is computed from constants; only then is the shape of its result known."""
    before = model(
        """g (float[2,6] x) => (int64[2] y) {
        n = Sqrt(nine)
        m = Cast<to = 7>(n)
        t = Concat<axis=0>(minus, m)
        r = Reshape(x, t)
        y = Shape(r) }""",
        {"nine": np.array([9], np.float32), "minus": np.array([-1])},
    )
    assert operators(fold(before)) == ["Constant"]


def test_before_opset_9_no_constant_node_makes_integers() -> None:
    """Constant-1 makes floats only; such an output stays computed, of constants."""
    text = "g (float[3,4] x) => (int64[2] s, float[3,4] y) { s = Shape(x) \n e = Exp(w) \n y = Neg(e) }"
    assert operators(fold(model(text, {"w": W}, opset=8))) == ["Shape", "Constant"]
    assert operators(fold(model(text, {"w": W}, opset=9))) == ["Constant", "Constant"]


def test_a_node_whose_first_output_is_left_out() -> None:
    weights = {"w": W.reshape(3, 1, 4), "i": np.ones((1, 5, 4), np.float32), "r": np.ones((1, 5, 5), np.float32)}
    before = model(
        "g (float[1,1,5] x) => (float[1,1,5] y) { u, h = RNN<hidden_size=5>(w, i, r) \n y = Add(x, h) }", weights
    )
    before.graph.node[0].output[0] = ""
    assert operators(fold(before)) == ["Add"]


def test_strings_fold() -> None:
    before = model("g (string[2] x) => (bool[2] y) { t = Transpose(w) \n y = Equal(x, t) }", opset=19)
    before.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b"b"]))
    after, _ = apply_pass(FoldConstants(), before)
    assert operators(after) == ["Equal"]
    given = {"x": np.array(["a", "x"], object)}
    np.testing.assert_array_equal(run(after, given)[0], [True, False])


def test_a_long_chain_is_folded_in_one_go() -> None:
    lines = ["a0 = Exp(w)", *(f"a{i} = Sin(a{i - 1})" for i in range(1, 3000)), "y = Add(x, a2999)"]
    before = model("g (float[3,4] x) => (float[3,4] y) {" + "\n".join(lines) + "}", {"w": W})
    assert operators(fold(before)) == ["Add"]


def test_big_doubles_are_rounded_to_float16_as_small_ones() -> None:
    """ONNX Runtime rounds to float32 in between: 1 + 2⁻¹¹ + 2⁻⁴⁰ is 1 then, not the next float16."""
    for count in (200, 200_000):
        weight = np.full(count, 1 + 2.0**-11 + 2.0**-40)
        before = model(
            f"g (float16[1] x) => (float16[{count}] y) {{ c = Cast<to = 10>(w) y = Add(c, x) }}", {"w": weight}
        )
        assert operators(fold(before)) == ["Add"]


def test_what_ends_the_process_without_elements_is_left_to_the_run_time() -> None:
    text = """g (bool c, int64[2] x) => (int64[R] y) { y = If(c) <
        then_branch = t () => (int64[A] p) { u, i1, i2, i3 = Unique<axis = 0>(w) p = Shape(u) },
        else_branch = e () => (int64[B] o) { o = Identity(x) }> }"""
    before = model(text, {"w": np.zeros((1, 0), np.float32)})
    after, _ = apply_pass(FoldConstants(), before)
    branch = next(a.g for a in after.graph.node[0].attribute if a.name == "then_branch")
    assert "Unique" in [n.op_type for n in branch.node]


@pytest.mark.parametrize("repeats", [(2, 7), (2, 2)])
def test_bytes_are_freed_once(repeats: tuple[int, int]) -> None:
    """Each half of a weight is repeated: what one of both frees is not free for the other."""
    first, second = repeats
    text = f"""g (float[K,64] x, float[M,64] z) => (float[a,b] u, float[c,d] v) {{
        p, q = Split<axis=0>(w) r = Constant<value_ints=[{first},1]>() s = Constant<value_ints=[{second},1]>()
        a = Tile(p, r) b = Tile(q, s) u = Add(x, a) v = Add(z, b) }}"""
    before = model(text, {"w": np.arange(2 * 256 * 64, dtype=np.float32).reshape(512, 64)}, opset=13)
    after, _ = apply_pass(FoldConstants(), before, Options(max_growth=1024))
    assert after.ByteSize() <= before.ByteSize() + 1024


def test_a_constant_split_that_leaves_an_output_out_is_not_run() -> None:
    """ONNX Runtime's kernel ends the process."""
    before = model("g (float[2] x) => (float[2] y) { a, b, c = Split(w) y = Add(x, a) }", {"w": W[0, :4]}, opset=18)
    before.graph.node[0].attribute.append(helper.make_attribute("num_outputs", 3))
    before.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.arange(6, dtype=np.float32), "w"))
    before.graph.node[0].output[1] = ""
    assert not apply_pass(FoldConstants(), before)[1].applications


def test_a_constant_norm_of_nothing_is_not_run() -> None:
    before = model(
        "g (float[1,2,3,4] x) => (float[1,2,3,4] y) { n = InstanceNormalization(w, s, s) y = Concat<axis=2>(x, n) }",
        {"w": np.zeros((1, 2, 0, 4), np.float32), "s": np.ones(2, np.float32)},
    )
    assert operators(apply_pass(FoldConstants(), before)[0]) == ["InstanceNormalization", "Concat"]
