"""The command `benchmarks/engines.py`: a table that hides nothing of what did not work."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.graphopt.tensorrt.models import model, small_net

PATH = Path(__file__).parents[3] / "benchmarks" / "engines.py"


@pytest.fixture(scope="module")
def engines() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_engines", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_engines"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def built(engines: Any, kernels: int, sync_layers: int, activation_bytes: int, **more: Any) -> Any:
    return engines.Figures(kernels=kernels, sync_layers=sync_layers, activation_bytes=activation_bytes, **more)


def test_ratios_and_means(engines: Any) -> None:
    rows = {
        "a": {"original": built(engines, 10, 10, 2_000_000), "graphopt": built(engines, 5, 0, 1_000_000)},
        "b": {"original": built(engines, 10, 0, 1_000_000), "graphopt": built(engines, 20, 0, 4_000_000)},
        "c": {"original": engines.Figures(problem="refused: why"), "graphopt": built(engines, 1, 0, 1_000_000)},
    }
    table = engines.markdown(rows)
    assert "| a | 10 / 10 / 2.0 | 5 / 0 / 1.0 | 0.50 | 0.25 | 0.50 |" in table
    assert "| c | refused | 1 / 0 / 1.0 | - | - | - |" in table
    assert "geometric mean of 2 | | | 1.000 | 0.707 | 1.414" in table
    assert "- c, original: refused: why" in table
    assert math.isnan(engines.geometric_mean([]))


def test_models_that_were_lost_are_counted_and_not_averaged_away(engines: Any) -> None:
    good = {"original": built(engines, 10, 0, 1_000_000), "graphopt": built(engines, 5, 0, 1_000_000, is_changed=True)}
    lost = {"original": built(engines, 10, 0, 1_000_000), "graphopt": engines.Figures(problem="crashed: why")}
    table = engines.markdown({"good": good, "lost": lost})
    assert "geometric mean of 1 " in table
    assert "**1 models have an engine before and none after" in table
    assert "0 of 1 models" in table
    assert "none after" not in engines.markdown({"good": good})


def test_a_table_that_compares_models_with_themselves_says_so(engines: Any) -> None:
    before = built(engines, 10, 0, 1_000_000)
    same = built(engines, 10, 0, 1_000_000, is_changed=False, pipeline="")
    assert "1 of 1 models" in engines.markdown({"a": {"original": before, "graphopt": same}})
    assert "empty pipeline" in engines.markdown({"a": {"original": before, "graphopt": same}})
    real = built(engines, 9, 0, 1_000_000, is_changed=True, pipeline="clean-up")
    assert "empty pipeline" not in engines.markdown({"a": {"original": before, "graphopt": real}})


@pytest.mark.usefixtures("rtx")
def test_the_command(engines: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(small_net(), tmp_path / "net.onnx")
    onnx.save(model("g (float[2,2] x) => (float y) { y = Det(x) }"), tmp_path / "refused.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    engines.main([str(tmp_path), "--json", str(tmp_path / "out.json"), "--markdown", str(tmp_path / "out.md")])
    found = json.loads((tmp_path / "out.json").read_text())["models"]
    assert found["net"]["original"]["kernels"] >= 2
    assert found["net"]["original"]["parser"].startswith("TensorRT")
    assert found["refused"]["original"]["problem"].startswith("refused: ")
    assert found["text"]["original"]["problem"]
    assert (tmp_path / "out.md").read_text() in capsys.readouterr().out + "\n"


def test_a_build_that_takes_too_long_is_a_row(engines: Any, tmp_path: Path) -> None:
    onnx.save(small_net(), tmp_path / "net.onnx")
    engines.main([str(tmp_path), "--timeout", "0.01", "--json", str(tmp_path / "out.json")])
    found = json.loads((tmp_path / "out.json").read_text())["models"]["net"]
    assert found["original"]["problem"].startswith("timeout")
