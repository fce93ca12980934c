"""Flaws that ONNX's checker rejects: one meaning is tidied, an unknown one tolerated, a broken model refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

import graphopt
from graphopt.cli import run as run_command
from graphopt.errors import ExecutionError, ModelError
from graphopt.verification import Located
from graphopt.verification.checks import checker_problem
from tests.support.models import feeds, model, run

RELU_TWICE = "g (float[N,4] x) => (float[N,4] y) { a = Relu(x) \n b = Relu(a) \n y = Add(b, w) }"


def plain() -> ModelProto:
    return model(RELU_TWICE, {"w": np.ones((1, 4), np.float32)})


def unnamed() -> ModelProto:
    proto = plain()
    proto.graph.name = ""
    return proto


def unnamed_body() -> ModelProto:
    proto = model(
        "g (bool c, float[4] x) => (float[4] y) { y = If(c) <then_branch = t () => (float[4] a) { a = Relu(x) }, "
        "else_branch = e () => (float[4] b) { b = Neg(x) }> }"
    )
    for attribute in proto.graph.node[0].attribute:
        attribute.g.name = ""
    return proto


def without_output_shape() -> ModelProto:
    proto = plain()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


def without_output_type() -> ModelProto:
    proto = plain()
    proto.graph.output[0].ClearField("type")
    return proto


def with_untyped_value_info() -> ModelProto:
    proto = without_output_type()
    proto.graph.value_info.add(name="a")
    return proto


def without_import() -> ModelProto:
    return model("g (float[2,4] x) => (float[2,4] y) { a = Relu(x) \n b = Relu(a) \n y = com.microsoft.Gelu(b) }")


def without_import_in_function() -> ModelProto:
    return model(
        "g (float[2,4] x) => (float[2,4] y) { y = l.f(x) }",
        domains=', "l" : 1',
        functions='<domain: "l", opset_import: ["" : 17]> f (a) => (b) { b = com.microsoft.Gelu(a) }',
    )


def of_old_ir() -> ModelProto:
    proto = plain()
    proto.ir_version = 3
    return proto


def listed_twice() -> ModelProto:
    proto = plain()
    proto.graph.input.append(proto.graph.input[0])
    return proto


def with_idle_nodes() -> ModelProto:
    proto = plain()
    proto.graph.node.insert(0, helper.make_node("Relu", ["w"], [], name="idle"))
    return proto


def unsorted() -> ModelProto:
    proto = plain()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    return proto


def with_long_domain() -> ModelProto:
    proto = plain()
    for node in proto.graph.node:
        node.domain = "ai.onnx"
    return proto


TIDIED = [
    (unnamed, "1 graph had no name"),
    (unnamed_body, "2 graphs had no name"),
    (without_output_shape, "output 'y' declared no type or no shape"),
    (without_output_type, "output 'y' declared no type or no shape"),
    (with_untyped_value_info, "1 value_info entry says no type"),
    (without_import, "operator set 'com.microsoft' was not imported; version 1 is"),
    (of_old_ir, "need IR version 4"),
    (listed_twice, "input 'x' was listed twice"),
    (with_idle_nodes, "node 'idle' had no outputs"),
    (unsorted, "they are sorted"),
    (with_long_domain, "nodes of the domain 'ai.onnx'"),
]


@pytest.mark.parametrize(("flawed", "said"), TIDIED, ids=[f.__name__ for f, _ in TIDIED])
def test_what_has_one_meaning_is_tidied(flawed: Callable[[], ModelProto], said: str) -> None:
    before = flawed()
    assert checker_problem(Located(before), strict=False) is not None
    untouched = before.SerializeToString()
    result = graphopt.optimize(before)
    onnx.checker.check_model(result.model, full_check=True)
    assert [s for s in result.report.tidied if said in s]
    assert before.SerializeToString() == untouched
    assert graphopt.optimize(result.model).report.tidied == ()


@pytest.mark.parametrize(("flawed", "said"), TIDIED, ids=[f.__name__ for f, _ in TIDIED])
def test_the_command_line_says_what_was_tidied(
    flawed: Callable[[], ModelProto], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.onnx").write_bytes(flawed().SerializeToString())
    code = run_command(["optimize", str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx"), "--no-verify"])
    assert code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "tidied: " in shown
    assert said in shown


def test_a_valid_model_is_not_tidied() -> None:
    report = graphopt.optimize(plain()).report
    assert report.tidied == report.tolerated == ()


def test_the_numbers_of_a_tidied_model_stay() -> None:
    before, given = without_import(), feeds(without_import())
    after = graphopt.optimize(before).model
    assert len(after.graph.node) == 2
    np.testing.assert_array_equal(run(before, given)[0], run(after, given)[0])


def test_an_inferred_output_shape_keeps_the_symbols_of_the_inputs() -> None:
    result = graphopt.optimize(without_output_shape()).model
    dims = result.graph.output[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 4]


def test_an_inferred_output_shape_has_no_made_up_names() -> None:
    proto = model("g (float[N,4] x) => (int64[2,K] y) { y = NonZero(x) }")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    dims = graphopt.optimize(proto).model.graph.output[0].type.tensor_type.shape.dim
    assert dims[0].dim_value == 2
    assert dims[1].WhichOneof("value") is None


OLD_NORM = """g (float[2,8] x) => (float[2,8] y) {
    a = Relu(x) \n b = Relu(a) \n n = LayerNormalization<axis = -1>(b, s) \n m = Mul(n, s) \n y = Identity(m) }"""


def old_norm(name: str = "LayerNormalization") -> ModelProto:
    text = OLD_NORM.replace("LayerNormalization", name)
    return model(text, {"s": np.linspace(0.5, 2, 8, dtype=np.float32)}, opset=14)


@pytest.mark.parametrize("name", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_an_operator_that_the_standard_lacks_is_left_alone(name: str) -> None:
    before = old_norm(name)
    result = graphopt.optimize(before)
    assert [n.op_type for n in result.model.graph.node] == ["Relu", name, "Mul"]
    assert any(f"ONNX has no {name} at opset 14 (1 node)" in s for s in result.report.tolerated)
    assert "outputs" in result.report.verification["checks"]
    given = feeds(before)
    np.testing.assert_array_equal(run(before, given)[0], run(result.model, given)[0])


def test_the_same_operator_at_its_opset_is_rewritten() -> None:
    proto = model(OLD_NORM, {"s": np.linspace(0.5, 2, 8, dtype=np.float32)}, opset=17)
    assert [n.op_type for n in graphopt.optimize(proto).model.graph.node] == ["Relu", "LayerNormalization"]


def test_nothing_is_inferred_through_an_operator_that_the_standard_lacks() -> None:
    opened = graphopt.optimize(old_norm()).graph
    unknown = next(n for n in opened.graph.nodes if n.op_type == "LayerNormalization")
    assert unknown.op == "unknown::LayerNormalization"
    assert unknown.result.dtype is None


def test_an_operator_that_no_runtime_has_is_refused_when_outputs_are_compared() -> None:
    with pytest.raises(ExecutionError, match="does not run"):
        graphopt.optimize(old_norm("NoSuchOperator"))
    report = graphopt.optimize(old_norm("NoSuchOperator"), verify=False).report
    assert "NoSuchOperator" in report.tolerated[0]
    assert any("NoSuchOperator" in point for point in report.verification["not_checked"])


def test_an_input_without_a_shape_stays_open() -> None:
    proto = plain()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    result = graphopt.optimize(proto, verify=False)
    assert result.report.tolerated == ("input 'x' declares no shape: ONNX's checker rejects that, runtimes take it",)
    assert not result.model.graph.input[0].type.tensor_type.HasField("shape")
    assert [n.op_type for n in result.model.graph.node] == ["Relu", "Add"]


def cyclic() -> ModelProto:
    proto = unnamed()
    proto.graph.node[0].input[0] = "b"
    return proto


def made_twice() -> ModelProto:
    proto = unnamed()
    proto.graph.node[1].output[0] = "a"
    return proto


def listed_twice_in_other_words() -> ModelProto:
    proto = listed_twice()
    proto.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 5
    return proto


def without_standard() -> ModelProto:
    proto = unnamed()
    proto.opset_import[0].domain = "com.microsoft"
    return proto


def without_ml() -> ModelProto:
    return model("g (float[2,4] x) => (float[2,4] y) { y = ai.onnx.ml.Binarizer(x) }")


def with_foreign_attribute() -> ModelProto:
    proto = old_norm()
    proto.graph.node[0].attribute.append(helper.make_attribute("colour", 3))
    return proto


def with_too_few_inputs() -> ModelProto:
    proto = old_norm()
    del proto.graph.node[3].input[1:]
    return proto


def with_training_graphs() -> ModelProto:
    proto = unnamed()
    binding = proto.training_info.add().update_binding.add()
    binding.key, binding.value = "w", "new"
    return proto


REFUSED = [
    (with_training_graphs, "training_info"),
    (cyclic, "cycle"),
    (made_twice, "made twice"),
    (listed_twice_in_other_words, "'x' is made twice"),
    (without_standard, "not valid ONNX"),
    (without_ml, "not valid ONNX.*ai.onnx.ml"),
    (without_import_in_function, "not valid ONNX.*com.microsoft"),
    (with_foreign_attribute, "not valid ONNX.*colour"),
    (with_too_few_inputs, "not valid ONNX.*Mul"),
]


@pytest.mark.parametrize(("broken", "says"), REFUSED, ids=[f.__name__ for f, _ in REFUSED])
def test_what_is_broken_is_refused(
    broken: Callable[[], ModelProto], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match=says):
        graphopt.optimize(broken(), verify=False)
    (tmp_path / "in.onnx").write_bytes(broken().SerializeToString())
    assert run_command(["optimize", str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx")]) == 1
    assert "error: " in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["in.onnx"]


def test_a_candidate_with_another_flaw_than_its_original_is_rejected() -> None:
    before = old_norm()
    worse = old_norm()
    worse.graph.node[0].attribute.append(helper.make_attribute("colour", 3))
    assert graphopt.verify(before, old_norm()).passed
    assert "rejects the candidate" in graphopt.verify(before, worse).problems[0]
