"""Killed at any moment, or with a full disk: the input is as it was, the output whole or absent."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphopt import data_file, wire
from graphopt.cli import run as command
from tests.graphopt.hostile.ward import ROOT, Ward
from tests.graphopt.test_save import content, external_model, same_numbers

OUTPUTS = {"out.onnx", "out.onnx.data", "report.json"}
STEPS = 60  # more than there are


def arguments(source: Path, folder: Path) -> list[str]:
    report = str(folder / "report.json")
    return ["optimize", str(source), "-o", str(folder / "out.onnx"), "--report", report, "--no-verify"]


def check_folder(source: Path, folder: Path) -> None:
    """What a reader of the output's folder may find, whatever happened; the next run leaves no traces of it."""
    if (folder / "out.onnx").exists():
        same_numbers(onnx.load(source), folder / "out.onnx")
    for name in set(os.listdir(folder)) - OUTPUTS:
        assert name.startswith(".")
        assert name.endswith(".tmp")


@pytest.mark.parametrize("kind", ["inside", "external"])
def test_killed_before_each_step_that_touches_a_file(kind: str, tmp_path: Path, ward: Ward) -> None:
    """The process kills itself before the n-th file is opened, moved or removed, for every n."""
    source = model_file(tmp_path / "in", kind)
    original = content(source.parent)
    folder = tmp_path / "out"
    folder.mkdir()
    for step in range(STEPS):
        outcome = ward.run("killed_at", arguments=arguments(source, folder), folder=str(folder), step=step)
        assert content(source.parent) == original
        check_folder(source, folder)
        if outcome.code == 0:
            break
        assert outcome.code == -signal.SIGKILL
    assert step > 5, "it was never killed"
    assert outcome.code == 0, outcome
    assert set(os.listdir(folder)) - {"out.onnx.data"} == {"out.onnx", "report.json"}, "something was left behind"


@pytest.mark.parametrize("kind", ["inside", "external"])
def test_killed_at_random_moments(kind: str, tmp_path: Path) -> None:
    source = model_file(tmp_path / "in", kind)
    original = content(source.parent)
    folder = tmp_path / "out"
    folder.mkdir()
    line = [sys.executable, "-m", "graphopt", *arguments(source, folder)]
    started = time.monotonic()
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    whole = time.monotonic() - started
    for moment in random.Random(0).sample(range(20, 105), 6):
        child = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole * moment / 100)
        child.kill()
        child.wait()
        assert content(source.parent) == original
        check_folder(source, folder)
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    assert set(os.listdir(folder)) <= OUTPUTS, "something was left behind"


@pytest.mark.parametrize("kind", ["inside", "external"])
def test_no_room_for_the_file(kind: str, tmp_path: Path, ward: Ward) -> None:
    """Files may have so many bytes and no more: what was there stays, what is new is absent, nothing is left."""
    source = model_file(tmp_path / "in", kind)
    original = content(source.parent)
    for older in (False, True):
        folder = tmp_path / f"out-{older}"
        folder.mkdir()
        if older:
            assert command(arguments(source, folder)) == 0
        before = content(folder)
        for size in (1000, 5000, 17_000):  # room for the sentence itself
            outcome = ward.run("command_line", arguments=arguments(source, folder), file_size=size)
            assert outcome.code == 1, outcome
            assert "cannot be written" in outcome.err
            assert len(outcome.err.strip().splitlines()) == 1
            assert content(folder) == before
            assert content(source.parent) == original


@pytest.mark.parametrize(
    "place", [(data_file.DataFile, "append"), (data_file.DataFile, "copy"), (wire.Initializer, "write")]
)
def test_a_disk_that_fills_up_while_weights_are_written(
    place: tuple[type, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = model_file(tmp_path / "in", "external")
    original = content(source.parent)
    folder = tmp_path / "out"
    folder.mkdir()

    def full(*given: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*place, full)
    assert command(arguments(source, folder)) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert os.listdir(folder) == []
    assert content(source.parent) == original


def model_file(folder: Path, kind: str) -> Path:
    path = external_model(folder)
    if kind == "inside":
        onnx.save(onnx.load(path), path)
        (folder / "w.bin").unlink()
    return path


def test_what_another_process_writes_is_not_removed(tmp_path: Path) -> None:
    """Two that write to the same name at once: the temporary file of the other one is no leftover."""
    from graphopt.files import replacing, write_atomically

    out = tmp_path / "out.onnx"
    with replacing(out) as temporary:
        write_atomically(out, b"other")
        temporary.write_bytes(np.arange(3, dtype=np.uint8).tobytes())
    assert out.read_bytes() == b"\0\1\2"
    assert os.listdir(tmp_path) == ["out.onnx"]
