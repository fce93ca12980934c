"""The zoo draws the same weights every time, and its models run and tell their inputs apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models import weights, zoo
from tests.support.models import run

WHEEL = ["googlenet", "squeezenet", "resnet50", "densenet121", "inception_v2", "shufflenet"]
SMALL = ["squeezenet", "concat_chain__legacy", "lstm_tagger__nofold"]


def test_manifest_names_every_graph_once() -> None:
    kept = {path.name for path in (zoo.HERE / "graphs").iterdir()}
    assert kept == {entry.graph for entry in zoo.manifest().values() if not entry.is_from_wheel}
    assert [name for name, entry in zoo.manifest().items() if entry.is_from_wheel] == WHEEL


def test_every_entry_says_where_it_comes_from() -> None:
    for entry in zoo.manifest().values():
        assert entry.licence in {"Apache-2.0", "BSD-3-Clause"}, entry.name
        assert entry.origin, entry.name


@pytest.mark.parametrize("name", zoo.manifest())
def test_inputs_of_the_manifest_are_those_of_the_graph(name: str) -> None:
    graph = zoo.load_graph(name).graph
    fed = {tensor.name for tensor in graph.initializer}
    wanted = {value.name: value.type.tensor_type for value in graph.input if value.name not in fed}
    given = zoo.inputs(name)
    assert given.keys() == wanted.keys()
    for key, array in given.items():
        dims = wanted[key].shape.dim
        assert onnx.helper.np_dtype_to_tensor_dtype(array.dtype) == wanted[key].elem_type
        assert len(dims) == array.ndim
        assert all(not d.HasField("dim_value") or d.dim_value == n for d, n in zip(dims, array.shape, strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    first, again, other = zoo.load(name), zoo.load(name), zoo.load(name, seed=1)
    assert first.SerializeToString() == again.SerializeToString()
    assert first.SerializeToString() != other.SerializeToString()


@pytest.mark.parametrize("name", WHEEL)
def test_wheel_graphs_lose_their_placeholders_and_nothing_else(name: str) -> None:
    graph, model = zoo.load_graph(name).graph, zoo.load(name)
    assert [node.output for node in model.graph.node] == [
        node.output for node in graph.node if node.op_type != "ConstantOfShape"
    ]
    assert len(model.graph.input) == 1
    assert model.ir_version == 4


def test_variances_are_positive() -> None:
    for name in ("resnet50", "densenet121__legacy"):
        graph = zoo.load(name).graph
        norms = {node.input[4] for node in graph.node if node.op_type == "BatchNormalization"}
        variances = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in norms]
        assert variances
        assert all(array.min() > 0 for array in variances)


def test_equal_tensors_stay_equal() -> None:
    trained, inferred = zoo.load("resnet18__train"), zoo.load("resnet18__train_infer")
    assert {t.name: t.raw_data for t in trained.graph.initializer} == {
        t.name: t.raw_data for t in inferred.graph.initializer
    }


def test_a_graph_without_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="no metadata entry 'weights'"):
        weights.draw_by_statistics(onnx.ModelProto())


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    with pytest.raises(KeyError, match=r"no model 'lenet'.*googlenet"):
        zoo.load("lenet")


def test_materialise_writes_once_and_whole(tmp_path: Path) -> None:
    path = zoo.materialise("concat_chain__legacy", tmp_path)
    written = path.stat().st_mtime_ns
    assert zoo.materialise("concat_chain__legacy", tmp_path).stat().st_mtime_ns == written
    assert [each.name for each in tmp_path.iterdir()] == ["concat_chain__legacy.onnx"]
    assert zoo.materialise("concat_chain__legacy", tmp_path, seed=3).name == "concat_chain__legacy.seed3.onnx"
    assert onnx.load(path) == zoo.load("concat_chain__legacy")


def test_graphs_hold_no_drawn_weights() -> None:
    for name in (name for name, entry in zoo.manifest().items() if not entry.is_from_wheel):
        model = zoo.load_graph(name)
        listed = json.loads(next(entry.value for entry in model.metadata_props if entry.key == weights.STATISTICS))
        assert not any(t.raw_data or t.float_data for t in model.graph.initializer if t.name in listed), name


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_finite_and_depend_on_the_input(name: str) -> None:
    model = zoo.load(name)
    one, two = run(model, zoo.inputs(name, 0)), run(model, zoo.inputs(name, 1))
    for left, right in zip(one, two, strict=True):
        assert np.isfinite(left).all()
        assert np.abs(left - right).max() > 1e-3 * np.abs(left).max()
