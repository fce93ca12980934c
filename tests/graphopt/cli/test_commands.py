"""The commands as a user runs them: exit codes, sentences, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphopt.cli import run
from tests.support.models import model

WEIGHTS = {
    "w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32),
    "s": np.full((1, 4, 1, 1), 2, np.float32),
}
TEXT = "g (float[N,3,8,8] x) => (float[N,4,6,6] y) { a = Identity(x) c = Conv(a, w) m = Mul(c, s) y = Relu(m) }"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.onnx"
    onnx.save(model(TEXT, WEIGHTS), path)
    return path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_optimize_writes_and_reports(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = source.with_name("out.onnx"), source.with_name("report.json")
    before = source.read_bytes()
    assert run(["optimize", str(source), "-o", str(out), "--report", str(report), "--shape", "x=2x3x8x8"]) == 0
    text = said(capsys)
    for word in ("pass", "rule", "nodes before", "parameters", "FLOPs", "verified: 3 random inputs", "file:"):
        assert word in text
    assert [n.op_type for n in onnx.load(out).graph.node] == ["Conv", "Relu"]
    values = json.loads(report.read_text())
    assert values["before"]["nodes"] == 4
    assert values["after"]["nodes"] == 2
    assert values["verification"]["passed"] is True
    assert source.read_bytes() == before


def test_each_rewrite_is_compared_when_asked(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["optimize", str(source), "-o", str(source.with_name("o.onnx")), "--verify", "each"]) == 0
    assert "rewrites compared each on its own" in said(capsys)


def test_inputs_of_the_user(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = source.with_name("data.npz")
    np.savez(data, x=np.ones((1, 3, 8, 8), np.float32))
    assert run(["optimize", str(source), "-o", str(source.with_name("o.onnx")), "--inputs", str(data)]) == 0
    assert "given" in said(capsys)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["optimize", "none.onnx", "-o", "o.onnx"], "there is no file"),
        (["optimize", "text.onnx", "-o", "o.onnx"], "no ONNX model"),
        (["optimize", "cut.onnx", "-o", "o.onnx"], "cut off"),
        (["optimize", "invalid.onnx", "-o", "o.onnx"], "not valid ONNX"),
        (["optimize", "in.onnx", "-o", "o.onnx", "--pipeline", "clean-upp"], "did you mean 'clean-up'"),
        (["optimize", "in.onnx", "-o", "o.onnx", "--force", "no-rule"], "no rule 'no-rule'"),
        (["optimize", "in.onnx", "-o", "o.onnx", "--forbid", "no-rule"], "no rule 'no-rule'"),
        (["optimize", "in.onnx", "-o", "o.onnx", "--shape", "x=2x2"], "4 dimensions"),
        (["optimize", "in.onnx", "-o", "o.onnx", "--shape", "x:2"], "NAME=1x3x224x224"),
        (["optimize", "in.onnx", "-o", "o.onnx", "--device", "abacus"], "no device 'abacus'"),
        (["optimize", "in.onnx", "-o", "o.onnx", "--block", "round"], "no block spelling"),
        (["optimize", "in.onnx", "-o", "o.onnx", "--inputs", "none.npz"], "none.npz"),
        (["optimize", "in.onnx", "-o", "none/o.onnx"], "does not exist"),
        (["optimize", "in.onnx", "-o", "in.onnx"], "is the input"),
        (["optimize", "in.onnx", "-o", "."], "folder"),
        (["optimize", "custom.onnx", "-o", "o.onnx"], "--no-verify"),
        (["optimize", "in.onnx"], "Missing option"),
        (["optimise"], "No such command"),
        (["build", "none.onnx", "-o", "p.plan"], "there is no file"),
        (["build", "in.onnx", "-o", "p.plan", "--compute-capability", "new"], "compute capability"),
        (["inspect", "none.onnx"], "there is no file"),
        (["why", "in.onnx", "--rule", "no-rule"], "no rule"),
        (["explain", "in.onnx", "nobody"], "no node"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_file(
    source: Path,
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(source.parent)
    Path("text.onnx").write_text("not a model")
    Path("cut.onnx").write_bytes(source.read_bytes()[:-100])
    broken = onnx.load(source)
    broken.graph.node[0].attribute.add(name="colour", i=3, type=onnx.AttributeProto.INT)
    onnx.save(broken, "invalid.onnx")
    onnx.save(model("g (float[2] x) => (float[2] y) { y = Own.F(x) }", domains=', "Own" : 1'), "custom.onnx")
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    assert run(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert "Traceback" not in captured.err
    assert captured.err.strip().count("\n") == 0
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


def test_verify_says_whether_models_match(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = source.with_name("other.onnx")
    changed = model(TEXT, {**WEIGHTS, "s": np.full((1, 4, 1, 1), 3, np.float32)})
    onnx.save(changed, other)
    assert run(["verify", str(source), str(source)]) == 0
    assert "match" in said(capsys)
    assert run(["verify", str(source), str(other)]) == 3
    assert "differ" in said(capsys)
    assert run(["verify", str(source), str(other), "--rtol", "10"]) == 0


def test_an_engine_is_built_of_the_result(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    plan = source.with_name("out.plan")
    out = source.with_name("out.onnx")
    arguments = ["optimize", str(source), "-o", str(out), "--engine", str(plan), "--shape", "x=1x3x8x8"]
    assert run([*arguments, "--compute-capability", "8.9"]) == 0
    assert "kernels" in said(capsys)
    assert plan.stat().st_size > 1000
    assert run(["build", str(source), "-o", str(plan), "--shape", "x=1x3x8x8", "--compute-capability", "8.9"]) == 0
    assert "kernels" in said(capsys)


def test_inspect_and_passes_list(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(source)]) == 0
    text = said(capsys)
    assert "x [N, 3, 8, 8]" in text
    assert "Conv 1" in text
    assert run(["passes"]) == 0
    assert "clean-up" in said(capsys)


def test_explain_and_why(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = source.with_name("out.onnx")
    assert run(["optimize", str(source), "-o", str(out), "--no-verify"]) == 0
    capsys.readouterr()
    assert run(["explain", str(out)]) == 0
    text = said(capsys)
    assert "m, c fold-scale-into-conv" in text
    assert "1 of 2 nodes are as they were" in text
    assert run(["explain", str(out), "c"]) == 0
    assert "went into: m" in said(capsys)
    assert run(["why", str(source), "--rule", "merge-sibling-convs"]) == 0
    assert "was applied 0 times" in said(capsys)


def test_bisect_finds_the_first_rewrite_that_a_check_dislikes(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = source.with_name("check.py")
    script.write_text(
        "import onnx, sys\nsys.exit(all(n.op_type != 'Mul' for n in onnx.load(sys.argv[1]).graph.node))\n"
    )
    assert run(["bisect", str(source), "--check", f"{sys.executable} {script} {{}}"]) == 0
    assert "first bad rewrite is number" in said(capsys)
    assert run(["bisect", str(source), "--check", "true"]) == 1
    assert "where the model goes" in said(capsys)


def test_reduce_keeps_what_fails(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, small = source.with_name("check.py"), source.with_name("small.onnx")
    script.write_text(
        "import onnx, sys\nsys.exit(any(n.op_type == 'Mul' for n in onnx.load(sys.argv[1]).graph.node))\n"
    )
    assert run(["reduce", str(source), "-o", str(small), "--check", f"{sys.executable} {script} {{}}"]) == 0
    assert "Mul" in [n.op_type for n in onnx.load(small).graph.node]
    assert len(onnx.load(small).graph.node) < 4


@pytest.mark.parametrize("command", ["bisect", "reduce"])
def test_the_check_runs_where_the_user_is(command: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own files may be named as the user would name them; nothing else is left there."""
    folder = source.parent
    monkeypatch.chdir(folder)
    (folder / "check.py").write_text(
        "import onnx, sys\nword = open('word.txt').read()\n"
        "sys.exit(any(n.op_type == word for n in onnx.load(sys.argv[1]).graph.node))\n"
    )
    (folder / "word.txt").write_text("Mul" if command == "reduce" else "Nothing")
    arguments = ["-o", "small.onnx"] if command == "reduce" else []
    assert run([command, source.name, *arguments, "--check", f"{sys.executable} check.py {{}}"]) == 0
    assert {path.name for path in folder.iterdir()} - {"small.onnx"} == {source.name, "check.py", "word.txt"}


def test_a_bug_is_a_traceback_and_exit_code_2(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("graphopt.cli.jobs.read_proto", broken)
    assert run(["inspect", str(source)]) == 2
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error
    assert "bug in graphopt" in error


def test_names_of_a_model_do_not_write_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proto = model(TEXT, WEIGHTS)
    for node in proto.graph.node:
        node.name = f"{node.op_type}\x1b[2J\nverified: all is well [bold]"
    path = tmp_path / "in.onnx"
    onnx.save(proto, path)
    out = tmp_path / "out.onnx"
    assert run(["optimize", str(path), "-o", str(out)]) == 0
    assert run(["explain", str(out)]) == 0
    captured = capsys.readouterr()
    assert "\x1b[2J" not in captured.out + captured.err
    assert not any(line.startswith("verified: all is well") for line in captured.out.splitlines())


@pytest.mark.parametrize(
    "command", ["", "optimize", "verify", "build", "inspect", "passes", "explain", "why", "bisect", "reduce"]
)
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*([command] if command else []), "--help"]) == 0
    assert "Usage" in said(capsys)


def test_the_installed_script_runs() -> None:
    script = Path(sys.executable).with_name("graphopt")
    done = subprocess.run([str(script), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("graphopt ")


def test_importing_graphopt_imports_no_engine() -> None:
    engines = ("onnxruntime", "polygraphy", "tensorrt", "tensorrt_rtx", "onnx_graphsurgeon")
    code = f"import sys, graphopt; print([m for m in {engines} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
