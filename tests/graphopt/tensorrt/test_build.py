from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphopt.errors import EngineError, SaveError, ShapeError
from graphopt.tensorrt import Engine, build_engine, default_shapes, source
from tests.graphopt.tensorrt.models import model, renamed, small_net, two_branches

pytestmark = pytest.mark.usefixtures("rtx", "no_gpu")

EVIL = "a\nName: q, LayerType: kgen, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: "


def listed(engine: Engine) -> list[tuple[str, list[tuple[int, ...]]]]:
    """What the layers are, without their names."""
    return [(layer.type, [tensor.dims for tensor in layer.outputs]) for layer in engine.facts.layers]


def test_an_engine_and_its_facts() -> None:
    engine = build_engine(small_net(), compute_capabilities=["8.9"])
    assert len(engine.plan) > 1000
    assert engine.compute_capabilities == ((8, 9),)
    assert engine.facts.types["correlation"] == 2
    assert engine.facts.kernels >= 2
    assert engine.facts.weights_bytes
    assert engine.facts.activation_bytes
    ends = {tensor.name: tensor.dims for layer in engine.facts.layers for tensor in (*layer.inputs, *layer.outputs)}
    assert (ends["x"], ends["y"]) == ((1, 3, 8, 8), (1, 4, 8, 8))


def test_the_facts_are_the_same_on_every_build() -> None:
    first, second = build_engine(two_branches()), build_engine(two_branches())
    assert first.facts == second.facts


def test_the_facts_tell_graphs_apart() -> None:
    one = model("g (float[8,8] x) => (float[8,8] y) { y = Relu(x) }")
    two = model("g (float[8,8] x) => (float[8,8] y) { s = Softmax(x)\n t = Transpose(s)\n y = Softmax(t) }")
    assert build_engine(one).facts.kernels < build_engine(two).facts.kernels


def test_one_plan_for_several_compute_capabilities() -> None:
    engine = build_engine(small_net(), compute_capabilities=["8.6", "8.9"])
    assert engine.compute_capabilities == ((8, 6), (8, 9))
    assert engine.facts.kernels >= 2


def test_a_compute_capability_that_rtx_does_not_know() -> None:
    with pytest.raises(EngineError, match=r"9\.0; name one of"):
        build_engine(small_net(), compute_capabilities=["9.0"])


def test_a_dynamic_batch_gets_a_profile() -> None:
    net = small_net("N")
    assert str(default_shapes(net)["x"]) == "1x3x8x8/1x3x8x8/8x3x8x8"
    assert str(build_engine(net).shapes["x"]) == "1x3x8x8/1x3x8x8/8x3x8x8"


def test_a_larger_shape_needs_more_memory() -> None:
    small, large = (build_engine(small_net("N"), shapes={"x": f"{n}x3x8x8"}) for n in (1, 64))
    assert small.facts.activation_bytes is not None
    assert large.facts.activation_bytes is not None
    assert small.facts.activation_bytes < large.facts.activation_bytes


def test_a_shape_that_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="does not fit input 'x'"):
        build_engine(small_net(), shapes={"x": "2x3x8x8"})


def test_an_input_that_carries_a_shape() -> None:
    net = model("g (float[6] x, int64[2] s) => (float[a,b] y) { y = Reshape(x, s) }")
    with pytest.raises(EngineError, match="input 's' carries a shape"):
        build_engine(net)


@pytest.mark.parametrize("name", ["x[0]", "x*", "a/b:0"])
def test_an_input_name_is_no_wildcard(name: str) -> None:
    static, dynamic = (build_engine(renamed(small_net(batch), "x", name)) for batch in ("1", "N"))
    assert list(static.shapes) == list(dynamic.shapes) == [name]
    assert dynamic.shapes[name].max[0] == 8


def test_names_cannot_forge_layers() -> None:
    net = small_net()
    for node in net.graph.node:
        node.name = EVIL + node.name
    for tensor in ("x", "c", "y"):
        renamed(net, tensor, EVIL + tensor)
    engine = build_engine(net)
    assert listed(engine) == listed(build_engine(small_net()))
    assert list(engine.shapes) == [EVIL + "x"]  # the interface is the model's


def test_weights_beyond_one_message_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    net = two_branches()
    before, expected = net.SerializeToString(deterministic=True), build_engine(net)
    monkeypatch.setattr(source, "PROTOBUF_LIMIT", 100)
    monkeypatch.setattr(source, "_BIG", 1)
    engine = build_engine(net)
    assert engine.facts == expected.facts
    assert engine.facts.weights_bytes
    assert net.SerializeToString(deterministic=True) == before


def test_only_big_weights_travel_outside_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net()  # `w` has 432 bytes, `v` 64
    monkeypatch.setattr(source, "_BIG", 100)
    thin, weights = source._without_weights(net)
    assert [tensor.name for tensor in weights] == ["w"]
    assert {tensor.name: len(tensor.raw_data) for tensor in thin.graph.initializer} == {"w": 0, "v": 64}
    assert list(thin.graph.node) == list(net.graph.node)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    net = model(
        "g (int64[2,4] i) => (double[2,4] y) <int64 k = {5000000000}> {\n"
        "j = Add(i, k)\n d = Cast<to=11>(j)\n y = Mul(d, d)\n}"
    )
    build_engine(net)
    with pytest.raises(EngineError):
        build_engine(model("g (float[2,2] x) => (float y) { y = Det(x) }"))
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_plan_is_saved_whole(tmp_path: Path) -> None:
    engine = build_engine(small_net(), output=tmp_path / "m.plan")
    assert (tmp_path / "m.plan").read_bytes() == engine.plan
    assert [file.name for file in tmp_path.iterdir()] == ["m.plan"]


def test_a_failed_save_leaves_the_old_plan_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.plan"
    path.write_bytes(b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    engine = build_engine(small_net())
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(SaveError, match="No space left"):
        engine.save(path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["m.plan"]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SaveError):
        build_engine(small_net(), output=tmp_path / "none" / "m.plan")
