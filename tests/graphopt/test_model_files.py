"""Bad input is one sentence; writing is whole or not at all; external data stays in its folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import graphopt
from graphopt.errors import GraphoptError, ModelError, SaveError, ShapeError, UnsafeModelError
from graphopt.model import check_place, read_proto, replacing, write_atomically
from tests.support.models import model

TEXT = "g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }"


def small() -> ModelProto:
    return model(TEXT, {"w": np.ones((1, 4), np.float32)})


def external(folder: Path, location: str = "w.bin", length: int = 16) -> Path:
    """A model in `folder` whose weight lies at `location`."""
    proto = small()
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value=str(length))
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"this is a text, not a model", "no ONNX model"),
        (b"", "no graph"),
        (small().SerializeToString()[:-20], "cut off|no ONNX model|made nothing|nothing makes|not valid"),
        (b"\x00" * 64, "no ONNX model"),
    ],
)
def test_a_file_that_is_no_model_is_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says) as caught:
        graphopt.optimize(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file"):
        read_proto(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="folder"):
        read_proto(tmp_path)


@pytest.mark.parametrize("suffix", [".onnx", ".textproto", ".json", ".onnxtxt"])
def test_text_forms_that_do_not_parse_are_one_sentence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_text("nonsense {")
    with pytest.raises(ModelError) as caught:
        read_proto(path)
    assert "\n" not in str(caught.value)


def test_a_model_that_fails_the_checker_is_refused() -> None:
    proto = small()
    proto.graph.node[0].attribute.append(helper.make_attribute("colour", 3))
    with pytest.raises(ModelError, match="not valid ONNX"):
        graphopt.optimize(proto)


def test_a_model_of_a_future_opset_is_refused() -> None:
    proto = small()
    proto.opset_import[0].version = 4000
    with pytest.raises(ModelError, match="update onnx"):
        graphopt.optimize(proto)


@pytest.mark.parametrize("dims", [[1, 5], [1 << 62, 1 << 62], [-1, 4]])
def test_a_weight_whose_shape_and_data_disagree_is_named(dims: list[int]) -> None:
    proto = small()
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    with pytest.raises(ModelError, match=r"'w'|not valid"):
        graphopt.optimize(proto)


def test_external_data_is_read_and_written_inside(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "w.bin").write_bytes(np.full((1, 4), 2, np.float32).tobytes())
    result = graphopt.optimize(path)
    assert numpy_helper.to_array(result.model.graph.initializer[0]).tolist() == [[2.0] * 4]
    result.save(tmp_path / "out.onnx")
    onnx.checker.check_model(str(tmp_path / "out.onnx"))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", "a/../../secret.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(b"0123456789abcdef")
    folder = tmp_path / "models"
    (folder / "a").mkdir(parents=True)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(UnsafeModelError, match="outside"):
        graphopt.optimize(external(folder, location))


def test_missing_or_short_external_data_is_named(tmp_path: Path) -> None:
    path = external(tmp_path)
    with pytest.raises(ModelError, match="missing"):
        graphopt.optimize(path)
    (tmp_path / "w.bin").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"cut off|ends before"):
        graphopt.optimize(path)


def test_external_data_without_a_path_says_what_to_do(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "w.bin").write_bytes(b"0123456789abcdef")
    with pytest.raises(ModelError, match="path"):
        graphopt.optimize(onnx.load(path, load_external_data=False))


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"z": (1, 4)}, "no input 'z'"),
        ({"x": (1, 4, 1)}, "2 dimensions"),
        ({"x": (1, 5)}, "fixed to 4"),
        ({"x": (-1, 4)}, "negative"),
        ({"x": (1 << 70, 4)}, "beyond the 64 bits"),
    ],
)
def test_wrong_shapes_are_named(shapes: dict[str, tuple[int, ...]], says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        graphopt.optimize(small(), shapes=shapes)


def test_shapes_are_fixed_in_the_result() -> None:
    result = graphopt.optimize(small(), shapes={"x": (3, 4)}).model
    dims = result.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [3, 4]


def test_writing_replaces_the_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["out.onnx"]


def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")
    with pytest.raises(SaveError, match="nothing was written"):
        write_half(path, OSError(28, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        write_half(path, KeyboardInterrupt())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.onnx"]


def write_half(path: Path, error: BaseException) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"ne")
        raise error


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    for place, says in ((tmp_path, "folder"), (tmp_path / "no" / "out.onnx", "does not exist")):
        with pytest.raises(SaveError, match=says):
            check_place(place)
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError):
        check_place(tmp_path / "file" / "out.onnx")


def test_the_input_object_is_never_changed() -> None:
    proto = small()
    before = proto.SerializeToString(deterministic=True)
    result = graphopt.optimize(proto)
    result.model.graph.node[0].name = "changed"
    result.model.graph.initializer[0].raw_data = b"\0" * 16
    assert proto.SerializeToString(deterministic=True) == before


def test_every_error_is_of_one_tree() -> None:
    errors = [getattr(graphopt, name) for name in graphopt.__all__ if name.endswith("Error")]
    assert all(issubclass(error, GraphoptError) for error in errors)


def test_operators_of_unknown_domains_are_kept() -> None:
    proto = model("g (float[2] x) => (float[2] y) { a = Own.Thing(x) y = Identity(a) }", domains=', "Own" : 1')
    with pytest.raises(graphopt.ExecutionError, match="no-verify"):
        graphopt.optimize(proto)
    result = graphopt.optimize(proto, verify=False).model
    assert [n.op_type for n in result.graph.node if n.domain] == ["Thing"]
