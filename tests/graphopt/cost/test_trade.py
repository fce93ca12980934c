"""The judge: what pays stays, what loses goes back whole, with figures; force overrules, unknown sizes refuse."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphopt.change import Log
from graphopt.cost import Setting, TradeJudge
from graphopt.driver import run_rules
from graphopt.errors import PipelineError
from graphopt.facts import Facts
from graphopt.graph import Node, export_model, import_model
from graphopt.inference import infer_types
from graphopt.pipeline import Options
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt.targets import Target
from graphopt_passes.siblings.convs import MergeAdjacentConvs, MergeSiblingConvs
from graphopt_passes.siblings.products import MergeSiblingMatmuls
from tests.support.models import model

WEIGHTS = {"v": np.ones((64, 32, 1, 1), np.float32), "w": np.ones((48, 32, 1, 1), np.float32)}
CONV = {"p": np.ones((8, 64, 3, 3), np.float32), "q": np.ones((8, 48, 3, 3), np.float32)}
MEETING = model(
    "g (float[N,32,28,28] x) => (float[N,112,28,28] y) { a = Conv(x, v)  b = Conv(x, w)  y = Concat<axis=1>(a, b) }",
    WEIGHTS,
)
PARTING = model(
    """g (float[N,32,28,28] x) => (float[N,8,26,26] y, float[N,8,26,26] z) {
    a = Conv(x, v)  b = Conv(x, w)  y = Conv(a, p)  z = Conv(b, q) }""",
    WEIGHTS | CONV,
)
UNKNOWN = model(
    "g (float[N,32,A,B] x) => (float[N,C,D,E] y, float[N,F,G,H] z) { y = Conv(x, v)  z = Conv(x, w) }", WEIGHTS
)


GATE = model(
    """g (float[N,16,256] x) => (float[N,16,704] y) {
    a = MatMul(x, u)  b = MatMul(x, v)  s = Sigmoid(a)  g = Mul(a, s)  y = Mul(g, b) }""",
    {"u": np.ones((256, 704), np.float32), "v": np.ones((256, 704), np.float32)},
)


def judged(proto: onnx.ModelProto, options: Options) -> tuple[onnx.ModelProto, TradeJudge, Log]:
    graph = import_model(proto)
    infer_types(graph)
    judge = TradeJudge(options)
    edit = Rewriter(graph, judges=[judge])
    run_rules([MergeAdjacentConvs(), MergeSiblingConvs(), MergeSiblingMatmuls()], Facts(graph, options.target), edit)
    return export_model(graph), judge, edit.log


@pytest.mark.parametrize("target", list(Target))
def test_a_merge_into_a_concat_pays_everywhere(target: Target) -> None:
    after, judge, log = judged(MEETING, Options(target=target))
    assert [n.op_type for n in after.graph.node] == ["Conv"]
    (decision,) = judge.decisions
    assert decision.taken
    assert decision.ratio < 1
    assert decision.rule == "merge-adjacent-convs"
    assert "of the time predicted" in decision.reason
    assert not log.refusals


def test_a_merge_that_loses_is_taken_back_whole_and_explained() -> None:
    after, judge, log = judged(PARTING, Options())
    assert after == export_model(import_model(PARTING))
    (decision,) = judge.decisions
    assert not decision.taken
    assert decision.ratio > 1
    assert decision.reason.startswith("would lose: 1.")
    assert "4 kernels become 5" in decision.reason
    assert [reason for _, reason in log.refusals] == [decision.reason]


def test_force_overrules_and_still_tells_the_figures() -> None:
    after, judge, _ = judged(PARTING, Options(force=frozenset({"merge-sibling-convs"})))
    assert [n.op_type for n in after.graph.node] == ["Conv", "Split", "Conv", "Conv"]
    (decision,) = judge.decisions
    assert decision.taken
    assert decision.ratio > 1
    assert decision.reason.startswith("forced; 1.")


def test_the_same_merge_is_right_for_one_target_and_wrong_for_another() -> None:
    taken = {t: judged(PARTING, Options(target=t))[1].decisions[0].taken for t in Target}
    assert taken == {Target.TENSORRT: False, Target.ONNXRUNTIME: False, Target.PORTABLE: False}
    nhwc = Options(target=Target.ONNXRUNTIME, layout="nhwc")
    relus = model(
        """g (float[N,32,28,28] x) => (float[N,64,28,28] y, float[N,48,28,28] z) {
        a = Conv(x, v)  b = Conv(x, w)  y = Relu(a)  z = Relu(b) }""",
        WEIGHTS,
    )
    assert judged(relus, nhwc)[1].decisions[0].taken
    assert not judged(relus, Options(target=Target.ONNXRUNTIME, batch=32))[1].decisions[0].taken


def test_as_many_kernels_for_more_bytes_are_no_gain_on_tensorrt() -> None:
    """The gate and the other half of a gated unit: their merge saves a product and costs a copy."""
    (decision,) = judged(GATE, Options())[1].decisions
    assert not decision.taken
    assert decision.ratio < 1
    assert decision.reason.startswith("would gain too little: 0.")
    assert "2 kernels become 2" in decision.reason


def test_batch_decides_too() -> None:
    ratios = [judged(PARTING, Options(target=Target.ONNXRUNTIME, batch=b))[1].decisions[0].ratio for b in (1, 64)]
    assert ratios[0] != ratios[1]


def test_unknown_sizes_are_guessed_only_where_a_rank_is_known() -> None:
    _, judge, _ = judged(UNKNOWN, Options())
    assert judge.decisions[0].before > 0


def test_without_ranks_nothing_can_be_predicted() -> None:
    graph = import_model(MEETING)  # types were not inferred
    judge = TradeJudge(Options())
    edit = Rewriter(graph, judges=[judge])
    run_rules([MergeAdjacentConvs()], Facts(graph), edit)
    assert not edit.log.applications
    assert "the shapes are not known" in judge.decisions[0].reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(device="tpu"), "there is no device 'tpu'"),
        (Options(layout="nwhc"), "there is no layout 'nwhc'; the known ones are: nchw, nhwc."),
        (Options(launch="lazy"), "there is no launch 'lazy'; the known ones are: eager, captured."),
    ],
)
def test_unknown_names_are_the_users_mistake(options: Options, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        Setting.of(options)


class SkipIdentity(Rule[tuple[Node, Node]]):
    """Flatten(Identity(x)) = Flatten(x), as a trade between things that take no time."""

    roots = ("Flatten",)
    trades = True

    def match(self, node: Node, facts: Facts) -> tuple[Node, Node] | NoMatch:
        inner = facts.sole_producer(node.input(0), "Identity")
        return NoMatch("no Identity before it", node) if inner is None else (inner, node)

    def rewrite(self, found: tuple[Node, Node], edit: Rewriter) -> None:
        edit.replace(found[1], edit.like(found[1], found[0].inputs))


def test_what_takes_no_time_has_nothing_to_gain() -> None:
    graph = import_model(model("g (float[2,3] x) => (float[2,3] y) { a = Identity(x)  y = Flatten(a) }"))
    infer_types(graph)
    judge = TradeJudge(Options())
    run_rules([SkipIdentity()], Facts(graph), Rewriter(graph, judges=[judge]))
    assert [d.reason for d in judge.decisions] == ["what it replaces takes no time, so there is nothing to gain"]
