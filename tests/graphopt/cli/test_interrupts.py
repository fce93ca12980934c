"""Ctrl-C at any time: exit code 130, one sentence, and nothing in the folder that was not there before."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from graphopt.cli import run
from tests.support.models import model

TEXT = """g (float[1,64,4,4] x) => (float[1,64,4,4] y) {
    a = Conv(x, w)
    b = BatchNormalization(a, s, s, s, s)
    y = Relu(b)
}"""
WEIGHTS = {"w": np.ones((64, 64, 1, 1), np.float32) / 64, "s": np.linspace(0.5, 1.5, 64, dtype=np.float32)}


def inline_model(folder: Path) -> None:
    onnx.save(model(TEXT, WEIGHTS), folder / "in.onnx")


def external_model(folder: Path) -> None:
    proto = model(TEXT, WEIGHTS)
    tensor = next(t for t in proto.graph.initializer if t.name == "w")
    (folder / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    (folder / "in.onnx").write_bytes(proto.SerializeToString())


def interrupt_at(monkeypatch: pytest.MonkeyPatch, place: str, call: int) -> list[str]:
    """Makes the process receive SIGINT in the `call`-th call of the function at `place`; the calls are noted."""
    module, name = place.rsplit(".", 1)
    calls: list[str] = []

    def interrupted(original: Callable[..., Any]) -> Callable[..., Any]:
        def function(*arguments: Any, **named: Any) -> Any:
            calls.append(place)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGINT)
            return original(*arguments, **named)

        return function

    owner = pytest.importorskip(module) if not module[module.rindex(".") + 1].isupper() else None
    if owner is None:
        outer, cls = module.rsplit(".", 1)
        owner = getattr(pytest.importorskip(outer), cls)
    monkeypatch.setattr(owner, name, interrupted(getattr(owner, name)))
    return calls


@pytest.mark.parametrize("write_model", [inline_model, external_model])
@pytest.mark.parametrize(
    ("place", "call"),
    [
        ("graphopt.engine.import_model", 1),
        ("graphopt.inference.infer", 1),
        ("graphopt.pipeline.run_rules", 1),
        ("graphopt.pipeline.run_rules", 5),
        ("graphopt.verification.sessions._session", 1),  # the original
        ("graphopt.verification.sessions._session", 2),  # the candidate
        ("graphopt.wire.Initializer.write", 1),
        ("graphopt.wire.Initializer.write", 2),
        ("graphopt.files._umask", 1),  # before a file is moved in place
    ],
)
def test_an_interrupt_leaves_nothing_behind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write_model: Callable[[Path], None],
    place: str,
    call: int,
) -> None:
    write_model(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = interrupt_at(monkeypatch, place, call)
    source, out, report = (str(tmp_path / name) for name in ("in.onnx", "out.onnx", "report.json"))
    code = run(["optimize", source, "-o", out, "--report", report])
    if len(calls) < call:
        pytest.skip(f"{place} is called {len(calls)} times on this model")
    assert code == 130
    assert "interrupted; nothing was written" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupt_while_weights_are_written_beside_the_model_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    external_model(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = interrupt_at(monkeypatch, "graphopt.data_file.DataFile.append", 1)
    assert run(["optimize", str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx"), "--no-verify"]) == 130
    assert calls
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_progress_tells_of_weights_in_the_model_and_beside_it(tmp_path: Path) -> None:
    import graphopt

    for write_model, values in ((inline_model, 64 * 64 * 4), (external_model, 64 * 64 * 4)):
        folder = tmp_path / write_model.__name__
        folder.mkdir()
        write_model(folder)
        told: list[tuple[int, int]] = []
        result = graphopt.optimize(folder / "in.onnx", verify=False)
        result.save(folder / "out.onnx", progress=lambda done, total, told=told: told.append((done, total)))
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1] >= values
