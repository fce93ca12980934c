"""Every model of the zoo goes through `optimize` with verification on and comes out right, valid and no larger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import graphopt
from benchmarks.nodes import all_nodes, count_nodes, foreign_operators
from models import zoo
from tests.support.models import run

SLOW = {
    "densenet121",
    "dm_nfnet_f0__nofold",
    "inception_v2",
    "inception_v3__dynamo_raw",
    "swin_tiny_patch4_window7_224__dynamo_raw",
}
ALL = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in zoo.manifest()]

ZooPath = Callable[[str], Path]


@pytest.mark.parametrize("name", ALL)
def test_comes_out_right_valid_and_no_larger(name: str, zoo_path: ZooPath) -> None:
    path = zoo_path(name)
    original = onnx.load(path)
    result = graphopt.optimize(path)
    model = result.model

    assert result.report.verification is not None
    assert result.report.verification["passed"]
    assert result.report.withdrawn == (), "a rewrite was wrong and was taken back"
    onnx.checker.check_model(model, full_check=True)
    assert list(model.graph.input) == list(original.graph.input)
    assert list(model.graph.output) == list(original.graph.output)
    assert foreign_operators(model) == []
    assert count_nodes(model) <= count_nodes(original)
    check_outputs(original, model, name)

    again = graphopt.optimize(model, verify=False)
    assert again.report.applied == {}, "a second run changed something"
    assert again.model == model


def check_outputs(original: ModelProto, model: ModelProto, name: str) -> None:
    """Compares without graphopt's help: outputs on the manifest's inputs, within 0.2 % of their greatest magnitude."""
    feeds = zoo.inputs(name, seed=7)
    for expected, found in zip(run(original, feeds), run(model, feeds), strict=True):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        scale = np.abs(expected).max(initial=0)
        assert np.abs(found.astype(np.float64) - expected).max(initial=0) <= 2e-3 * scale


@pytest.mark.parametrize("name", ["alexnet_split__legacy", "concat_chain__legacy", "inception_siblings__legacy"])
def test_each_rewrite_is_right(name: str, zoo_path: ZooPath) -> None:
    report = graphopt.optimize(zoo_path(name), verify="each").report
    assert report.applied
    assert report.withdrawn == ()


def test_training_mode_keeps_its_norms(zoo_path: ZooPath) -> None:
    model = graphopt.optimize(zoo_path("resnet18__train")).model
    norms = [node for node in all_nodes(model) if node.op_type == "BatchNormalization"]
    assert len(norms) == 20
    for node in norms:
        assert {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}["training_mode"] == 1


def test_inference_mode_keeps_none(zoo_path: ZooPath) -> None:
    model = graphopt.optimize(zoo_path("resnet18__train_infer"), verify=False).model
    assert "BatchNormalization" not in {node.op_type for node in all_nodes(model)}


def test_forced_merge_makes_nine_convs_of_googlenets_siblings(zoo_path: ZooPath) -> None:
    path = zoo_path("googlenet")
    result = graphopt.optimize(path, force=["merge-sibling-convs"])
    assert result.report.applied["merge-sibling-convs"] == 9
    assert result.report.verification is not None
    assert result.report.verification["passed"]
    assert count_nodes(result.model) <= 115
    assert pointwise_siblings(onnx.load(path)) == Counter({3: 9})
    assert pointwise_siblings(result.model) == Counter()


def pointwise_siblings(model: ModelProto) -> Counter[int]:
    """How many tensors have how many 1x1 convs reading them, two or more."""
    kernels = {t.name: tuple(t.dims[2:]) for t in model.graph.initializer}
    readers = Counter(
        node.input[0] for node in model.graph.node if node.op_type == "Conv" and kernels[node.input[1]] == (1, 1)
    )
    return Counter(count for count in readers.values() if count > 1)


def test_unforced_the_cost_model_says_why_not(zoo_path: ZooPath) -> None:
    report = graphopt.optimize(zoo_path("googlenet"), verify=False).report
    reasons = [each.reason for each in report.decisions if each.rule == "merge-sibling-convs"]
    assert len(reasons) == 9
    assert all("predicted" in reason for reason in reasons)


@pytest.mark.parametrize("name", ["googlenet", "resnet50"])
def test_the_model_given_is_not_changed(name: str, zoo_path: ZooPath) -> None:
    given = onnx.load(zoo_path(name))
    copy = ModelProto()
    copy.CopyFrom(given)
    graphopt.optimize(given, verify=False)
    assert given == copy


def test_weights_of_merged_convs_are_those_of_the_branches(zoo_path: ZooPath) -> None:
    path = zoo_path("googlenet")
    original, merged = onnx.load(path), graphopt.optimize(path, verify=False, force=["merge-sibling-convs"]).model

    def rows(model: ModelProto) -> Counter[bytes]:
        weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        convs = [node for node in model.graph.node if node.op_type == "Conv"]
        return Counter(row.tobytes() for node in convs for row in weights[node.input[1]])

    assert rows(merged) == rows(original)
