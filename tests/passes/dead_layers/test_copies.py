"""Where two names of a value must stay an Identity makes one of the other: not of every type, nor in every opset."""

from __future__ import annotations

import pytest
from onnx import ModelProto, TensorProto

from graphopt_passes.dead_layers import CleanUp
from graphopt_passes.dead_layers.branches import InlineKnownBranch
from graphopt_passes.dead_layers.results import DropUnchangedState
from graphopt_passes.dead_layers.unrolling import InlineSingleIteration
from tests.support.models import model
from tests.support.rewrites import apply, apply_pass, check_untouched

RULES = {rule.name: rule for rule in CleanUp.rules}


def ops(proto: ModelProto) -> list[str]:
    return [n.op_type for n in proto.graph.node]


@pytest.mark.parametrize(("opset", "to"), [(21, 21), (21, 22), (24, 24), (25, 25), (25, 26)])
def test_a_no_op_on_numbers_that_have_no_identity_stays(opset: int, to: int) -> None:
    """ONNX Runtime has no Identity of 4 bits, 2 bits and float8e8m0."""
    kind = TensorProto.DataType.Name(to).lower()
    text = f"g (float[2] x) => ({{}}{kind}[2] y) {{{{ a = Cast<to = {to}>(x) y = Cast<to = {to}>(a) }}}}"
    check_untouched(RULES["drop-cast-to-same-type"], model(text.format(f"{kind}[2] a, "), opset=opset), "no Identity")
    after, _ = apply(RULES["drop-cast-to-same-type"], model(text.format(""), opset=opset))
    assert ops(after) == ["Cast"]


def never_running() -> str:
    return """g (seq(float[2]) x) => (seq(float[2]) z) <int64 n = {0}> {
        z = Loop(n, "", x) <body = b (int64 i, bool c, seq(float[2]) v) => (bool d, seq(float[2]) w) {
            d = Identity(c) t = Constant<value = float[2] {1, 2}>() w = SequenceInsert(v, t) }> }"""


def handing_on() -> str:
    """A sequence and a number that never change, and a number that does."""
    return """g (seq(float[2]) x, float[2] p, float[2] q, int64 n) => (seq(float[2]) z, float[2] r, float[2] s) {
        z, r, s = Loop(n, "", x, p, q) <
            body = b (int64 i, bool c, seq(float[2]) v, float[2] k, float[2] u)
                => (bool d, seq(float[2]) v, float[2] k, float[2] w) { d = Identity(c) w = Add(u, k) }> }"""


def choosing(results: str, read: str = "") -> str:
    """An If whose branches return the same sequence twice."""
    branch = "s = SequenceConstruct(x)"
    pair = "(seq(float[2]) s, seq(float[2]) s)"
    return f"""g (float[2] x) => ({results}) <bool c = {{1}}> {{
        z1, z2 = If(c) <then_branch = a () => {pair} {{ {branch} }}, else_branch = b () => {pair} {{ {branch} }}>
        {read} }}"""


BOTH = "seq(float[2]) z1, seq(float[2]) z2"


def test_a_sequence_is_not_copied_before_opset_14() -> None:
    check_untouched(InlineSingleIteration(), model(never_running(), opset=13), "no Identity")
    check_untouched(InlineKnownBranch(), model(choosing(BOTH), opset=13), "no Identity")


def test_what_hands_on_a_sequence_loses_the_rest_before_opset_14() -> None:
    after, log = apply(DropUnchangedState(), model(handing_on(), opset=13))
    assert len(log.applications) == 1
    assert [(n.op_type, len(n.input)) for n in after.graph.node] == [("Loop", 4), ("Identity", 1)]


@pytest.mark.parametrize("opset", [14, 21])
def test_a_sequence_is_copied_from_opset_14_on(opset: int) -> None:
    assert ops(apply(InlineSingleIteration(), model(never_running(), opset=opset))[0]) == ["Identity"]
    after, _ = apply(DropUnchangedState(), model(handing_on(), opset=opset))
    assert sorted(ops(after)) == ["Identity", "Identity", "Loop"]
    after, _ = apply_pass(CleanUp(), model(choosing(BOTH), opset=opset))
    assert ops(after) == ["SequenceConstruct", "Identity"]


def test_a_sequence_that_needs_no_copy_leaves_its_branch_in_any_opset() -> None:
    """One result takes over the name, the other is read by a node."""
    text = choosing("seq(float[2]) z1, int64 n", "n = SequenceLength(z2)")
    after, _ = apply_pass(CleanUp(), model(text, opset=13))
    assert ops(after) == ["SequenceConstruct", "SequenceLength"]
