"""`optimize(tune=...)` and `graphopt optimize --tune`: measured, remembered, reported."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

import graphopt
from graphopt.cli.app import app
from graphopt.errors import PipelineError
from graphopt.tune import Budget
from tests.graphopt.cost.test_trade import MEETING


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHOPT_CACHE", str(tmp_path / "cache"))


def test_the_library_measures_and_tells_its_trials() -> None:
    told = []
    result = graphopt.optimize(
        MEETING,
        target="onnxruntime",
        tune=Budget(2, 20.0),
        tune_progress=lambda done, total, text: told.append((done, total, text)),
    )
    tuning = result.report.tuning
    assert tuning is not None
    assert tuning["meter"].startswith("ONNX Runtime")
    assert len(tuning["trials"]) == len(told) <= 2
    assert told[0][2] == "without merge-adjacent-convs"
    again = graphopt.optimize(MEETING, target="onnxruntime", tune=Budget(2, 20.0))
    assert again.report.tuning is not None
    assert again.report.tuning["from_cache"]
    assert again.model == result.model


def test_without_it_nothing_is_measured() -> None:
    assert graphopt.optimize(MEETING).report.tuning is None


def test_the_command_line_measures(tmp_path: Path) -> None:
    source, output, report = (tmp_path / name for name in ("in.onnx", "out.onnx", "report.json"))
    onnx.save(MEETING, source)
    arguments = ["optimize", str(source), "-o", str(output), "--target", "onnxruntime", "--report", str(report)]
    done = CliRunner().invoke(app, [*arguments, "--tune", "--tune-trials", "1", "--tune-seconds", "20"])
    assert done.exit_code == 0, done.output
    assert "measured: 1 trials with" in " ".join(done.output.split())
    assert len(json.loads(report.read_text())["tuning"]["trials"]) == 1


@pytest.mark.parametrize(("option", "value"), [("layout", "hwc"), ("launch", "later"), ("device", "abacus")])
def test_unknown_settings_are_the_users_mistake(option: str, value: str) -> None:
    with pytest.raises(PipelineError, match=f"there is no {option} '{value}'"):
        graphopt.optimize(MEETING, **{option: value})  # type: ignore[arg-type]
