"""Saving: weights stay where they are or move once, the input is never touched, a file is whole or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import graphopt
from graphopt import save as saving
from graphopt.errors import SaveError
from graphopt.graph import import_model
from graphopt.model import save, to_proto
from tests.support.models import feeds, model, run

SIDE = 64
TEXT = """g (float[1,64,4,4] x) => (float[1,64,4,4] y) {
    a = Conv(x, w0)
    b = BatchNormalization(a, gamma, beta, mean, variance)
    c = Relu(b)
    d = Conv(c, w1)
    y = Relu(d)
}"""


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kernels = {f"w{i}": (rng.standard_normal((SIDE, SIDE, 1, 1)) / 8).astype(np.float32) for i in range(2)}
    vectors = {name: rng.uniform(0.5, 1.5, SIDE).astype(np.float32) for name in ("gamma", "beta", "mean", "variance")}
    return {**kernels, **vectors}


def external_model(folder: Path, *, location: str = "w.bin") -> Path:
    """The model with both kernels in one file of `folder`, the second one behind a gap."""
    folder.mkdir(exist_ok=True)
    proto = model(TEXT, weights())
    at = 0
    with (folder / location).open("wb") as file:
        for tensor in proto.graph.initializer:
            if not tensor.name.startswith("w"):
                continue
            raw = tensor.raw_data
            file.seek(at)
            file.write(raw)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", str(at)), ("length", str(len(raw)))):
                tensor.external_data.add(key=key, value=value)
            at += len(raw) + 100
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def places(path: Path) -> dict[str, str]:
    """The file that each initializer is in, "" for the model's own."""
    proto = onnx.load(path, load_external_data=False)
    found = {}
    for tensor in proto.graph.initializer:
        entries = {e.key: e.value for e in tensor.external_data}
        found[tensor.name] = entries.get("location", "")
    return found


def same_numbers(before: ModelProto, path: Path) -> None:
    after = onnx.load(path)
    onnx.checker.check_model(after, full_check=True)
    given = feeds(before)
    for expected, got in zip(run(before, given), run(after, given), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_one_file_has_everything_in_the_order_of_the_input(tmp_path: Path) -> None:
    proto = model(TEXT, weights())
    save(import_model(proto), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == proto
    assert os.listdir(tmp_path) == ["out.onnx"]


@pytest.mark.parametrize("ir_version", [3, 10])
def test_listed_initializers_and_defaults_stay_listed(tmp_path: Path, ir_version: int) -> None:
    proto = model(TEXT, weights())
    proto.ir_version = ir_version
    for name, array in weights().items():
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape))
    save(import_model(proto), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == proto


def test_every_type_of_constant_is_written_as_onnx_writes_it(tmp_path: Path) -> None:
    import ml_dtypes

    arrays = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([True, False]),
        "h": np.arange(3).astype(ml_dtypes.bfloat16),
        "q": np.array([-8, 7, 3]).astype(ml_dtypes.int4),
        "s": np.array(5, np.int64),
        "e": np.zeros((0, 2), np.float32),
        "t": np.array(["a", "bc"], object),
    }
    before = import_model(model("g (float[1,64,4,4] x) => (float[1,64,4,4] y) { y = Relu(x) }"))
    edit = graphopt.Rewriter(before)
    node = next(iter(before.graph.nodes))

    class Fill(graphopt.Rule[None]):
        """Adds constants."""

        roots = ("Relu",)

        def match(self, node, facts):  # type: ignore[no-untyped-def]
            return None

        def rewrite(self, found, edit):  # type: ignore[no-untyped-def]
            for name, array in arrays.items():
                edit.constant(array, name)

    edit.apply(Fill(), node, lambda e: Fill().rewrite(None, e))
    save(before, tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    assert written == to_proto(before)
    assert {t.name for t in written.graph.initializer} == set(arrays)


def test_external_weights_are_copied_and_changed_ones_computed(tmp_path: Path) -> None:
    path = external_model(tmp_path / "in")
    before, original = onnx.load(path), content(tmp_path / "in")
    (tmp_path / "out").mkdir()
    graphopt.optimize(path).save(tmp_path / "out" / "out.onnx")
    assert sorted(os.listdir(tmp_path / "out")) == ["out.onnx", "out.onnx.data"]
    same_numbers(before, tmp_path / "out" / "out.onnx")
    assert {place for name, place in places(tmp_path / "out" / "out.onnx").items() if name.startswith("w")} <= {
        "out.onnx.data",
        "",
    }
    assert places(tmp_path / "out" / "out.onnx")["w1"] == "out.onnx.data"
    assert content(tmp_path / "in") == original


def test_kept_weights_stay_in_the_inputs_file(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    before, original = onnx.load(path), content(tmp_path)
    graphopt.optimize(path).save(tmp_path / "out.onnx", keep_weights=True)
    found = places(tmp_path / "out.onnx")
    assert found["w1"] == "w.bin"
    assert "out.onnx.data" in found.values(), "the folded kernel is a new one"
    same_numbers(before, tmp_path / "out.onnx")
    assert {name: data for name, data in content(tmp_path).items() if name in original} == original


def test_kept_weights_need_no_data_file_when_nothing_changed_them(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    graphopt.optimize(path, pipeline="clean-up").save(tmp_path / "out.onnx", keep_weights=True)
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "out.onnx", "w.bin"]
    same_numbers(onnx.load(path), tmp_path / "out.onnx")


def test_kept_weights_ask_for_the_inputs_folder(tmp_path: Path) -> None:
    path = external_model(tmp_path / "in")
    (tmp_path / "out").mkdir()
    with pytest.raises(SaveError, match="input's folder"):
        graphopt.optimize(path).save(tmp_path / "out" / "out.onnx", keep_weights=True)
    assert os.listdir(tmp_path / "out") == []


def test_a_data_file_that_the_input_uses_is_never_written(tmp_path: Path) -> None:
    path = external_model(tmp_path, location="out.onnx.data")
    original = content(tmp_path)
    result = graphopt.optimize(path)
    result.save(tmp_path / "out.onnx")
    assert places(tmp_path / "out.onnx")["w1"] == "out.onnx.1.data"
    with pytest.raises(SaveError, match="holds weights of the input"):
        result.save(tmp_path / "out.onnx.data")
    assert {name: data for name, data in content(tmp_path).items() if name in original} == original
    same_numbers(onnx.load(path), tmp_path / "out.onnx")


def test_saving_twice_replaces_both_files(tmp_path: Path) -> None:
    path = external_model(tmp_path / "in")
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "out.onnx"
    for pipeline in ("clean-up", "default"):
        graphopt.optimize(path, pipeline=pipeline).save(out)
        same_numbers(onnx.load(path), out)
    assert sorted(os.listdir(tmp_path / "out")) == ["out.onnx", "out.onnx.data"]


def test_weights_beyond_the_limit_leave_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = model(TEXT, weights())
    monkeypatch.setattr(saving, "INLINE_BYTES", 1 << 14)
    result = graphopt.optimize(proto, verify=False)
    result.save(tmp_path / "out.onnx")
    found = places(tmp_path / "out.onnx")
    assert [place for place in found.values() if place] == ["out.onnx.data"] * 2, found
    same_numbers(proto, tmp_path / "out.onnx")
    with pytest.raises(SaveError, match="2 GiB"):
        _ = result.model


def test_tensors_that_share_a_stretch_of_the_file_are_copied_once(tmp_path: Path) -> None:
    path = external_model(tmp_path / "in")
    proto = onnx.load(path, load_external_data=False)
    twin = proto.graph.initializer.add()
    twin.CopyFrom(next(t for t in proto.graph.initializer if t.name == "w1"))
    twin.name = "w2"
    proto.graph.node[-1].CopyFrom(onnx.helper.make_node("Conv", ["d", "w2"], ["y"]))
    (tmp_path / "out").mkdir()
    save(import_model(proto, tmp_path / "in"), tmp_path / "out" / "out.onnx")
    kernel = SIDE * SIDE * 4
    assert 2 * kernel <= (tmp_path / "out" / "out.onnx.data").stat().st_size < 3 * kernel
    after = onnx.load(tmp_path / "out" / "out.onnx")
    arrays = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    np.testing.assert_array_equal(arrays["w1"], arrays["w2"])


def test_weights_of_bodies_and_constant_nodes_move_too(tmp_path: Path) -> None:
    proto = model(
        """g (float[64] x, bool c) => (float[64] y) {
            k = Constant<value: tensor = float[64] {0}>()
            y = If (c) <
                then_branch = t () => (float[64] p) { p = Add(x, w) },
                else_branch = e () => (float[64] q) { q = Sub(x, k) }
            >
        }""",
    )
    raw = np.arange(64, dtype=np.float32).tobytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "w.bin").write_bytes(raw)
    body = next(a.g for n in proto.graph.node for a in n.attribute if a.name == "then_branch")
    inner = body.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[64])
    for tensor in (inner, proto.graph.node[0].attribute[0].t):
        tensor.CopyFrom(TensorProto(name=tensor.name, data_type=TensorProto.FLOAT, dims=[64]))
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
    (tmp_path / "in" / "model.onnx").write_bytes(proto.SerializeToString())
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "out.onnx"
    for pipeline in ("fuse-vertical", "default"):
        result = graphopt.optimize(tmp_path / "in" / "model.onnx", pipeline=pipeline, verify=False)
        result.save(out)
        after = onnx.load(out)
        x = np.ones(64, np.float32)
        for choice, sign in ((True, 1), (False, -1)):
            (got,) = run(after, {"x": x, "c": np.array(choice)})
            np.testing.assert_array_equal(got, x + sign * np.arange(64, dtype=np.float32))


def test_a_failure_while_weights_are_written_leaves_nothing(tmp_path: Path) -> None:
    path = external_model(tmp_path / "in")
    result = graphopt.optimize(path)
    (tmp_path / "out").mkdir()

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        result.save(tmp_path / "out" / "out.onnx", progress=fail)
    assert os.listdir(tmp_path / "out") == []


def test_progress_counts_all_bytes_of_the_data_file(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = external_model(tmp_path / "in")
    (tmp_path / "out").mkdir()
    graphopt.optimize(path).save(tmp_path / "out" / "out.onnx", progress=lambda *at: told.append(at))
    assert told[-1][0] == told[-1][1] == 2 * SIDE * SIDE * 4
    assert told == sorted(told)


SAVE_FOR_EVER = """
import sys
from pathlib import Path
from graphopt.graph import import_model
from graphopt.model import read_proto, save
source, out = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
while True:
    save(import_model(read_proto(source), source.parent), out)
"""


@pytest.mark.parametrize(
    ("kill", "after"), [(s, t) for s in (signal.SIGKILL, signal.SIGINT) for t in (0.0, 0.05, 0.13)]
)
def test_whoever_is_killed_while_saving_leaves_a_whole_file_or_none(tmp_path: Path, kill: int, after: float) -> None:
    path = external_model(tmp_path / "in")
    original = content(tmp_path / "in")
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "out.onnx"
    command = [sys.executable, "-c", SAVE_FOR_EVER, str(path), str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(after)
        child.send_signal(kill)
        try:
            child.wait(30)
        finally:
            child.kill()
    assert content(tmp_path / "in") == original
    if out.exists():
        same_numbers(onnx.load(path), out)
    if kill == signal.SIGINT:
        assert set(os.listdir(tmp_path / "out")) <= {"out.onnx", "out.onnx.data"}
