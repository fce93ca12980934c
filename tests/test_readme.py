"""The README's examples run as they stand, and what it names exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import graphopt
from graphopt.cli import run
from models import zoo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(*, with_engine: bool) -> list[str]:
    """The command lines, those that build an engine or the others."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("graphopt ")]
    return [line for line in lines if (".plan" in line) is with_engine]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a small model.onnx in it."""
    zoo.materialise("inception_siblings__legacy", tmp_path).rename(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_commands_run_in_order(folder: Path) -> None:
    for command in commands(with_engine=False):
        assert run(shlex.split(command)[1:]) == 0, command
    assert {path.name for path in folder.iterdir()} >= {"optimized.onnx", "report.json"}


def test_engine_commands_run_in_order(folder: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    for command in commands(with_engine=True):
        assert run(shlex.split(command)[1:]) == 0, command
    assert {path.name for path in folder.iterdir()} >= {"optimized.plan", "engine.plan"}


def test_library_example_runs(folder: Path) -> None:
    (example,) = blocks("python")
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nodes became" in done.stdout
    assert (folder / "optimized.onnx").exists()


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_options_in_the_table_exist(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run(["optimize", "--help"])
    shown = capsys.readouterr().out
    options = set(
        re.findall(r"`?(--[a-z-]+)", "\n".join(line for line in README.splitlines() if line.startswith("| `--")))
    )
    assert options
    for option in options:
        assert option in shown, option


def test_targets_are_all_listed() -> None:
    listed = re.findall(r"^- `([a-z]+)`", README.split("## Targets")[1].split("##")[0], re.MULTILINE)
    assert set(listed) == {target.value for target in graphopt.Target}
