"""Nothing executes code that comes with a model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.graphopt.hostile.cases import graph
from tests.graphopt.hostile.ward import Ward

PLANTED = "raise SystemExit('code of the model was executed')"


def surrounded(folder: Path) -> Path:
    """A model with custom operators, in a folder with files that something might be tempted to load."""
    proto = graph(
        "g (float[4] x) => (float[4] y) { a = Identity(x) b = evil.Op(a) y = Neg(b) }", domains=', "evil" : 1'
    )
    for key in ("custom_op_library", "ep_library", "python", "plugins"):
        proto.metadata_props.add(key=key, value=str(folder / "evil.so"))
    (folder / "evil.so").write_bytes(b"\x7fELF no library")
    for name in ("evil.py", "onnxruntime.py", "graphopt_passes.py", "sitecustomize.py", "numpy.py"):
        (folder / name).write_text(PLANTED)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("how", ["model", "each", "none"])
def test_what_lies_beside_a_model_is_neither_loaded_nor_run(how: str, tmp_path: Path, ward: Ward) -> None:
    source = surrounded(tmp_path)
    out = tmp_path / "out" / "out.onnx"
    out.parent.mkdir()
    arguments = ["optimize", str(source), "-o", str(out), "--verify", how]
    outcome = ward.run("audited", arguments=arguments, folder=str(tmp_path))
    assert "AUDIT" not in outcome.out + outcome.err
    if how == "model":
        assert outcome.code == 1
        assert "custom-operator library" in outcome.err
    else:
        assert outcome.code == 0, outcome
    assert out.exists() == (how != "model")


def test_the_audit_sees_what_it_looks_for(tmp_path: Path, ward: Ward) -> None:
    library = surrounded(tmp_path).with_name("evil.so")
    arguments = ["optimize", str(tmp_path / "model.onnx"), "-o", str(tmp_path / "out.onnx")]
    outcome = ward.run("audited", arguments=[*arguments, "--custom-ops", str(library)], folder=str(tmp_path))
    assert outcome.code == 1
    assert "cannot be loaded" in outcome.err, "a library that the user names is loaded"
    assert sys.platform != "linux" or "AUDIT" in ward.run("audited_import", folder=str(tmp_path)).err


def test_inputs_are_not_unpickled(tmp_path: Path, ward: Ward) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(graph("g (float[4] x) => (float[4] y) { y = Neg(x) }").SerializeToString())
    np.savez(tmp_path / "inputs.npz", x=np.array([Trap()], object))
    arguments = ["optimize", str(source), "-o", str(tmp_path / "out.onnx"), "--inputs", str(tmp_path / "inputs.npz")]
    outcome = ward.run("command_line", arguments=arguments)
    assert outcome.code == 1, outcome
    assert "cannot be read" in outcome.err
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return Path.touch, (Path("sprung"),)
