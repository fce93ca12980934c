"""The merges on real models: how many, what is left, and the cost model's word on each."""

from __future__ import annotations

from collections import Counter

import pytest
from onnx import ModelProto

from graphopt.cost import Decision, TradeJudge
from graphopt.facts import Facts
from graphopt.graph import export_model, import_model
from graphopt.inference import infer_types
from graphopt.pipeline import Context, Options
from graphopt.rewrite import Rewriter
from graphopt.targets import Target
from graphopt_passes.siblings import MergeSiblings
from models.zoo import inputs, load
from tests.support.rewrites import check_numbers


def merged(proto: ModelProto, options: Options) -> tuple[ModelProto, list[Decision]]:
    graph = import_model(proto)
    infer_types(graph)
    judge = TradeJudge(options)
    context = Context(graph, Facts(graph, options.target), Rewriter(graph, judges=[judge]), options)
    MergeSiblings().run(context)
    return export_model(graph), judge.decisions


def operators(proto: ModelProto) -> Counter[str]:
    return Counter(n.op_type for n in proto.graph.node)


def test_googlenet_forced_merges_nine_groups_of_three() -> None:
    before = load("googlenet")
    after, decisions = merged(before, Options(force=frozenset({"merge-sibling-convs"})))
    assert len(decisions) == 9
    assert all(d.taken and d.reason.startswith("forced") for d in decisions)
    change = operators(before) - operators(after)
    assert change == {"Conv": 18, "Relu": 18}
    assert operators(after) - operators(before) == {"Split": 9}
    check_numbers(before, after, exact=False, inputs=inputs("googlenet"))


def test_googlenet_unforced_tells_why_each_group_stays() -> None:
    before = load("googlenet")
    after, decisions = merged(before, Options())
    assert operators(after) == operators(before)
    refused = [d for d in decisions if d.rule == "merge-sibling-convs"]
    assert len(refused) == 9
    assert all(
        d.ratio > 1 and d.reason.startswith("would lose: 1.") and " kernels become " in d.reason for d in refused
    )


def test_googlenet_pays_on_onnxruntime_in_nhwc_at_batch_one() -> None:
    _, decisions = merged(load("googlenet"), Options(target=Target.ONNXRUNTIME, layout="nhwc"))
    assert [d.taken for d in decisions] == [True] * 9


@pytest.mark.parametrize("target", list(Target))
def test_squeezenet_loses_its_concats(target: Target) -> None:
    before = load("squeezenet")
    after, decisions = merged(before, Options(target=target))
    assert [d.rule for d in decisions] == ["enlarge-adjacent-convs"] * 8
    assert "Concat" not in operators(after)
    assert len(after.graph.node) == len(before.graph.node) - 24


@pytest.mark.parametrize("name", ["bert_tiny__legacy", "llama_4L_256__legacy", "inception_siblings__legacy"])
def test_forced_merges_keep_the_numbers(name: str) -> None:
    rules = frozenset(rule.name for rule in MergeSiblings.rules)
    before = load(name)
    after, decisions = merged(before, Options(force=rules))
    assert decisions
    check_numbers(before, after, exact=False, inputs=inputs(name))


@pytest.mark.parametrize(
    ("name", "most"), [("squeezenet1_1__legacy", 24), ("googlenet", 80), ("hrnet_w18_small__legacy", 105)]
)
def test_engines_have_no_more_kernels(name: str, most: int) -> None:
    pytest.importorskip("tensorrt_rtx")
    from graphopt.tensorrt import build_engine

    after, _ = merged(load(name), Options())
    assert build_engine(after, compute_capabilities=["8.9"]).facts.kernels <= most
