"""The cost model's sign against latencies measured on an H200 with ONNX Runtime 1.31 (CUDA, IO binding, TF32).

Each figure is the latency of the model with the merge over the latency without it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from onnx import ModelProto

from graphopt.cost import Launch, Layout, Setting, estimate, find_device, run_seconds
from graphopt.driver import run_rules
from graphopt.facts import Facts
from graphopt.graph import Model, Node, import_model
from graphopt.inference import infer_types
from graphopt.rewrite import Rewriter
from graphopt.rule import Rule
from graphopt.targets import Target
from graphopt_passes.siblings.convs import MergeSiblingConvs
from graphopt_passes.siblings.enlarge import EnlargeAdjacentConvs
from graphopt_passes.siblings.products import MergeSiblingMatmuls
from models.zoo import load
from tests.graphopt.cost.bert import encoder

NOISE = 0.005  # a ratio this close to 1 has no sign


class MergeReducingConvs(MergeSiblingConvs):
    """Only the siblings whose result no Concat takes: the two that reduce channels in an Inception module."""

    def form(self, node: Node, facts: Facts) -> Hashable | None:
        relu = facts.sole_consumer(node.output(0), "Relu")
        if relu is None or facts.sole_consumer(relu.result, "Concat") is not None:
            return None
        return super().form(node, facts)


def any_batch(name: str) -> Callable[[], ModelProto]:
    def build() -> ModelProto:
        proto = load(name)
        given = {t.name for t in proto.graph.initializer}
        for info in (*proto.graph.input, *proto.graph.output):
            if info.name not in given:
                info.type.tensor_type.shape.dim[0].dim_param = "N"
        return proto

    return build


@dataclass(frozen=True)
class Merge:
    """A model and the rule that was applied to it wherever it fits."""

    build: Callable[[], ModelProto]
    rule: type[Rule[Any]]


MERGES = {
    "enlarge": Merge(any_batch("squeezenet"), EnlargeAdjacentConvs),
    "all siblings": Merge(any_batch("googlenet"), MergeSiblingConvs),
    "two of three": Merge(any_batch("googlenet"), MergeReducingConvs),
    "query, key, value": Merge(encoder, MergeSiblingMatmuls),
}
BATCHES = (1, 8, 32)
NCHW, NHWC = Layout.NCHW, Layout.NHWC
# merge, layout, launch: the ratios at the three batch sizes
MEASURED = {
    ("enlarge", NCHW, Launch.EAGER): (0.68, 0.81, 0.93),
    ("enlarge", NCHW, Launch.CAPTURED): (0.80, 0.85, 0.94),
    ("enlarge", NHWC, Launch.EAGER): (0.66, 0.78, 0.91),
    ("enlarge", NHWC, Launch.CAPTURED): (0.77, 0.86, 0.93),
    ("all siblings", NCHW, Launch.EAGER): (1.07, 1.19, 1.15),
    ("all siblings", NCHW, Launch.CAPTURED): (1.02, 1.02, 1.00),
    ("all siblings", NHWC, Launch.EAGER): (0.78, 0.86, 0.95),
    ("all siblings", NHWC, Launch.CAPTURED): (0.85, 0.90, 0.97),
    ("two of three", NCHW, Launch.EAGER): (1.05, 1.12, 1.08),
    ("two of three", NCHW, Launch.CAPTURED): (1.10, 1.06, 1.02),
    ("query, key, value", NCHW, Launch.EAGER): (0.77, 0.90, 1.00),
    ("query, key, value", NCHW, Launch.CAPTURED): (0.86, 0.98, 1.00),
}


@cache
def graphs(merge: str) -> tuple[Model, Model]:
    """The model before and after the merge."""
    before, after = (import_model(MERGES[merge].build()) for _ in range(2))
    infer_types(before)
    infer_types(after)
    edit = Rewriter(after)
    run_rules([MERGES[merge].rule()], Facts(after), edit)
    assert len(edit.log.applications) in (4, 8, 9)
    return before, after


def predicted(merge: str, setting: Setting) -> float:
    before, after = (run_seconds(estimate(g.graph.nodes, setting), setting) for g in graphs(merge))
    return after / before


def cases() -> list[tuple[str, Layout, Launch, int, float]]:
    return [
        (merge, layout, launch, batch, ratio)
        for (merge, layout, launch), ratios in MEASURED.items()
        for batch, ratio in zip(BATCHES, ratios, strict=True)
        if abs(ratio - 1) > NOISE
    ]


def test_the_sign_agrees_in_nine_of_ten_cases() -> None:
    wrong = []
    for merge, layout, launch, batch, ratio in cases():
        guess = predicted(merge, Setting(find_device("h200"), Target.ONNXRUNTIME, batch, layout, launch))
        if (guess < 1) != (ratio < 1):
            wrong.append((merge, layout, launch, batch, ratio, guess))
    assert len(cases()) >= 30
    assert len(wrong) <= len(cases()) / 10, wrong


def test_where_nothing_was_measured_to_change_little_is_predicted() -> None:
    for launch in Launch:
        setting = Setting(find_device("h200"), Target.ONNXRUNTIME, 32, NCHW, launch)
        assert predicted("query, key, value", setting) == pytest.approx(1.0, abs=0.05)


def test_the_same_merge_is_right_for_one_layout_and_wrong_for_another() -> None:
    wide, deep = (
        predicted("all siblings", Setting(find_device("h200"), Target.ONNXRUNTIME, 8, layout))
        for layout in (NCHW, NHWC)
    )
    assert deep < 1 < wide


@pytest.mark.parametrize(("merge", "pays"), [("enlarge", True), ("all siblings", False), ("two of three", False)])
def test_on_tensorrt_a_split_for_convs_is_copies_and_a_concat_is_free(merge: str, pays: bool) -> None:
    setting = Setting(target=Target.TENSORRT)
    before, after = (estimate(g.graph.nodes, setting) for g in graphs(merge))
    assert (after.kernels < before.kernels) == pays
    assert (run_seconds(after, setting) < run_seconds(before, setting)) == pays
