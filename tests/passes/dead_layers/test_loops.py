"""Loop, Scan and If: results that nothing reads, values that never change, loops of known length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.facts import Facts
from graphopt.graph import import_model
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, RewriteRefusedError
from graphopt_passes.dead_layers.results import DropUnchangedState, DropUnreadBranchResults, DropUnreadIterations
from graphopt_passes.dead_layers.unrolling import InlineSingleIteration, UnrollLoop, UnrollLoops
from tests.support.models import model
from tests.support.rewrites import apply, apply_pass, check_numbers, check_rewrite, check_untouched, find

TWO = np.array(2, np.int64)


def loop(
    body: str,
    signature: str,
    *,
    outputs: str,
    results: str,
    starts: str = "x, z",
    condition: str = '""',
    trips: str = "n",
) -> ModelProto:
    """A Loop of two iterations over carried values, inputs x and z, with `body` of this `signature`."""
    text = (
        f"g (float[2] x, float[2] z, bool c) => ({outputs}) {{ k = Neg(z) \n"
        f"w = Constant<value = float[2] {{1.0, 2.0}}>() \n {results} = Loop({trips}, {condition}, {starts}) <"
        f"body = b {signature} {{ {body} }}> }}"
    )
    return model(text, {"n": TWO, "one": np.array(1, np.int64), "none": np.array(0, np.int64), "t": np.array(True)})


def carrying(body: str, outputs: str = "float[2] y", results: str = "y, v", **other: str) -> ModelProto:
    """A Loop that carries p (from x) and q (from z) and makes them p1 and q1; its condition is g."""
    signature = "(int64 i, bool g, float[2] p, float[2] q) => (bool h, float[2] p1, float[2] q1)"
    return loop(f"h = Identity(g) \n {body}", signature, outputs=outputs, results=results, **other)


def collecting(body: str, outputs: str, results: str, **other: str) -> ModelProto:
    """A Loop that carries p (from x), makes it p1 and collects s and u."""
    signature = "(int64 i, bool g, float[2] p) => (bool h, float[2] p1, float[2] s, float[2] u)"
    return loop(f"h = Identity(g) \n {body}", signature, outputs=outputs, results=results, **{"starts": "x", **other})


def body_of(proto: ModelProto, op: str = "Loop") -> tuple[int, list[str], int]:
    """Inputs, operators and outputs of the body of the only `op`."""
    (node,) = (n for n in proto.graph.node if n.op_type == op)
    graph = next(a.g for a in node.attribute if a.HasField("g"))
    return len(graph.input), sorted(n.op_type for n in graph.node), len(graph.output)


# -- results that nothing reads --------------------------------------------------------------------------------------


def test_a_carried_value_that_decides_nothing_goes() -> None:
    before = carrying("p1 = Add(p, w) \n q1 = Mul(q, k)")
    after = check_rewrite(DropUnreadIterations(), before, ["Constant", "Loop"])
    assert body_of(after) == (3, ["Add", "Identity"], 2)


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("the other reads it", "p1 = Add(p, q) \n q1 = Mul(q, k)"),
        ("they change places", "p1 = Identity(q) \n q1 = Identity(p)"),
        (
            "a nested body reads it",
            "f = ReduceMax<keepdims=0>(p) \n m = Constant<value = float {0.0}>() \n d = Greater(f, m) \n"
            "p1 = If(d) <then_branch = a () => (float[2] r) { r = Neg(q) },"
            "else_branch = b () => (float[2] r2) { r2 = Neg(p) }> \n q1 = Mul(q, k)",
        ),
    ],
)
def test_a_carried_value_that_something_needs_stays(why: str, body: str) -> None:
    check_untouched(DropUnreadIterations(), carrying(body), because="all that it carries and collects is needed")


def test_the_value_that_the_condition_depends_on_stays() -> None:
    signature = "(int64 i, bool g, float[2] p, float[2] q) => (bool h, float[2] p1, float[2] q1)"
    body = (
        "m = Constant<value = float {0.0}>() \n f = ReduceMax<keepdims=0>(q) \n h = Greater(f, m) \n"
        "p1 = Add(p, w) \n q1 = Neg(q)"
    )
    before = loop(body, signature, outputs="float[2] y", results="y, v")
    check_untouched(DropUnreadIterations(), before, because="all that it carries and collects is needed")


def test_unread_collected_values_go_wherever_they_stand() -> None:
    before = collecting("p1 = Add(p, w) \n s = Sin(p) \n u = Cos(p)", "float[2] y, float[a,2] us", "y, ss, us")
    after = check_rewrite(DropUnreadIterations(), before, ["Neg", "Constant", "Loop"])
    assert body_of(after) == (3, ["Add", "Cos", "Identity"], 3)
    assert [o.name for o in after.graph.output] == ["y", "us"]


def test_a_collected_value_keeps_what_it_is_computed_from() -> None:
    before = collecting("p1 = Add(p, w) \n s = Sin(p) \n u = Cos(p)", "float[a,2] ss", "y, ss, us")
    after = check_rewrite(DropUnreadIterations(), before, ["Neg", "Constant", "Loop"])
    assert body_of(after) == (3, ["Add", "Identity", "Sin"], 3)


def test_a_loop_that_nothing_reads_is_left_to_another_rule() -> None:
    before = carrying("p1 = Add(p, w) \n q1 = Mul(q, k)", outputs="float[2] k", results="y, v")
    check_untouched(DropUnreadIterations(), before, because="nothing reads it at all")


def scan(extra: str = "", *, outputs: str, opset: int = 17) -> ModelProto:
    """A Scan over rows of x and z that carries p and q and collects s and u."""
    return model(
        f"g (float[3,2] x, float[3,2] z, float[2] p0, float[2] q0) => ({outputs}) {{"
        f"y, v, ss, us = Scan <num_scan_inputs = 2{extra}, body = b (float[2] p, float[2] q, float[2] e, float[2] f)"
        "=> (float[2] p1, float[2] q1, float[2] s, float[2] u)"
        "{ p1 = Add(p, e) \n q1 = Mul(q, f) \n s = Sin(p1) \n u = Cos(p1) }> (p0, q0, x, z) }",
        opset=opset,
    )


def test_a_scan_loses_what_nothing_reads_its_attributes_too() -> None:
    extra = ", scan_input_directions = [1, 0], scan_output_directions = [0, 1], scan_output_axes = [0, 1]"
    after = check_rewrite(DropUnreadIterations(), scan(extra, outputs="float[2] y, float[2,3] us"), ["Scan"])
    assert body_of(after, "Scan") == (2, ["Add", "Cos"], 2)
    given = {a.name: list(a.ints) or a.i for a in after.graph.node[0].attribute if a.name != "body"}
    assert given == {
        "num_scan_inputs": 1,
        "scan_input_directions": [1],
        "scan_output_directions": [1],
        "scan_output_axes": [1],
    }


def test_a_scan_that_collects_no_more_says_nothing_of_it() -> None:
    extra = ", scan_input_directions = [1, 0], scan_output_directions = [0, 1], scan_output_axes = [0, 1]"
    after = check_rewrite(DropUnreadIterations(), scan(extra, outputs="float[2] y"), ["Scan"])
    given = {a.name: list(a.ints) or a.i for a in after.graph.node[0].attribute if a.name != "body"}
    assert given == {"num_scan_inputs": 1, "scan_input_directions": [1]}


def test_a_scan_keeps_one_element_that_tells_how_often() -> None:
    before = model(
        "g (float[3,2] x, float[2] p0) => (float[2] y) { y, ss = Scan <num_scan_inputs = 1,"
        "body = b (float[2] p, float[2] e) => (float[2] p1, float[2] s) { p1 = Add(p, p) \n s = Sin(e) }> (p0, x) }"
    )
    after = check_rewrite(DropUnreadIterations(), before, ["Scan"])
    assert body_of(after, "Scan") == (2, ["Add"], 1)


def test_a_branch_computes_only_what_is_read() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { v, y = If(c) <"
        "then_branch = a () => (float[2] p, float[2] q) { p = Sin(x) \n q = Abs(x) },"
        "else_branch = b () => (float[2] r, float[2] s) { r = Cos(x) \n s = Neg(r) }> }"
    )
    after = check_rewrite(DropUnreadBranchResults(), before, ["If"])
    (choice,) = after.graph.node
    bodies = {a.name: ([n.op_type for n in a.g.node], len(a.g.output)) for a in choice.attribute}
    assert bodies == {"then_branch": (["Abs"], 1), "else_branch": (["Cos", "Neg"], 1)}


def test_branches_of_which_all_is_read_stay() -> None:
    before = model(
        "g (float[2] x, bool c) => (float[2] y) { y = If(c) <then_branch = a () => (float[2] p) { p = Sin(x) },"
        "else_branch = b () => (float[2] r) { r = Cos(x) }> }"
    )
    check_untouched(DropUnreadBranchResults(), before, because="all its outputs are read")


def test_a_branch_that_lacks_a_result_is_left_alone() -> None:
    proto = model(
        "g (float[2] x, bool c) => (float[2] y) { y, v = If(c) <then_branch = a () => (float[2] p) { p = Sin(x) },"
        "else_branch = b () => (float[2] r) { r = Cos(x) }> }"
    )
    graph = import_model(proto)
    found = DropUnreadBranchResults().match(find(graph, "y"), Facts(graph))
    assert isinstance(found, NoMatch)
    assert found.reason == "its branches are not well-formed"


# -- values that never change ----------------------------------------------------------------------------------------


def test_a_value_that_comes_back_as_it_was_is_read_from_outside() -> None:
    before = carrying("p1 = Add(p, q) \n r = Identity(q) \n q1 = Identity(r)", "float[2] y, float[2] v")
    after = check_rewrite(DropUnchangedState(), before, ["Neg", "Constant", "Loop", "Identity"])
    assert body_of(after) == (3, ["Add", "Identity"], 2)


def test_a_loop_that_only_hands_on_disappears() -> None:
    text = (
        'g (float[2] x, int64 n) => (float[2] y) { a = Neg(x) \n b = Loop(n, "", a) <'
        "body = b (int64 i, bool g, float[2] p) => (bool h, float[2] q) { h = Identity(g) \n q = Identity(p) }> \n"
        "y = Abs(b) }"
    )
    after = "g (float[2] x, int64 n) => (float[2] y) { a = Neg(x) \n y = Abs(a) }"
    check_rewrite(DropUnchangedState(), model(text), after)


def test_a_scan_hands_on_a_value() -> None:
    before = model(
        "g (float[3,2] x, float[2] p0) => (float[2] y, float[3,2] ss) { y, ss = Scan <num_scan_inputs = 1,"
        "body = b (float[2] p, float[2] e) => (float[2] q, float[2] s) { q = Identity(p) \n s = Add(e, p) }> (p0, x) }"
    )
    after = check_rewrite(DropUnchangedState(), before, ["Scan", "Identity"])
    assert body_of(after, "Scan") == (1, ["Add"], 1)


def nested(depth: int, most: int) -> str:
    """Loops in loops; the innermost body hands on what it is given."""
    if depth == most:
        return f"q{depth} = Identity(p{depth})"
    return (
        f'q{depth} = Loop(n, "", p{depth}) <body = b{depth} (int64 i{depth}, bool g{depth}, float[2] p{depth + 1}) => '
        f"(bool h{depth}, float[2] q{depth + 1}) {{ h{depth} = Identity(g{depth}) \n {nested(depth + 1, most)} }}>"
    )


def test_loops_in_loops_that_only_hand_on_disappear_in_one_run() -> None:
    text = f"g (float[2] x, int64 n) => (float[2] y) {{ p0 = Neg(x) \n {nested(0, 12)} \n y = Abs(q0) }}"
    after, _ = apply(DropUnchangedState(), model(text))
    assert [n.op_type for n in after.graph.node] == ["Neg", "Abs"]
    check_numbers(model(text), after, exact=True)


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("both change", "p1 = Add(p, w) \n q1 = Mul(q, k)"),
        ("they change places", "p1 = Identity(q) \n q1 = Identity(p)"),
        ("it becomes an outer value", "p1 = Add(p, w) \n q1 = Identity(k)"),
    ],
)
def test_a_value_that_may_change_stays(why: str, body: str) -> None:
    before = carrying(body, "float[2] y, float[2] v")
    check_untouched(DropUnchangedState(), before, because="every carried value may change")


def test_a_value_that_is_collected_as_well_stays() -> None:
    text = (
        'g (float[2] x, int64 n) => (float[2] y, float[a,2] s) { y, s = Loop(n, "", x) <'
        "body = b (int64 i, bool g, float[2] p) => (bool g, float[2] p, float[2] p) { }> }"
    )
    check_untouched(DropUnchangedState(), model(text), because="every carried value may change")


# -- loops of known length -------------------------------------------------------------------------------------------


def test_iterations_follow_one_another_and_are_collected() -> None:
    before = collecting(
        "f = Cast<to=1>(i) \n p1 = Add(p, f) \n s = Mul(p1, k) \n u = Neg(p)", "float[2] y, float[2,2] ss", "y, ss, us"
    )
    expected = ["Neg", "Constant", *["Cast", "Add", "Mul"] * 2, "Unsqueeze", "Unsqueeze", "Concat"]
    check_rewrite(UnrollLoop(), before, expected)


def test_before_opset_13_axes_are_an_attribute() -> None:
    text = (
        "g (float[2] x) => (float[2,2] ss) { y, ss = Loop(n, t, x) <body = b (int64 i, bool g, float[2] p)"
        "=> (bool g, float[2] p1, float[2] p1) { p1 = Add(p, x) }> }"
    )
    before = model(text, {"n": TWO, "t": np.array(True)}, opset=11)
    check_rewrite(UnrollLoop(), before, ["Add", "Add", "Unsqueeze", "Unsqueeze", "Concat"], opset=11)


def test_one_iteration_is_inlined_with_the_bodies_inside() -> None:
    body = (
        "m = Constant<value = float {0.0}>() \n f = ReduceMax<keepdims=0>(p) \n d = Greater(f, m) \n"
        "p1 = If(d) <then_branch = a () => (float[2] r) { r = Neg(q) },"
        "else_branch = b () => (float[2] r2) { r2 = Add(p, k) }> \n q1 = Mul(q, k)"
    )
    before = carrying(body, "float[2] y, float[2] v", trips="one", condition="t")
    after, log = apply(InlineSingleIteration(), before)
    assert [a.rule for a in log.applications] == ["inline-single-iteration"]
    assert "Loop" not in [n.op_type for n in after.graph.node]
    check_numbers(before, after, exact=True)


def test_no_iteration_leaves_what_it_started_with() -> None:
    before = carrying("p1 = Add(p, w) \n q1 = Mul(q, k)", trips="none")
    check_rewrite(InlineSingleIteration(), before, ["Identity"])


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        ("the trip count is an input", {"trips": "m"}, "known at run time only"),
        ("the condition is an input", {"condition": "c"}, "known at run time only"),
        ("the body decides", {"stop": "1"}, "known at run time only"),
        ("it is long", {"trips": "long"}, "longer than 16 iterations"),
        ("it is random", {"random": "1"}, "may be random"),
        ("nothing is collected of an unknown shape", {"trips": "none"}, "collects nothing"),
    ],
)
def test_other_loops_stay(why: str, before: dict[str, str], because: str) -> None:
    made = "h = Not(g)" if "stop" in before else "h = Identity(g)"
    drawn = "s = RandomUniformLike(p)" if "random" in before else "s = Abs(p)"
    text = (
        f"g (float[2] x, bool c, int64 m) => (float[2] y, float[a,2] ss) {{ y, ss = Loop("
        f"{before.get('trips', 'n')}, {before.get('condition', 't')}, x) <body = b (int64 i, bool g, float[2] p)"
        f"=> (bool h, float[2] p1, float[2] s) {{ {made} \n p1 = Add(p, x) \n {drawn} }}> }}"
    )
    weights = {"n": TWO, "t": np.array(True), "long": np.array(17, np.int64), "none": np.array(0, np.int64)}
    used = {name: value for name, value in weights.items() if f"({name}," in text or f", {name}," in text}
    check_untouched(UnrollLoop(), model(text, used), because=because)


@pytest.mark.parametrize("number", ["[1]", ""])
@pytest.mark.parametrize("condition", ["[1]", ""])
def test_a_number_or_condition_that_is_no_scalar_in_the_body_stays_what_it_is(number: str, condition: str) -> None:
    text = (
        f"g (float[2] x) => (float[2] y, int64[a{number and ',1'}] ns, bool[a{condition and ',1'}] cs) {{"
        f"y, ns, cs = Loop(k, t, x) <body = b (int64{number} i, bool{condition} g, float[2] p)"
        f"=> (bool{condition} h, float[2] p1, int64{number} n, bool{condition} c)"
        "{ h = Identity(g) \n p1 = Add(p, p) \n n = Add(i, i) \n c = Not(g) }> }"
    )
    before = model(text, {"k": np.array([1] if number else 1), "t": np.array([True] if condition else True)})
    for rule in (InlineSingleIteration(), UnrollLoop()):
        if number or condition:
            check_untouched(rule, before, because="as no scalar")
        else:
            after, log = apply(rule, before)
            assert len(log.applications) == 1
            check_numbers(before, after, exact=True)


def test_a_number_that_is_no_scalar_and_that_nothing_reads_is_no_matter() -> None:
    text = (
        "g (float[2] x) => (float[2] y) { y = Loop(n, t, x) <body = b (int64[1] i, bool g, float[2] p)"
        "=> (bool h, float[2] p1) { h = Identity(g) \n p1 = Add(p, x) }> }"
    )
    check_rewrite(UnrollLoop(), model(text, {"n": TWO, "t": np.array(True)}), ["Add", "Add"])


def test_unrolling_asks_for_its_size() -> None:
    before = carrying("p1 = Add(p, w) \n q1 = Mul(q, k)")
    assert not apply_pass(UnrollLoops(trips=1), before)[1].applications
    assert not apply_pass(UnrollLoops(nodes=5), before)[1].applications
    after, log = apply_pass(UnrollLoops(trips=2, nodes=6), before)
    assert [a.rule for a in log.applications] == ["unroll-loop"]
    check_numbers(before, after, exact=True)


def test_a_trimmed_loop_can_be_taken_back() -> None:
    class Failing(DropUnreadIterations):
        def rewrite(self, found: object, edit: Rewriter) -> None:
            super().rewrite(found, edit)  # type: ignore[arg-type]
            raise RewriteRefusedError("for the test")

    before = carrying("p1 = Add(p, w) \n q1 = Mul(q, k)")
    after, log = apply(Failing(), before)
    assert not log.applications
    assert after == before
    assert find(import_model(after), "y").op == "Loop"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    trips=st.integers(0, 3),
    p=st.sampled_from(["Add(p, w)", "Add(p, q)", "Identity(q)", "Identity(p)", "Mul(p, f)"]),
    q=st.sampled_from(["Mul(q, k)", "Identity(q)", "Identity(p)", "Identity(k)"]),
    outputs=st.sampled_from(["float[2] y", "float[2] v", "float[2] y, float[2] v", "float[2] v, float[2] y"]),
)
def test_whatever_is_carried_the_numbers_are_equal(trips: int, p: str, q: str, outputs: str) -> None:
    before = carrying(f"f = Cast<to=1>(i) \n p1 = {p} \n q1 = {q}", outputs)
    before.graph.initializer[0].CopyFrom(model("g () => () {}", {"n": np.array(trips, np.int64)}).graph.initializer[0])
    trimming = (DropUnreadIterations(), DropUnchangedState())
    for rules in (trimming, (UnrollLoop(),), (*trimming, UnrollLoop())):
        after, _ = apply(rules, before)
        check_numbers(before, after, exact=True)
    assert "Loop" not in [n.op_type for n in after.graph.node]


@pytest.mark.parametrize(("opset", "to"), [(19, 17), (21, 17), (21, 21)])
def test_narrow_numbers_are_not_stacked(opset: int, to: int) -> None:
    """Unsqueeze and Concat do not take float8 and 4 bits, or runtimes lack them."""
    kind = {17: "float8e4m3fn", 21: "uint4"}[to]
    before = model(
        f"""g (float[2] x, bool c) => ({kind}[T,2] y) {{
            y = Loop(n, c) <body = b (int64 i, bool k) => (bool o, {kind}[2] s) {{
                o = Identity(k) s = Cast<to = {to}>(x) }}> }}""",
        {"n": np.array(1)},
        opset=opset,
    )
    check_untouched(InlineSingleIteration(), before)


# -- opset ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opset", "reads"), [(9, 3), (10, 3), (11, 2)])
def test_a_loop_carries_a_value_at_least_before_opset_11(opset: int, reads: int) -> None:
    """Both values are unchanged; the one that is kept is kept for the schema alone."""
    text = (
        "g (float[2] x, float[2] z) => (float[a,2] s, float[2] y) { v, y, s = Loop(n, , x, z) <body ="
        " b (int64 i, bool g, float[2] p, float[2] q) => (bool h, float[2] p1, float[2] q1, float[2] t)"
        " { h = Identity(g) p1 = Identity(p) q1 = Identity(q) t = Add(p, q) }> }"
    )
    after = check_rewrite(DropUnchangedState(), model(text, {"n": TWO}, opset=opset), ["Loop", "Identity"])
    assert len(next(n for n in after.graph.node if n.op_type == "Loop").input) == reads


def test_the_only_unread_value_of_an_old_loop_stays() -> None:
    text = (
        "g (float[2] x, float[2] z) => (float[a,2] s) { v, s = Loop(n, , x) <body = b (int64 i, bool g, float[2] p)"
        " => (bool h, float[2] p1, float[2] t) { h = Identity(g) p1 = Neg(p) t = Neg(z) }> }"
    )
    check_untouched(DropUnreadIterations(), model(text, {"n": TWO}, opset=10), because="a Loop before opset 11")
    after = check_rewrite(DropUnreadIterations(), model(text, {"n": TWO}, opset=11), ["Loop"])
    assert len(after.graph.node[0].input) == 2
