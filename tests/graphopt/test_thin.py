"""Large weights stay in the model's file: nothing else may change by it, whatever happens to the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import graphopt
from graphopt.errors import ModelError
from graphopt.graph import FileConstant, import_model
from graphopt.model import read_proto, save
from graphopt.thin import LEAST_LEFT, ThinModel, read_thin
from tests.support.models import model

SIDE = 128
TEXT = """g (float[1,128,4,4] x) => (float[1,128,4,4] y) {
    a = Conv(x, w0)
    b = BatchNormalization(a, gamma, beta, mean, variance)
    c = Relu(b)
    d = Conv(c, w1)
    y = Relu(d)
}"""
KERNEL_BYTES = 4 * SIDE * SIDE


def weighty() -> ModelProto:
    rng = np.random.default_rng(0)
    kernels = {f"w{i}": (rng.standard_normal((SIDE, SIDE, 1, 1)) / 8).astype(np.float32) for i in range(2)}
    vectors = {name: rng.uniform(0.5, 1.5, SIDE).astype(np.float32) for name in ("gamma", "beta", "mean", "variance")}
    return model(TEXT, {**kernels, **vectors})


def written(folder: Path, proto: ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def thin(path: Path) -> ThinModel:
    found = read_thin(path)
    assert found is not None
    return found


def test_large_weights_are_left_in_the_file_and_everything_else_is_read(tmp_path: Path) -> None:
    proto = weighty()
    found = thin(written(tmp_path, proto))
    assert sorted(found.stretches) == [i for i, t in enumerate(proto.graph.initializer) if t.name in ("w0", "w1")]
    for index, stretch in found.stretches.items():
        assert stretch.read() == b"".join(stretch.pieces()) == proto.graph.initializer[index].raw_data
        proto.graph.initializer[index].ClearField("raw_data")
    assert found.proto == proto
    assert found.whole() == weighty()


def test_the_result_is_the_same_as_from_memory(tmp_path: Path) -> None:
    source = written(tmp_path, weighty())
    for verify in (False, True):
        from_file, from_memory = (graphopt.optimize(given, verify=verify) for given in (source, weighty()))
        assert from_file.model.graph == from_memory.model.graph
        from_file.save(tmp_path / "a.onnx")
        from_memory.save(tmp_path / "b.onnx")
        assert onnx.load(tmp_path / "a.onnx").graph == onnx.load(tmp_path / "b.onnx").graph


def test_what_nothing_changes_is_written_as_it_was(tmp_path: Path) -> None:
    proto = weighty()
    proto.graph.metadata_props.add(key="k", value="v")  # a field with a tag of two bytes
    proto.graph.initializer[0].doc_string = "kept"
    found = thin(written(tmp_path, proto))
    save(import_model(found.proto, tmp_path, found.stretches), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == proto


def test_the_file_may_go_while_the_model_is_used(tmp_path: Path) -> None:
    path = written(tmp_path, weighty())
    result = graphopt.optimize(path, verify=False)
    expected = result.model
    path.unlink()
    result.save(path)
    assert onnx.load(path) == expected
    result.save(path)  # over the file that took its place
    assert onnx.load(path) == expected


def test_a_file_that_was_written_to_is_an_error_and_nothing_is_saved(tmp_path: Path) -> None:
    path = written(tmp_path, weighty())
    result = graphopt.optimize(path, verify=False)
    path.write_bytes(b"another model, shorter")
    with pytest.raises(ModelError, match="changed while it was in use"):
        result.save(tmp_path / "out.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def spoiled_length(proto: ModelProto) -> None:
    proto.graph.initializer[0].raw_data += b"\0"


def typed_field(proto: ModelProto) -> None:
    proto.graph.initializer[0].float_data.append(1)


def negative(proto: ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = -SIDE


def unknown_type(proto: ModelProto) -> None:
    proto.graph.initializer[0].data_type = 99


def external(proto: ModelProto) -> None:
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL


def half_bytes(proto: ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.data_type = TensorProto.INT4
    tensor.dims[0] *= 8


@pytest.mark.parametrize("spoil", [spoiled_length, typed_field, negative, unknown_type, external, half_bytes])
def test_an_odd_weight_is_read_with_the_graph(tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    proto = weighty()
    assert proto.graph.initializer[0].name == "w0"
    spoil(proto)
    found = thin(written(tmp_path, proto))
    assert list(found.stretches) == [1]
    assert found.proto.graph.initializer[0] == proto.graph.initializer[0]
    assert found.whole() == proto


def test_a_file_in_two_parts_is_left_to_protobuf(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    other = ModelProto()
    other.graph.doc_string = "a second graph field, which protobuf joins with the first"
    path.write_bytes(weighty().SerializeToString() + other.SerializeToString())
    assert read_thin(path) is None
    assert read_proto(path).graph.doc_string == other.graph.doc_string


@pytest.mark.parametrize("suffix", [".textproto", ".json", ".onnxtxt", ".pb"])
def test_files_of_other_kinds_are_left_to_onnx(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(weighty().SerializeToString())
    assert read_thin(path) is None


def test_a_broken_file_never_reads_as_another_model(tmp_path: Path) -> None:
    whole = weighty().SerializeToString()
    path = tmp_path / "model.onnx"
    rng = np.random.default_rng(1)
    for _ in range(400):
        spoiled = bytearray(whole)
        if rng.integers(2):
            del spoiled[int(rng.integers(len(spoiled))) :]
        for at in (*rng.integers(0, 200, 2), *rng.integers(max(len(spoiled), 1), size=2)):
            if at < len(spoiled):
                spoiled[at] = rng.integers(256)
        path.write_bytes(spoiled)
        found = read_thin(path)
        if found is not None:
            assert found.whole() == ModelProto.FromString(bytes(spoiled))
            for index, tensor in enumerate(found.whole().graph.initializer):
                if index in found.stretches:
                    assert found.stretches[index].read() == tensor.raw_data


def test_equal_large_weights_are_found_by_reading_them_and_others_by_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    nodes = "\n".join(f"t{i + 1} = MatMul(t{i}, w{i})" for i in range(8))
    text = f"g (float[1,128] t0) => (float[1,128] t8) {{ {nodes} }}"
    weights = {f"w{i}": rng.standard_normal((SIDE, SIDE)).astype(np.float32) for i in range(8)}
    weights["w5"] = weights["w2"]
    path = written(tmp_path, model(text, weights))
    read: list[str] = []
    original = FileConstant.array

    def array(self: FileConstant) -> np.ndarray:
        read.append(self.proto.name)
        return original(self)

    monkeypatch.setattr(FileConstant, "array", array)
    result = graphopt.optimize(path, verify=False, pipeline="share-duplicates")
    assert set(read) == {"w2", "w5"}
    assert len(result.model.graph.initializer) == 7


def test_arrays_are_those_of_onnx(tmp_path: Path) -> None:
    import ml_dtypes

    count = LEAST_LEFT
    arrays = [
        np.arange(count, dtype=np.float16),
        np.arange(count).astype(ml_dtypes.bfloat16),
        np.arange(count) % 2 == 0,
        np.arange(count, dtype=np.int8),
        (np.arange(count) + 1j).astype(np.complex64),
        np.arange(count, dtype=np.float64).reshape(2, -1),
    ]
    proto = model("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    proto.graph.initializer.extend(numpy_helper.from_array(a, f"w{i}") for i, a in enumerate(arrays))
    found = thin(written(tmp_path, proto))
    graph = import_model(found.proto, tmp_path, found.stretches).graph
    for tensor, expected in zip(graph.initializers, arrays, strict=True):
        assert isinstance(tensor.constant, FileConstant)
        got = tensor.constant.array()
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
        assert tensor.constant.to_proto(tensor.name) == numpy_helper.from_array(expected, tensor.name)
