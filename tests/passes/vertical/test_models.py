"""Models of the zoo: what folds into convs is gone from them, and what must not fold is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

import graphopt

AFFINE = {"Mul", "Div", "Add", "Sub", "Neg", "BatchNormalization"}
LINEAR = {"Conv", "ConvTranspose", "Gemm"}

ZooModel = Callable[[str], ModelProto]


def leftovers(model: ModelProto) -> list[str]:
    """Affine operators with constants that one linear operator makes or all readers of which are linear.

    A shift before a conv that pads is none: it cannot cross the zeros.
    """
    constants = {t.name for t in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in set(node.input):
            readers.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        data = [name for name in node.input if name not in constants]
        if node.op_type not in AFFINE or len(data) != 1:
            continue
        before, behind = made.get(data[0]), readers.get(node.output[0], [])
        if before is not None and before.op_type in LINEAR and len(readers[data[0]]) == 1:
            found.append(f"{node.op_type} behind {before.op_type}")
        stays = node.op_type in ("Add", "Sub") and any(pads(r) for r in behind)
        if behind and not stays and all(r.op_type in LINEAR and r.input[0] == node.output[0] for r in behind):
            found.append(f"{node.op_type} before {behind[0].op_type}")
    return found


def pads(node: NodeProto) -> bool:
    return any(any(helper.get_attribute_value(a)) for a in node.attribute if a.name == "pads")


@pytest.mark.parametrize(
    "name",
    [
        "conv_affine__dynamo_raw",
        "resnet18__train_infer",
        "googlenet__nofold",
        "inception_v3__dynamo_raw",
    ],
)
def test_nothing_that_folds_is_left_around_a_conv(name: str, zoo_model: ZooModel) -> None:
    before = zoo_model(name)
    after = graphopt.optimize(before, verify=False).model
    assert leftovers(before)
    assert leftovers(after) == []
    assert "BatchNormalization" not in {node.op_type for node in after.graph.node}


def test_repvgg_becomes_a_chain_of_convs(zoo_model: ZooModel) -> None:
    after = graphopt.optimize(zoo_model("repvgg_a0__legacy"), verify=False).model
    operators = Counter(node.op_type for node in after.graph.node)
    assert operators == {"Conv": 22, "Relu": 22, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}


@pytest.mark.slow
def test_tensorrt_makes_half_as_many_kernels_of_repvgg(zoo_model: ZooModel) -> None:
    pytest.importorskip("tensorrt_rtx")
    from graphopt.tensorrt import build_engine

    after = graphopt.optimize(zoo_model("repvgg_a0__legacy"), verify=False).model
    assert build_engine(after, compute_capabilities=["8.9"]).facts.kernels <= 27  # of 50


def test_a_model_in_training_keeps_its_norms_and_weights(zoo_model: ZooModel) -> None:
    before = zoo_model("resnet18__train")
    after = graphopt.optimize(before, verify=False).model
    weights = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    for node in before.graph.node:
        if node.op_type in ("Conv", "BatchNormalization"):
            same = [n for n in after.graph.node if n.op_type == node.op_type and n.output[0] == node.output[0]]
            assert len(same) == 1
            for old, new in zip(node.input[1:], same[0].input[1:], strict=True):
                original = next(t for t in before.graph.initializer if t.name == old)
                np.testing.assert_array_equal(weights[new], numpy_helper.to_array(original))
