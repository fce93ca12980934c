"""`--opset N`: every operator that changed between opsets keeps its numbers, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphopt
from graphopt.cli import run as run_command
from graphopt.errors import OpsetError
from graphopt.upgrade import UPGRADE
from tests.support.models import feeds, model, run

IMAGE = "(float[1,4,6,6] x) => (float y)"


def open_graph(text: str) -> str:
    """The text with the output's rank left open, as `onnx.parser` cannot write it."""
    return f"g {IMAGE} {{ {text} }}"


def old(text: str, opset: int, weights: dict[str, np.ndarray] | None = None) -> ModelProto:  # type: ignore[type-arg]
    """A model whose output shape is not declared: the checker wants some, inference gives it."""
    proto = model(open_graph(text), weights, opset=opset)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


SMALL = {
    "r": np.array([4, -1], np.int64),
    "s2": np.array([1, 1, 2, 2], np.float32),
    "k": np.array([3], np.int64),
    "axes": np.array([2], np.int64),
}

# opset before, opset after, the model's nodes
CHANGED = [
    (7, 23, "y = Clip<min = -0.5, max = 0.5>(x)"),
    (7, 23, "y = Clip<max = 0.5>(x)"),
    (10, 11, "y = Clip<min = 0.0>(x)"),
    (8, 17, "y = Dropout<ratio = 0.3>(x)"),
    (9, 23, "y = Pad<pads = [0,0,1,1,0,0,1,1], value = 2.5>(x)"),
    (9, 23, 'y = Pad<pads = [0,0,1,1,0,0,1,1], mode = "reflect">(x)'),
    (9, 23, 'y = Pad<pads = [0,0,1,1,0,0,1,1], mode = "edge", value = 2.5>(x)'),
    (9, 23, "y = Slice<axes = [1, 3], starts = [1, -4], ends = [3, 6]>(x)"),
    (9, 23, "y = Slice<starts = [0, 1], ends = [1, 3]>(x)"),
    (9, 23, "y, i = TopK<k = 3, axis = 3>(x)"),
    (10, 23, "y, i = TopK<axis = 3>(x, k)"),
    (12, 23, "a, y = Split<axis = 1, split = [1, 3]>(x)"),
    (12, 23, "a, y = Split<axis = 1>(x)"),
    (17, 18, "a, y = Split<axis = 1>(x)"),
    (12, 23, "y = Squeeze<axes = [0]>(x)"),
    (12, 23, "y = Squeeze(x)"),
    (12, 23, "y = Unsqueeze<axes = [0, 3]>(x)"),
    (11, 13, "y = ReduceSum<axes = [2, 3], keepdims = 0>(x)"),
    (17, 18, "y = ReduceMean<axes = [-1]>(x)"),
    (11, 23, "y = ReduceMax(x)"),
    (11, 23, "y = ReduceL2<axes = [1]>(x)"),
    (12, 13, "y = Softmax<axis = 3>(x)"),
    (12, 13, "y = Softmax(x)"),
    (12, 23, "y = LogSoftmax<axis = 2>(x)"),
    (12, 23, "p = GlobalAveragePool(x) \n y = Softmax<axis = 1>(p)"),
    (10, 23, "p = GlobalAveragePool(x) \n y = Hardmax<axis = 1>(p)"),
    (10, 23, "y = Hardmax<axis = -1>(x)"),
    (8, 23, 'y = Upsample<mode = "nearest", scales = [1.0, 1.0, 2.0, 3.0]>(x)'),
    (8, 23, 'y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]>(x)'),
    (9, 11, 'y = Upsample<mode = "nearest">(x, s2)'),
    (9, 10, 'y = Upsample<mode = "linear">(x, s2)'),
    (10, 23, 'y = Resize<mode = "nearest">(x, s2)'),
    (10, 23, 'y = Resize<mode = "linear">(x, s2)'),
    (7, 23, "y = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x)"),
    (7, 23, "y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)"),
    (9, 23, "y = DepthToSpace<blocksize = 2>(x)"),
    (7, 23, "y = Reshape(x, r)"),
    (9, 23, "a = Greater(x, x) \n y = Where(a, x, x)"),
    (9, 23, "y = BatchNormalization(x, c, c, c, c)"),
    (11, 23, "i = ArgMax<axis = 1>(x) \n y = Cast<to = 1>(i)"),
    (9, 23, "i = Cast<to = 7>(x) \n y = Cast<to = 1>(i)"),
    (13, 28, "y = Max(x, x)"),
]


@pytest.mark.parametrize(("before", "after", "text"), CHANGED, ids=[f"{b}-{a} {t[:24]}" for b, a, t in CHANGED])
def test_numbers_stay(before: int, after: int, text: str) -> None:
    weights = {name: value for name, value in SMALL.items() if f", {name})" in text}
    if "BatchNormalization" in text:
        weights["c"] = np.linspace(0.5, 1.5, 4, dtype=np.float32)
    source = old(text, before, weights)
    result = graphopt.optimize(source, opset=after, pipeline="")
    assert not result.report.withdrawn
    assert [o.version for o in result.model.opset_import] == [after]
    onnx.checker.check_model(result.model, full_check=True)
    if after <= 26:  # what the runtime knows; the proof has compared the outputs by another engine
        given = feeds(source)
        np.testing.assert_allclose(run(result.model, given)[0], run(source, given)[0], rtol=1e-6, atol=1e-6)


def test_the_report_and_the_nodes_say_what_was_done() -> None:
    result = graphopt.optimize(old("a = Relu(x) \n y = Clip<min = 0.0, max = 6.0>(a)", 7), opset=17, pipeline="")
    step = result.report.passes[0]
    assert (step.name, step.nodes_before, step.nodes_after) == ("from opset 7 to 17", 2, 2)
    assert result.report.applied == {UPGRADE: 1}
    clip = next(n for n in result.model.graph.node if n.op_type == "Clip")
    assert {p.key: p.value for p in clip.metadata_props}["graphopt.rules"] == UPGRADE
    assert result.model.ir_version >= 8


def test_a_softmax_over_several_axes_becomes_what_it_was() -> None:
    result = graphopt.optimize(old("y = Softmax<axis = 1>(x)", 12), opset=13, pipeline="")
    assert [n.op_type for n in result.model.graph.node] == ["Shape", "Flatten", "Softmax", "Reshape"]


def test_a_softmax_along_one_axis_stays_one_node() -> None:
    result = graphopt.optimize(old("p = GlobalAveragePool(x) \n y = Softmax<axis = 1>(p)", 12), opset=13)
    assert [n.op_type for n in result.model.graph.node] == ["GlobalAveragePool", "Softmax"]


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_bounds_and_paddings_have_the_type_of_the_data(dtype: str) -> None:
    nodes = "c = Clip<min = -9.0, max = 0.5>(x) \n y = Pad<pads = [0, 1, 0, 1], value = 2.5>(c)"
    source = model(f"g ({dtype}[2,4] x) => ({dtype}[2,6] y) {{ {nodes} }}", opset=10)
    result = graphopt.optimize(source, opset=17, pipeline="")
    assert not result.report.withdrawn
    types = {tensor.data_type for tensor in result.model.graph.initializer if not tensor.dims}
    assert types == {source.graph.input[0].type.tensor_type.elem_type}
    onnx.checker.check_model(result.model, full_check=True)


def test_a_norm_that_trains_for_its_result_alone_goes_on_training() -> None:
    text = "g (float[4,3,5] x) => (float[4,3,5] y) { y, a, b, c, d = BatchNormalization(x, s, s, s, s) }"
    source = model(text, {"s": np.array([0.5, 1, 2], np.float32)}, opset=9)
    result = graphopt.optimize(source, opset=17, pipeline="")
    (norm_node,) = result.model.graph.node
    assert {a.name: a.i for a in norm_node.attribute} == {"training_mode": 1}
    assert not result.report.withdrawn
    assert "outputs" in result.report.verification["checks"]


def test_bodies_are_upgraded_with_the_graph_around_them() -> None:
    text = """g (bool c, float[2,3] x) => (float[2,3] y) { y = If(c)
        <then_branch = t () => (float[2,3] a) { u = Unsqueeze<axes = [0]>(x) \n a = Squeeze<axes = [0]>(u) },
        else_branch = e () => (float[2,3] b) { b = Clip<min = 0.0>(x) }> }"""
    source = model(text, opset=9)
    result = graphopt.optimize(source, opset=17, pipeline="")
    assert not result.report.withdrawn
    for choice in (True, False):
        given = {"c": np.array(choice), "x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
        np.testing.assert_array_equal(run(result.model, given)[0], run(source, given)[0])


FUNCTION = '<domain: "l", opset_import: ["" : 12]> f (a) => (b) { u = Unsqueeze<axes = [0]>(a) \n b = Relu(u) }'


def test_functions_are_upgraded_too() -> None:
    text = "g (float[2,3] x) => (float[1,2,3] y) { y = l.f(x) }"
    source = model(text, opset=12, domains=', "l" : 1', functions=FUNCTION)
    result = graphopt.optimize(source, opset=17, pipeline="")
    assert not result.report.withdrawn
    assert [o.version for o in result.model.functions[0].opset_import] == [17]
    given = feeds(source)
    np.testing.assert_array_equal(run(result.model, given)[0], run(source, given)[0])


def test_an_attribute_that_callers_give_stands_in_the_way() -> None:
    function = FUNCTION.replace("f (a)", "f <axes> (a)").replace("axes = [0]", "axes: ints = @axes")
    text = "g (float[2,3] x) => (float[1,2,3] y) { y = l.f<axes = [0]>(x) }"
    source = model(text, opset=12, domains=', "l" : 1', functions=function)
    with pytest.raises(OpsetError, match=r"Unsqueeze stands in the way.*the caller's to give"):
        graphopt.optimize(source, opset=17)


def test_custom_domains_stay_as_they_are() -> None:
    text = "g (float[2,3] x) => (float[1,2,3] y) { a = com.microsoft.Gelu(x) \n y = Unsqueeze<axes = [0]>(a) }"
    source = model(text, opset=12, domains=', "com.microsoft" : 1')
    result = graphopt.optimize(source, opset=17)
    assert {o.domain: o.version for o in result.model.opset_import} == {"": 17, "com.microsoft": 1}
    assert not result.report.withdrawn


def test_weights_in_other_files_are_not_read_and_kept(tmp_path: Path) -> None:
    proto = model(
        "g (float[2,64] x) => (float[1,2,64] y) { a = Gemm(x, w, b) \n y = Unsqueeze<axes = [0]>(a) }",
        {"w": np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32), "b": np.ones(64, np.float32)},
        opset=12,
    )
    path = tmp_path / "in.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="w.bin", size_threshold=1024)
    result = graphopt.optimize(path, opset=17)
    result.save(tmp_path / "out.onnx")
    assert not result.report.withdrawn
    assert graphopt.verify(path, tmp_path / "out.onnx").passed


def test_upgrading_twice_changes_nothing() -> None:
    source = old("a = Unsqueeze<axes = [0]>(x) \n b = Relu(a) \n y = Pad<pads = [0,0,0,1,1,0,0,0,1,1]>(b)", 9)
    once = graphopt.optimize(source, opset=17).model
    twice = graphopt.optimize(once, opset=17)
    assert twice.model.SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)
    assert twice.report.applied == {}


def test_the_same_opset_says_nothing() -> None:
    report = graphopt.optimize(old("y = Relu(x)", 17), opset=17).report
    assert all("opset" not in step.name for step in report.passes)


NORM = """g (float[2,8] x) => (float[2,8] y) {
    m = ReduceMean<axes = [-1]>(x) \n d = Sub(x, m) \n q = Mul(d, d) \n v = ReduceMean<axes = [-1]>(q)
    e = Add(v, eps) \n r = Sqrt(e) \n n = Div(d, r) \n a = Mul(n, s) \n y = Add(a, s) }"""


def norm(opset: int) -> ModelProto:
    weights = {"eps": np.array(1e-5, np.float32), "s": np.linspace(0.5, 2, 8, dtype=np.float32)}
    return model(NORM, weights, opset=opset)


def test_what_a_newer_opset_would_recognize_is_told_and_then_done() -> None:
    report = graphopt.optimize(norm(14)).report
    told = [r for r in report.refusals if r.opset is not None]
    assert [(r.operator, r.opset, r.count) for r in told] == [("LayerNormalization", 17, 1)]
    result = graphopt.optimize(norm(14), opset=17)
    assert [n.op_type for n in result.model.graph.node] == ["LayerNormalization"]
    assert not [r for r in result.report.refusals if r.opset is not None]


REFUSED = [
    (17, 13, "y = Relu(x)", "is of opset 17 and is not taken back to 13"),
    (17, 4000, "y = Relu(x)", "there is no opset 4000"),
    (17, 0, "y = Relu(x)", "is not taken back to 0"),
    (6, 17, "y = Relu(x)", "is of opset 6"),
    (9, 17, "a, m = Dropout(x) \n y = Add(a, m)", "Dropout stands in the way.*mask"),
    (12, 13, "y = Hardmax<axis = 1>(x)", "Hardmax stands in the way from opset 12 to 13"),
    (10, 11, 'y = Resize<mode = "nearest">(x, half)', "Resize stands in the way .*makes smaller"),
    (8, 9, "y = BatchNormalization<spatial = 0>(x, f, f, f, f)", "BatchNormalization stands in the way.*spatial"),
    (
        13,
        15,
        "y, m, v, a, b = BatchNormalization(x, c, c, c, c) \n z = Relu(m)",
        "BatchNormalization stands in the way",
    ),
    (14, 17, "y = LayerNormalization(x, l)", "LayerNormalization stands in the way.*no such operator at opset 14"),
]
WEIGHTS = {
    "half": np.array([1, 1, 0.5, 0.5], np.float32),
    "f": np.ones((4, 6, 6), np.float32),
    "c": np.ones(4, np.float32),
    "l": np.ones(6, np.float32),
}


@pytest.mark.parametrize(("before", "after", "text", "says"), REFUSED, ids=[t[3][:30] for t in REFUSED])
def test_what_cannot_be_done_is_one_sentence_and_writes_nothing(
    before: int, after: int, text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = old(text, before, {n: w for n, w in WEIGHTS.items() if f", {n}" in text})
    with pytest.raises(OpsetError, match=says):
        graphopt.optimize(source, opset=after)
    path = tmp_path / "in.onnx"
    path.write_bytes(source.SerializeToString())
    assert run_command(["optimize", str(path), "-o", str(tmp_path / "out.onnx"), "--opset", str(after)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("error: ") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["in.onnx"]


def test_an_unknown_operator_that_stays_unknown_is_no_obstacle() -> None:
    source = old("a = Unsqueeze<axes = [0]>(x) \n y = SimplifiedLayerNormalization<axis = -1>(a, l)", 12)
    source.graph.initializer.append(numpy_helper.from_array(WEIGHTS["l"], "l"))
    source.graph.output[0].type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 1, 4, 6, 6]))
    result = graphopt.optimize(source, opset=17)
    assert not result.report.withdrawn
    assert [n.op_type for n in result.model.graph.node] == ["Unsqueeze", "SimplifiedLayerNormalization"]


def test_a_wrong_upgrade_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.upgrade.corrections._CORRECTIONS", ())
    source = old('y = Resize<mode = "linear">(x, s2)', 10, {"s2": SMALL["s2"]})
    result = graphopt.optimize(source, opset=17)
    assert [w.rule for w in result.report.withdrawn] == [UPGRADE]
    assert result.report.withdrawn[0].at == "opset 17"
    assert [o.version for o in result.model.opset_import] == [10]
    given = feeds(source)
    np.testing.assert_array_equal(run(result.model, given)[0], run(source, given)[0])


def test_an_invalid_upgrade_is_taken_back_without_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.upgrade.corrections._CORRECTIONS", ())
    source = model("g (float16[2,4] x) => (float16[2,4] y) { y = Clip<min = 0.0, max = 0.5>(x) }", opset=10)
    report = graphopt.optimize(source, opset=17, verify=False).report
    assert [w.rule for w in report.withdrawn] == [UPGRADE]


def test_an_upgrade_that_cannot_be_compared_is_taken_back_where_each_rewrite_is() -> None:
    text = "g (float[2,3] x) => (float[1,2,3] y) { a = Own.F(x) \n y = Unsqueeze<axes = [0]>(a) }"
    source = model(text, opset=12, domains=', "Own" : 1')
    report = graphopt.optimize(source, opset=17, verify="each").report
    assert [(w.rule, w.at) for w in report.withdrawn] == [(UPGRADE, "opset 17")]
    assert "cannot be compared" in report.withdrawn[0].problem
    assert not graphopt.optimize(source, opset=17, verify=False).report.withdrawn


def test_more_nodes_than_the_converter_is_given_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphopt.upgrade.conversion._AT_ONCE", 2)
    chain = " \n ".join(
        f"u{k} = Unsqueeze<axes = [0]>({'x' if k == 0 else f's{k - 1}'}) \n s{k} = Squeeze<axes = [0]>(u{k})"
        for k in range(3)
    )
    source = old(f"{chain} \n y = Relu(s2)", 12)
    result = graphopt.optimize(source, opset=17, pipeline="")
    assert result.report.applied == {UPGRADE: 6}
    assert not result.report.withdrawn


def test_the_command_line_upgrades(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.onnx"
    path.write_bytes(norm(14).SerializeToString())
    assert run_command(["optimize", str(path), "-o", str(tmp_path / "out.onnx")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "LayerNormalization: 1 place would become one node with --opset 17" in shown
    assert run_command(["optimize", str(path), "-o", str(tmp_path / "out.onnx"), "--opset", "17"]) == 0
    assert "from opset 14 to 17" in capsys.readouterr().out
    assert [n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node] == ["LayerNormalization"]


def recurrent() -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    shapes = {"w": (1, 6, 3), "r": (1, 6, 2), "b": (1, 12), "h0": (1, 1, 2)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_absent_inputs_and_outputs_belong_to_no_node() -> None:
    """Two GRUs of which only the last states are read, with no sequence lengths; a Clip with no lower bound."""
    proto = model(
        """g (float[4,1,3] x, float[4,1,3] z) => (float[1,1,2] h, float[1,1,2] k, float[4,1,3] y) {
        a, h = GRU<hidden_size = 2>(x, w, r, b, , h0)
        c, k = GRU<hidden_size = 2>(z, w, r, b, , h0)
        y = Clip(x, , most) }""",
        {**recurrent(), "most": np.float32(0.5)},
        opset=11,
    )
    for node in proto.graph.node[:2]:
        node.output[0] = ""
    result = graphopt.optimize(proto, opset=14, pipeline="")
    assert not result.report.withdrawn
    assert result.report.after.operators == {"GRU": 2, "Clip": 1}


def test_a_softmax_of_an_empty_tensor_over_several_axes() -> None:
    proto = model("g (float[A,B,N] x) => (float[A,B,N] y) { y = Softmax<axis = 1>(x) }", opset=12)
    result = graphopt.optimize(proto, opset=14, pipeline="")
    (shape,) = (y.shape for y in run(result.model, {"x": np.zeros((2, 3, 0), np.float32)}))
    assert shape == (2, 3, 0)
    with pytest.raises(OpsetError, match="a Reshape of opset 14"):
        graphopt.optimize(proto, opset=13)


def test_a_mode_that_was_removed_stands_in_the_way() -> None:
    text = "g (float[1,1,4,4] x) => (float[A,B,C,D] y) { y = Resize<%s>(x, roi, s) }"
    text %= 'coordinate_transformation_mode = "tf_half_pixel_for_nn", mode = "nearest"'
    proto = model(text, {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)}, opset=11)
    with pytest.raises(OpsetError, match="tf_half_pixel_for_nn was removed at opset 13"):
        graphopt.optimize(proto, opset=17)


def test_doubles_are_bounded_by_the_largest_float() -> None:
    """Clip's default bounds before opset 11 are those of float32, which bound no float32 and some doubles."""
    text = "g (double[2] x) => (double[2] y) {{ y = Clip<{}>(x) }}"
    with pytest.raises(OpsetError, match="bounds doubles"):
        graphopt.optimize(model(text.format("min = 0.0"), opset=7), opset=13, verify=False)
    most = float(np.finfo(np.float32).max)
    result = graphopt.optimize(model(text.format(f"min = 0.0, max = {most}"), opset=7), opset=13, verify=False).model
    np.testing.assert_array_equal(run(result, {"x": np.array([1e300, -1.0])})[0], [most, 0.0])
