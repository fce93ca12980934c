from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphopt.errors import InputsError
from graphopt.tensorrt import build_engine, compare
from graphopt.tensorrt.comparison import EngineComparison, compare_outputs, draw_inputs
from tests.graphopt.tensorrt.models import model, small_net

module = "graphopt.tensorrt.comparison"


def against(expected: Any, actual: Any, tolerance: float = 1e-2) -> EngineComparison:
    return compare_outputs([{"y": np.asarray(expected)}], [{"y": np.asarray(actual)}], tolerance)


def test_outputs_within_the_tolerance_pass() -> None:
    found = against(np.float32([100.0, 0.0]), np.float32([100.5, 0.5]))
    assert found.passed
    assert found.outputs[0].error == pytest.approx(5e-3)


@pytest.mark.parametrize(
    ("expected", "actual", "why"),
    [
        (np.float32([1, 2]), np.float32([1, 2.1]), "is off by"),
        (np.float32([1, 2]), np.float32([1, np.nan]), "NaN or infinity"),
        (np.float32([1, np.nan]), np.float32([1, 2]), "NaN or infinity"),
        (np.float32([1, np.inf]), np.float32([1, -np.inf]), "NaN or infinity"),
        (np.float32([1, 2]), np.float32([[1, 2]]), "has shape"),
        (np.float32([0, 0]), np.float32([0, 1e-3]), "is off by"),
        (np.int64([1, 2]), np.int64([1, 3]), "1 of 2 values wrong"),
        ([True], [False], "values wrong"),
    ],
)
def test_outputs_that_differ_do_not_pass(expected: Any, actual: Any, why: str) -> None:
    found = against(expected, actual)
    assert not found.passed
    assert why in str(found)


def test_nan_and_infinity_in_the_same_places_agree() -> None:
    values = np.float32([1, np.nan, np.inf, -np.inf])
    assert against(values, values.copy()).passed


def test_one_bad_run_of_several_is_enough() -> None:
    good, bad = {"y": np.float32([1])}, {"y": np.float32([2])}
    assert not compare_outputs([good, good, good], [good, bad, good], 1e-2).passed


def test_a_missing_output_and_no_output_do_not_pass() -> None:
    y = {"y": np.float32([1])}
    assert not compare_outputs([y], [{}], 1e-2).passed
    assert not compare_outputs([{}], [y], 1e-2).passed
    assert not compare_outputs([{}], [{}], 1e-2).passed
    assert not compare_outputs([], [], 1e-2).passed


@pytest.mark.usefixtures("rtx", "no_gpu")
def test_without_a_gpu_the_comparison_is_not_done_and_has_not_passed() -> None:
    found = compare(small_net(), build_engine(small_net()))
    assert not found.passed
    assert found.not_done is not None
    assert "no NVIDIA GPU is visible" in str(found)


@pytest.mark.usefixtures("rtx", "no_gpu")
def test_on_another_gpu_the_comparison_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = build_engine(small_net(), compute_capabilities=["8.9"])
    monkeypatch.setattr(f"{module}.gpu_capability", lambda: (9, 0))
    found = compare(small_net(), engine)
    assert not found.passed
    assert "the GPU has compute capability 9.0 and the engine is for 8.9" in str(found)


@pytest.mark.usefixtures("rtx", "no_gpu")
@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (1.5, False)])
def test_the_reference_is_the_model_itself(monkeypatch: pytest.MonkeyPatch, factor: float, passed: bool) -> None:
    """The engine's side is played by numpy here: this machine may have no GPU. The model's side is real."""
    net = model("g (float[N,3] x) => (float[N,3] y) { y = Add(x, x) }")
    engine = build_engine(net, compute_capabilities=["8.9"])
    monkeypatch.setattr(f"{module}.gpu_capability", lambda: (8, 9))
    monkeypatch.setattr(f"{module}._engine_outputs", lambda _, feeds: [{"y": feed["x"] * 2 * factor} for feed in feeds])
    assert compare(net, engine).passed is passed


@pytest.mark.usefixtures("rtx", "no_gpu")
def test_inputs_are_drawn_the_same_each_time_at_the_tuned_shape() -> None:
    net = model("g (float[N,3] x, int64[N] i, bool[N] b) => (float[N,3] y) { g = Gather(x, i)\n y = Where(b, g, g) }")
    net.graph.node[1].input[0] = "b"
    engine = build_engine(
        model("g (float[N,3] x, int64[N] i) => (float[a,3] y) { y = Gather(x, i) }"),
        shapes={"x": "2x3/4x3/8x3", "i": "2/4/8"},
    )
    feeds, again = draw_inputs(net, engine), draw_inputs(net, engine)
    assert {name: value.shape for name, value in feeds[0].items()} == {"x": (4, 3), "i": (4,)}
    assert all(np.array_equal(feed[name], same[name]) for feed, same in zip(feeds, again, strict=True) for name in feed)
    assert not np.array_equal(feeds[0]["x"], feeds[1]["x"])
    assert set(np.unique(feeds[0]["i"])) <= {0, 1}


@pytest.mark.usefixtures("rtx", "no_gpu")
@pytest.mark.parametrize("inputs", [[], [{}], [{"x": np.zeros(1), "z": np.zeros(1)}]])
def test_inputs_that_do_not_fit(monkeypatch: pytest.MonkeyPatch, inputs: Any) -> None:
    engine = build_engine(small_net(), compute_capabilities=["8.9"])
    monkeypatch.setattr(f"{module}.gpu_capability", lambda: (8, 9))
    with pytest.raises(InputsError):
        compare(small_net(), engine, inputs=inputs)
