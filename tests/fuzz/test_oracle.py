"""The oracle and the shrinking on optimizers with planted bugs: each bug is seen, and its model becomes small."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from tests.fuzz import found, generate, oracle, worker
from tests.fuzz.__main__ import verdict
from tests.fuzz.campaign import Tally
from tests.fuzz.compare import Exact, differs, differs_beyond
from tests.fuzz.inputs import feeds
from tests.fuzz.reference import Reference
from tests.support.models import model

pytestmark = pytest.mark.unchecked  # rules that are wrong on purpose

Bug = Callable[[ModelProto], None]


def _swapped_sub(m: ModelProto) -> None:
    for node in m.graph.node:
        if node.op_type == "Sub":
            node.input[:] = [node.input[1], node.input[0]]


def _dropped_bias(m: ModelProto) -> None:
    for node in m.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            del node.input[2]


def _reordered_concat(m: ModelProto) -> None:
    for node in m.graph.node:
        if node.op_type == "Concat":
            node.input[:] = list(reversed(node.input))


def _wrong_slope(m: ModelProto) -> None:
    for node in m.graph.node:
        if node.op_type == "LeakyRelu" and node.attribute:
            node.attribute[0].f += 0.001


def _lost_output(m: ModelProto) -> None:
    if len(m.graph.output) > 1:
        del m.graph.output[-1]


def _dangling(m: ModelProto) -> None:
    if len(m.graph.node) > 2:
        del m.graph.node[0]


def _half_weights(m: ModelProto) -> None:
    """A precision lost without a word: weights rounded to fp16."""
    for weight in m.graph.initializer:
        value = numpy_helper.to_array(weight)
        if value.dtype == np.float32:
            weight.CopyFrom(numpy_helper.from_array(value.astype(np.float16).astype(np.float32), weight.name))


def _crash(m: ModelProto) -> None:
    if any(node.op_type == "Clip" for node in m.graph.node):
        raise KeyError("Clip")


BUGS: list[tuple[Bug, str]] = [
    (_swapped_sub, "wrong"),
    (_dropped_bias, "wrong"),
    (_reordered_concat, "wrong"),
    (_wrong_slope, "wrong"),
    (_lost_output, "invalid"),
    (_dangling, "invalid"),
    (_half_weights, "wrong"),
    (_crash, "crash"),
]
ONE = [oracle.Setting("default", "tensorrt")]


def _plant(monkeypatch: pytest.MonkeyPatch, bug: Bug | None) -> None:
    def optimize(source: ModelProto, setting: oracle.Setting, **_: Any) -> Any:
        copy = ModelProto()
        copy.CopyFrom(source)
        if bug is not None:
            bug(copy)
        return SimpleNamespace(
            model=copy,
            report=SimpleNamespace(applied={"planted": 1} if bug else {}, withdrawn=(), verification={"passed": True}),
        )

    planted = SimpleNamespace(exactness=SimpleNamespace(value="reassociates"), trades=False, needs_finite=False)
    monkeypatch.setattr(oracle, "optimize", optimize)
    monkeypatch.setattr(oracle, "_rules", lambda: {"planted": planted})


@pytest.mark.parametrize(("bug", "kind"), BUGS, ids=lambda value: getattr(value, "__name__", value))
def test_a_planted_bug_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch, bug: Bug, kind: str) -> None:
    monkeypatch.setattr(worker, "SHRINK_SECONDS", 2.0)
    _plant(monkeypatch, bug)
    for number in range(200):
        case = generate.case_of(3, number)
        assert case is not None
        failures = oracle.examine(case.model, feeds(case), 0, ONE, True).failures
        if any(failure.kind.startswith(kind) for failure in failures):
            failure = next(failure for failure in failures if failure.kind.startswith(kind))
            break
    else:
        pytest.fail("not found in 200 models")
    data, inputs = worker.shrink(3, number, case, failure)
    small = onnx.load_model_from_string(data)
    assert worker.same(failure, small, inputs)
    assert len(small.graph.node) <= 4, onnx.printer.to_text(small)


@pytest.mark.parametrize(
    ("problem", "kinds"),
    [(f"The output y differs: {oracle.INACCURATE} is 2e-07", []), ("The candidate does not run", ["withdrawn"])],
)
def test_what_the_proof_takes_back_for_accuracy_alone_is_counted_apart(
    monkeypatch: pytest.MonkeyPatch, problem: str, kinds: list[str]
) -> None:
    _plant(monkeypatch, None)
    plain = oracle.optimize

    def proving(source: ModelProto, setting: oracle.Setting, **proof: Any) -> Any:
        result = plain(source, setting)
        if proof:
            result.report.withdrawn = (SimpleNamespace(rule="planted", problem=problem),)
        return result

    monkeypatch.setattr(oracle, "optimize", proving)
    case = generate.case_of(4, 1)
    assert case is not None
    outcome = oracle.examine(case.model, feeds(case), 0, ONE, True)
    assert [failure.kind for failure in outcome.failures] == kinds
    assert outcome.less_accurate == ({} if kinds else {"planted": 1})


def test_the_proof_runs_on_what_the_oracle_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = SimpleNamespace(needs_finite=True, exactness=SimpleNamespace(value="reassociates"))
    monkeypatch.setattr(oracle, "_rules", lambda: {"planted": rule})
    usual, wide = {"x": np.ones(2, np.float32)}, {"x": np.array([1, np.inf], np.float32)}
    results = [(usual, [np.ones(2, np.float32)]), (usual, [np.array([np.nan])]), (wide, [np.ones(2, np.float32)])]
    reference = SimpleNamespace(results=results)
    assert len(oracle.inputs_of_proof(reference, ["planted"], exact=False)) == 1  # type: ignore[arg-type]
    assert len(oracle.inputs_of_proof(reference, ["planted"], exact=True)) == 2  # type: ignore[arg-type]
    assert len(oracle.inputs_of_proof(reference, [], exact=True)) == 3  # type: ignore[arg-type]


def test_no_bug_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant(monkeypatch, None)
    for number in range(100):
        case = generate.case_of(4, number)
        assert case is not None
        assert not oracle.examine(case.model, feeds(case), 0, ONE, True).failures


def test_a_failure_comes_back_from_its_files(tmp_path: Path) -> None:
    proto = model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    inputs = [{"x": np.array([1, -0.0], np.float32)}, {"x": np.zeros(2, np.float32)}]
    failure = oracle.Failure("wrong", ONE[0], "because", "wrong")
    path = found.save(tmp_path, proto, inputs, failure, "seed 1")
    back = found.load(path)
    assert back.model == proto
    assert [list(one) for one in back.feeds] == [["x"], ["x"]]
    assert back.feeds[0]["x"].tobytes() == inputs[0]["x"].tobytes()
    assert "because" in back.reason


def _differ(one: list[float], other: list[float], exact: Exact = Exact.NO) -> bool:
    return differs([np.array(one, np.float32)], [np.array(other, np.float32)], ["y"], exact) is not None


def test_what_counts_as_equal() -> None:
    nan, inf = float("nan"), float("inf")
    assert not _differ([1.0, nan, inf, -inf], [1.0000001, nan, inf, -inf])
    assert _differ([1.0], [1.0000001], exact=Exact.BITS)
    assert _differ([0.0], [-0.0], exact=Exact.BITS)
    assert not _differ([0.0], [-0.0], exact=Exact.VALUES)
    assert _differ([1.0], [1.0000001], exact=Exact.VALUES)
    assert _differ([1.0, 2.0], [1.0, 2.001])
    assert _differ([1.0], [nan])
    assert _differ([inf], [-inf])
    assert _differ([3e38], [inf])


def test_differences_that_rounding_explains() -> None:
    """A step near its edge may go either way; elsewhere it may not."""
    at_edge = model("g (float[2] x) => (float[2] y) { d = Mul(x, w) \n y = Floor(d) }", {"w": np.float32(1.0)})
    x = {"x": np.array([2.9999998, 1.5], np.float32)}
    reference = Reference(at_edge, [x])
    shaken = reference._shake(0, 24)
    expected = reference.results[0][1]
    assert differs_beyond(expected, [np.array([3, 1], np.float32)], ["y"], shaken) is None
    assert differs_beyond(expected, [np.array([2, 2], np.float32)], ["y"], shaken) is not None


def test_scales_of_a_resize_are_not_shaken() -> None:
    """ONNX Runtime refuses scales beside 1, and a copy that does not run would leave no room at all."""
    text = 'g (float[1,2,2,2] x) => (float[?,?,?,?] y) { d = Mul(x, w) \n y = Resize<mode = "linear">(d, , s) }'
    resized = model(text, {"w": np.float32(0.3), "s": np.array([1, 1, 1, 2], np.float32)})
    reference = Reference(resized, [{"x": np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)}])
    assert len(reference._shake(0, 6)) == 6


@pytest.mark.parametrize(("number", "passed_over"), [(2**53 + 1, True), (5, False)])
def test_integers_that_onnx_runtime_reduces_in_doubles_are_passed_over(number: int, passed_over: bool) -> None:
    """A sum of one integer is that integer; ONNX Runtime rounds it to a float64 on the way."""
    original = model("m (int64[1] x) => (int64[1] y) { a = Constant<value_ints=[0]>()  y = ReduceSum(x, a) }", opset=13)
    other = model("m (int64[1] x) => (int64[1] y) { o = Constant<value_ints=[1]>()  y = Sub(x, o) }", opset=13)
    reference = Reference(original, [{"x": np.asarray([number], np.int64)}])
    assert (reference.check(other, exact=True) is None) == passed_over


def test_drawn_outputs_are_compared_by_shape() -> None:
    proto = model(
        "g (float[2] x) => (float[2] y, float[2] z) { r = RandomNormalLike(x) \n y = Add(x, r) \n z = Neg(x) }"
    )
    reference = Reference(proto, [{"x": np.ones(2, np.float32)}])
    assert reference.random == [{0}]
    assert reference.check(proto, exact=True) is None
    other = model(
        "g (float[2] x) => (float[2] y, float[2] z) { r = RandomNormalLike(x) \n y = Add(x, r) \n z = Abs(x) }"
    )
    assert reference.check(other, exact=True) is not None


def test_an_input_may_say_whether_outputs_are_drawn() -> None:
    proto = model("g (float[64] x, bool on) => (float[64] y) { y = Dropout(x, half, on) }", {"half": np.float32(0.5)})
    x = np.ones(64, np.float32)
    reference = Reference(proto, [{"x": x, "on": np.array(on)} for on in (False, True)])
    assert reference.random == [set(), {0}]
    assert reference.check(proto, exact=True) is None
    always = model(
        "g (float[64] x, bool on) => (float[64] y) { y = Dropout(x, half, yes) }",
        {"half": np.float32(0.5), "yes": np.True_},
    )
    assert reference.check(always, exact=True) is not None


def test_a_model_that_declares_what_it_does_not_keep_is_not_counted() -> None:
    proto = model("g (float[2] x) => (float[7] y) { y = Relu(x) }")
    outcome = oracle.examine(proto, [{"x": np.ones(2, np.float32)}], 0, ONE)
    assert outcome.uncomparable == "declared to be [7], the output 'y' is [2]"
    assert not outcome.failures
    assert not outcome.compared


def test_a_theme_comes_to_its_turn() -> None:
    """Siblings of one width are merged by another rule first, unless that is forbidden."""
    for seed in range(20):
        *fixed, around = oracle.settings_for(seed, True, "merge-equal-sibling-matmuls")
        assert len(fixed) in (4, 5)  # with one that brings the model to another opset
        assert around.forced
        assert "merge-sibling-matmuls" in around.forbid
        assert "merge-equal-sibling-matmuls" not in around.forbid


def test_the_verdict_says_what_was_found() -> None:
    tally = Tally(models=7)
    tally.kinds.update(["wrong", "wrong (exact rules)", "invalid", "died", "withdrawn", "time-out"])
    tally.uncomparable["a kernel is missing"] = 2
    assert verdict(tally) == (
        "5 models compared: 2 wrong, 1 invalid, 2 crashes, 1 withdrawn; "
        "2 more were optimized that do not run as they were drawn"
    )
