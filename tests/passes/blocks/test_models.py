"""Models of the zoo at an operator set that has all blocks: each one that was written as arithmetic is one operator."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, version_converter

import graphopt
from benchmarks.half import narrowed
from models import zoo
from tests.support.models import run

OPSET = 24
BLOCKS = {
    "vit_tiny_patch16_224__legacy": {"LayerNormalization": 25, "Gelu": 12, "Attention": 12},
    "swin_tiny_patch4_window7_224__dynamo_raw": {"LayerNormalization": 29, "Gelu": 12, "Attention": 12},
    "bert_tiny__legacy": {"LayerNormalization": 5, "Gelu": 2, "Attention": 2},
    "llama_4L_256__legacy": {"RMSNormalization": 9, "Swish": 4, "Attention": 4},
    "t5_encoder_6L_256__nofold": {"RMSNormalization": 13, "Attention": 6},
    "gpt2_12L_192__dynamo_raw": {"LayerNormalization": 25, "Gelu": 12, "Attention": 12},
}
# what a block is made of when it is written as arithmetic
ARITHMETIC = {"Softmax", "Erf", "Tanh", "Pow", "Sqrt", "Sigmoid", "ReduceMean"}
ENDS = {"bert_tiny__legacy": {"Tanh"}, "swin_tiny_patch4_window7_224__dynamo_raw": {"ReduceMean"}}  # poolers
# whose masks are known to fit only when the shapes are
NEEDS_SHAPES = {"bert_tiny__legacy", "gpt2_12L_192__dynamo_raw"}

ZooModel = Callable[[str], ModelProto]


def recent(model: ModelProto) -> ModelProto:
    """The model at an operator set that has every block."""
    return version_converter.convert_version(model, OPSET)


def fixed(name: str) -> dict[str, tuple[int, ...]] | None:
    """The shapes that a model needs to be told."""
    return {key: each.shape for key, each in zoo.inputs(name).items()} if name in NEEDS_SHAPES else None


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_recognized(name: str, zoo_model: ZooModel) -> None:
    before = recent(zoo_model(name))
    after = graphopt.optimize(before, target="portable", verify=False, shapes=fixed(name)).model
    operators = Counter(node.op_type for node in after.graph.node)
    assert {op: operators[op] for op in BLOCKS[name]} == BLOCKS[name]
    assert set(operators) & ARITHMETIC == ENDS.get(name, set())
    feeds = zoo.inputs(name)
    for expected, found in zip(run(before, feeds), run(after, feeds), strict=True):
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224__legacy", "llama_4L_256__legacy"])
def test_in_float16_tensorrt_gets_the_same_blocks(name: str, zoo_model: ZooModel) -> None:
    before = narrowed(recent(zoo_model(name)), "float16")
    after = graphopt.optimize(before, target="tensorrt", verify=False, shapes=fixed(name)).model
    operators = Counter(node.op_type for node in after.graph.node)
    assert {op: operators[op] for op in BLOCKS[name]} == BLOCKS[name]


def test_the_report_says_what_a_later_opset_would_give(zoo_path: Callable[[str], Path]) -> None:
    report = graphopt.optimize(zoo_path("vit_tiny_patch16_224__legacy"), target="portable", verify=False).report
    told = {refusal.rule: (refusal.count, refusal.reason) for refusal in report.refusals}
    assert told["recognize-gelu"][0] == 12
    assert told["recognize-gelu"][1].endswith("take --opset 20")
    assert told["recognize-attention"][0] == 12
    assert told["recognize-attention"][1].endswith("take --opset 23")


def test_functions_name_every_node_that_they_were_made_of(zoo_model: ZooModel) -> None:
    before = zoo_model("repvgg_a0__legacy")
    after = graphopt.optimize(before, block="function", verify=False).model
    onnx.checker.check_model(after, full_check=True)
    calls = [node for node in after.graph.node if node.domain]
    assert len(calls) == 22
    origins = [json.loads(e.value) for node in calls for e in node.metadata_props if e.key.endswith("from")]
    expected = {node.name for node in before.graph.node if node.op_type in ("Conv", "Add", "Relu")}
    assert {name for names in origins for name in names} >= expected
    feeds = zoo.inputs("repvgg_a0__legacy")
    for plain, found in zip(run(before, feeds), run(after, feeds), strict=True):
        assert np.abs(found - plain).max() <= 1e-3 * np.abs(plain).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["repvgg_a0__legacy", "conv_affine__dynamo_raw", "resnet18__train_infer"])
def test_tensorrt_makes_the_same_kernels_of_functions(name: str, zoo_model: ZooModel) -> None:
    pytest.importorskip("tensorrt_rtx")
    from graphopt.tensorrt import build_engine

    kernels = []
    for block in ("plain", "function"):
        model = graphopt.optimize(zoo_model(name), block=block, verify=False).model
        assert bool(model.functions) == (block == "function")
        kernels.append(build_engine(model, compute_capabilities=["8.9"]).facts.kernels)
    assert kernels[0] == kernels[1]


# kernels that TensorRT-RTX 1.7 makes of the model as it stands, for compute capability 8.9
KERNELS = {
    "vit_tiny_patch16_224__legacy": 185,  # of 209
    "bert_tiny__legacy": 30,
    "llama_4L_256__legacy": 57,
    "swin_tiny_patch4_window7_224__dynamo_raw": 225,  # as it stands it is refused
}


@pytest.mark.slow
@pytest.mark.parametrize("to_recent", [pytest.param(False, id="as exported"), pytest.param(True, id="opset 24")])
@pytest.mark.parametrize("name", KERNELS)
def test_tensorrt_makes_no_more_kernels(name: str, to_recent: bool, zoo_model: ZooModel) -> None:
    pytest.importorskip("tensorrt_rtx")
    from graphopt.tensorrt import build_engine, check_parse, default_shapes

    before = recent(zoo_model(name)) if to_recent else zoo_model(name)
    after = graphopt.optimize(before, target="tensorrt", verify=False).model
    assert check_parse(after).accepted
    shapes = {key: shape.opt for key, shape in default_shapes(after).items()}
    assert build_engine(after, compute_capabilities=["8.9"], shapes=shapes).facts.kernels <= KERNELS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224__legacy", "bert_tiny__legacy", "llama_4L_256__legacy"])
def test_tensorrt_makes_fewer_kernels_in_float16(name: str, zoo_model: ZooModel) -> None:
    pytest.importorskip("tensorrt_rtx")
    from graphopt.tensorrt import build_engine, default_shapes

    before = narrowed(recent(zoo_model(name)), "float16")
    after = graphopt.optimize(before, target="tensorrt", verify=False).model
    kernels = []
    for each in (before, after):
        shapes = {key: shape.opt for key, shape in default_shapes(each).items()}
        kernels.append(build_engine(each, compute_capabilities=["8.9"], shapes=shapes).facts.kernels)
    assert kernels[1] < kernels[0]
