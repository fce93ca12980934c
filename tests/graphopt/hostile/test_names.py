"""Names of a model that would like to write on the terminal, or into the report."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto

from graphopt.cli import run
from tests.graphopt.hostile.cases import graph

LIE = "verified: all is well"
EVIL = f"x\x1b[2J\x07\x9b\r\n{LIE}\r\n[bold red]no[/][/b][link=http://x]\u202e{{0}}"
FORBIDDEN = ("\x1b", "\x07", "\x9b", "\r", "\u202e", f"\n{LIE}")


def evil_model(folder: Path, *, broken: bool = False) -> Path:
    """A model in which every name is `EVIL` with a number, metadata included."""
    proto = graph("g (float[N,4] x) => (float[N,4] y) { a = Identity(x) b = Neg(a) c = Neg(b) y = Relu(c) }")
    names: dict[str, str] = {}

    def evil(name: str) -> str:
        return names.setdefault(name, f"{EVIL}{len(names)}")

    for node in proto.graph.node:
        node.input[:] = [evil(name) for name in node.input]
        node.output[:] = [evil(name) for name in node.output]
        node.name = evil(f"node {node.output[0]}")
        node.metadata_props.add(key="graphopt.rules", value=EVIL)
        node.metadata_props.add(key="graphopt.from", value=EVIL)
    for info in (*proto.graph.input, *proto.graph.output):
        info.name = evil(info.name)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = EVIL
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param = EVIL
    proto.producer_name = proto.graph.name = proto.doc_string = EVIL
    proto.opset_import.add(domain=EVIL, version=1)
    if broken:
        proto.graph.node[1].input[0] = f"{EVIL} missing"
    return written(proto, folder / "evil.onnx")


def written(proto: ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def check_quiet(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        for forbidden in FORBIDDEN:
            assert forbidden not in text
        assert not any(line.strip().startswith(LIE) for line in text.splitlines())
    return captured.out + captured.err


@pytest.mark.parametrize("how", ["model", "each", "none"])
def test_neither_console_nor_report_can_be_spoofed(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, report = evil_model(tmp_path), tmp_path / "out.onnx", tmp_path / "report.json"
    assert run(["optimize", str(source), "-o", str(out), "--report", str(report), "--verify", how]) == 0
    assert check_quiet(capsys)
    text = report.read_text()
    assert all(character == "\n" or character.isprintable() for character in text)
    assert not any(line.strip().startswith(LIE) for line in text.splitlines())
    assert json.loads(text)["verification"]["passed"] is True
    assert len(onnx.load(out).graph.node) < 4


@pytest.mark.parametrize("command", ["inspect", "explain", "why"])
def test_nor_what_other_commands_print(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--rule", "drop-identity"] if command == "why" else []
    assert run([command, str(evil_model(tmp_path)), *more]) in (0, 1)
    assert check_quiet(capsys)


def test_nor_what_is_said_of_a_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = evil_model(tmp_path)
    other = onnx.load(source)
    other.graph.node[-1].op_type = "Abs"
    other.graph.node[-2].op_type = "Sin"
    assert run(["verify", str(source), str(written(other, tmp_path / "other.onnx"))]) == 3
    assert len(check_quiet(capsys).strip().splitlines()) == 1


def test_nor_what_is_said_of_a_model_that_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["optimize", str(evil_model(tmp_path, broken=True)), "-o", str(tmp_path / "out.onnx")]) == 1
    said = check_quiet(capsys)
    assert "nothing makes" in said
    assert len(said.strip().splitlines()) == 1
