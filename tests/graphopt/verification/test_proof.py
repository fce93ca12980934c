from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphopt.errors import ExecutionError, InputsError, ModelError, ShapeError
from graphopt.verification import Exact, Located, Tolerance, Verifier, verify
from tests.graphopt.verification.models import model, save_apart, with_weights

DOUBLED = "(float[2,3] x) => (float[2,3] y) { two = Constant<value = float {2.0}>() y = Mul(x, two) }"
SUMMED = "(float[2,3] x) => (float[2,3] y) { y = Add(x, x) }"


def test_equal_models_pass_and_the_result_is_json() -> None:
    found = verify(model(DOUBLED), model(SUMMED))
    assert found.passed
    assert found.checks == ("checker", "interface", "outputs")
    assert found.samples == 3
    assert [(check.name, check.type, check.how) for check in found.outputs] == [("y", "float32[2,3]", "equal")]
    assert "3 random inputs" in found.how
    assert "optimizations off" in found.how
    assert json.loads(json.dumps(dataclasses.asdict(found)))["passed"] is True


def test_other_numbers_fail_and_are_measured() -> None:
    wrong = model(DOUBLED.replace("2.0", "2.0001"))
    found = verify(model(DOUBLED), wrong)
    assert not found.passed
    assert "y differs" in found.problems[0]
    (check,) = found.outputs
    assert check.original_error == 0
    assert check.candidate_error == pytest.approx(check.worst)


@pytest.mark.parametrize(
    ("candidate", "problem"),
    [
        ("(float[2,3] x) => (float[2,3] z) { z = Add(x, x) }", "The output y is missing"),
        ("(float[2,3] x) => (float[2,3] y, float[2,3] z) { y = Add(x, x) z = Neg(x) }", "The output z is new"),
        ("(float[2,3] z) => (float[2,3] y) { y = Add(z, z) }", "The input x is missing"),
        ("(float[2,3] x, float[2] b) => (float[2,3] y) { y = Add(x, x) }", "The input b is new"),
        ("(float[2,3] x) => (double[2,3] y) { s = Add(x, x) y = Cast<to=11>(s) }", "of type DOUBLE instead of FLOAT"),
        ("(float[2,4] x) => (float[2,4] y) { y = Add(x, x) }", "takes the shape [2, 4] only, instead of [2, 3]"),
    ],
)
def test_another_interface_fails(candidate: str, problem: str) -> None:
    found = verify(model(SUMMED), model(candidate))
    assert not found.passed
    assert any(problem in sentence for sentence in found.problems)
    assert "outputs" not in found.checks


def test_outputs_in_another_order_fail() -> None:
    mine = model("(float[2] x) => (float[2] a, float[2] b) { a = Neg(x) b = Abs(x) }")
    theirs = model("(float[2] x) => (float[2] b, float[2] a) { a = Neg(x) b = Abs(x) }")
    assert verify(mine, theirs).problems == ("The outputs come in another order: b, a instead of a, b.",)


def test_swapped_outputs_fail() -> None:
    mine = model("(float[2] x) => (float[2] a, float[2] b) { a = Neg(x) b = Abs(x) }")
    theirs = model("(float[2] x) => (float[2] a, float[2] b) { b = Neg(x) a = Abs(x) }")
    assert len(verify(mine, theirs).problems) == 2


def test_a_free_dimension_may_be_fixed_only_by_the_user() -> None:
    free, fixed = (model(f"(float[{n},3] x) => (float[{n},3] y) {{ y = Neg(x) }}") for n in ("n", "2"))
    assert not verify(free, fixed).passed
    assert verify(free, fixed, shapes={"x": (2, 3)}).passed
    assert verify(fixed, free).passed  # takes more than before


def test_a_shape_that_does_not_fit_is_the_users_mistake() -> None:
    with pytest.raises(ShapeError, match="does not fit"):
        verify(model(SUMMED), model(SUMMED), shapes={"x": (2, 3, 4)})


def test_an_invalid_candidate_fails_without_being_run() -> None:
    broken = model(SUMMED)
    broken.graph.node[0].input[1] = "nowhere"
    found = verify(model(SUMMED), broken)
    assert not found.passed
    assert "ONNX checker rejects the candidate" in found.problems[0]


def test_a_candidate_of_an_original_that_the_checker_rejects_is_still_compared() -> None:
    odd = model("(float[2] x) => (float[2] y) { y = Abs(z) z = Neg(x) }")  # not sorted; ONNX Runtime sorts
    found = verify(odd, odd)
    assert found.passed
    assert "checker" not in found.checks
    assert "rejects the original itself" in found.not_checked[0]


def test_a_candidate_that_does_not_run_fails() -> None:
    mine = model("(float[n] x) => (float[n] y) { y = Neg(x) }")
    theirs = model(
        "(float[n] x) => (float[n] y) { s = Constant<value_ints=[7]>() r = Reshape(x, s) y = Neg(r) }",
    )
    found = verify(mine, theirs)
    assert not found.passed
    assert "does not run on inputs that the original runs on" in found.problems[0]


def test_an_original_that_does_not_run_is_an_error_and_no_finding() -> None:
    bad = model("(float[2,3] x) => (float[7] y) { s = Constant<value_ints=[7]>() y = Reshape(x, s) }")
    with pytest.raises(ExecutionError, match="original model itself does not run"):
        verify(bad, bad)


def test_operators_of_unknown_domains_are_an_error_with_two_ways_out() -> None:
    custom = model("(float[2] x) => (float[2] y) { y = acme.Frobnicate(x) }", domains=', "acme" : 1')
    with pytest.raises(ExecutionError, match=r"acme:Frobnicate.*custom-operator library.*--no-verify"):
        verify(custom, custom)


def test_paths_external_data_and_located_models(tmp_path: Path) -> None:
    weights = {"w": np.arange(600, dtype=np.float32).reshape(2, 300)}
    proto = with_weights(model("(float[3,2] x) => (float[3,300] y) { y = MatMul(x, w) }"), **weights)
    path = tmp_path / "deep" / "model.onnx"
    path.parent.mkdir()
    save_apart(proto, path, "weights.bin")
    apart = onnx.load(path, load_external_data=False)
    assert verify(path, proto).passed
    assert verify(proto, str(path)).passed
    assert verify(path, Located(apart, path.parent)).passed
    wrong = with_weights(model("(float[3,2] x) => (float[3,300] y) { y = MatMul(x, w) }"), w=weights["w"] * 1.01)
    assert not verify(path, wrong).passed


def test_external_data_that_is_missing_or_short_fails_the_check(tmp_path: Path) -> None:
    weights = {"w": np.ones((2, 300), dtype=np.float32)}
    proto = with_weights(model("(float[3,2] x) => (float[3,300] y) { y = MatMul(x, w) }"), **weights)
    save_apart(proto, tmp_path / "m.onnx", "w.bin")
    (tmp_path / "w.bin").write_bytes(b"short")
    assert "too short" in verify(proto, tmp_path / "m.onnx").problems[0]
    (tmp_path / "w.bin").unlink()
    assert "missing" in verify(proto, tmp_path / "m.onnx").problems[0]


@pytest.mark.parametrize("content", [b"just text, no model", b""])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ModelError, match="cannot be read"):
        verify(path, path)
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not an ONNX model"):
        verify(path, path)


def test_the_models_are_not_changed() -> None:
    mine, theirs = model(DOUBLED, ir=99), model(SUMMED)
    before = mine.SerializeToString(), theirs.SerializeToString()
    verify(mine, theirs)
    assert before == (mine.SerializeToString(), theirs.SerializeToString())


def test_a_model_without_inputs_and_one_without_floats() -> None:
    constant = model("() => (int64[2] y) { y = Constant<value_ints=[1, 2]>() }")
    other = model("() => (int64[2] y) { y = Constant<value_ints=[1, 3]>() }")
    found = verify(constant, constant)
    assert found.passed
    assert found.samples == 1
    assert not verify(constant, other).passed
    integers = model("(int32[n] x) => (int32[n] y) { y = Mul(x, x) }")
    assert verify(integers, integers).passed


def test_a_model_without_outputs_is_said_to_have_none() -> None:
    silent = model("(float[2] x) => () { y = Neg(x) }")
    assert verify(silent, silent).not_checked == ("The model has no outputs, so that there was nothing to compare.",)


def test_an_empty_output_is_said_to_be_empty() -> None:
    empty = model("(float[0,3] x) => (float[0,3] y) { y = Neg(x) }")
    found = verify(empty, empty)
    assert found.passed
    assert "had no elements" in found.not_checked[0]
    wrong = model("(float[0,3] x) => (float[p,q] y) { y = Transpose(x) }")
    assert not verify(empty, wrong).passed


def test_an_output_that_is_nothing_but_nan_is_said_to_be() -> None:
    nan = model("(float[2] x) => (float[2] y) { z = Sub(x, x) y = Div(z, z) }")
    found = verify(nan, nan)
    assert found.passed
    assert "only NaN and Inf" in found.not_checked[0]


def test_a_declared_output_shape_must_be_true_unless_the_original_lies_alike() -> None:
    honest = model("(float[2] x) => (float[n] y) { y = Neg(x) }")
    lying = model("(float[2] x) => (float[5] y) { y = Neg(x) }")
    assert not verify(honest, lying).passed
    assert verify(honest, model("(float[2] x) => (float[2] y) { y = Neg(x) }")).passed


OVERRIDABLE = "(float[2] x, float[2] w) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Mul(x, w) }"


def test_an_input_with_a_default_must_stay_one_and_be_obeyed() -> None:
    mine = model(OVERRIDABLE)
    constant = model("(float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Mul(x, w) }")
    ignored = model(
        "(float[2] x, float[2] w) => (float[2] y) <float[2] w = {1.0, 2.0}, float[2] v = {1.0, 2.0}> { y = Mul(x, v) }"
    )
    assert verify(mine, mine).passed
    assert "can no longer be given" in verify(mine, constant).problems[0]
    assert "y differs" in verify(mine, ignored).problems[0]


def test_before_ir_version_4_initializers_among_the_inputs_are_constant() -> None:
    mine = model(OVERRIDABLE, opset=8, ir=3)
    constant = model("(float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Mul(x, w) }", opset=8)
    assert verify(mine, constant).passed


def test_plain_tolerance_and_array_equality() -> None:
    near = model(DOUBLED.replace("2.0", "2.0001"))
    assert verify(model(DOUBLED), near, tolerance=Tolerance(rtol=1e-3)).passed
    found = verify(model(DOUBLED), near, tolerance=Tolerance(rtol=1e-6))
    assert "rtol 1e-06" in found.problems[0]
    assert verify(model(DOUBLED), model(SUMMED), tolerance=Exact()).passed
    assert not verify(model(DOUBLED), model(DOUBLED.replace("2.0", "2.0000002")), tolerance=Exact()).passed


def test_no_samples_is_the_callers_mistake() -> None:
    with pytest.raises(InputsError, match="At least one sample"):
        verify(model(SUMMED), model(SUMMED), samples=0)


def test_a_verifier_runs_the_original_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = Verifier(model(DOUBLED))
    opened: list[str] = []
    from graphopt.verification import execution

    running = execution.running

    def counting(engine: execution.Engine, name: str) -> object:
        opened.append(name)
        return running(engine, name)

    monkeypatch.setattr(execution, "running", counting)
    assert verifier.verify(model(SUMMED)).passed
    assert verifier.verify(model(DOUBLED)).passed
    assert opened == ["original", "candidate", "candidate"]


def test_the_same_seed_gives_the_same_verdict_in_figures() -> None:
    wrong = model(DOUBLED.replace("2.0", "2.0001"))
    assert verify(model(DOUBLED), wrong, seed=5) == verify(model(DOUBLED), wrong, seed=5)
    assert verify(model(DOUBLED), wrong, seed=5) != verify(model(DOUBLED), wrong, seed=6)
