"""The Rewriter: numbering, provenance, limits, exclusions, and taking back."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from graphopt.change import Change
from graphopt.driver import Stop, run_rules
from graphopt.facts import Facts
from graphopt.graph import Model, Node, Tensor, export_model, import_model
from graphopt.inference import infer_types
from graphopt.instruments import PassRecord, StructureChecker
from graphopt.rewrite import Rewriter
from graphopt.rule import ANY, NoMatch, Refused, RewriteRefusedError, Rule
from tests.support.models import model


class DropIdentity(Rule[Node]):
    """Identity(x) = x."""

    roots = ("Identity",)

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        source = node.input(0)
        if source is None or not facts.can_forward(node.result, source):
            return Refused("its output's name cannot move", node)
        return node

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        source = found.inputs[0]
        assert source is not None
        edit.forward(found.result, source)


class FuseRelus(Rule[tuple[Node, Node]]):
    """Relu(Relu(x)) = Relu(x)."""

    roots = ("Relu",)

    def match(self, node: Node, facts: Facts) -> tuple[Node, Node] | NoMatch:
        first = facts.sole_producer(node.input(0), "Relu")
        return (first, node) if first is not None else NoMatch("no Relu before it", node)

    def rewrite(self, found: tuple[Node, Node], edit: Rewriter) -> None:
        first, second = found
        edit.replace(second, edit.like(second, first.inputs))


class Fails(FuseRelus):
    """Breaks off half-way."""

    def rewrite(self, found: tuple[Node, Node], edit: Rewriter) -> None:
        super().rewrite(found, edit)
        edit.constant(np.ones(3, np.float32), "left over")
        raise RewriteRefusedError("the numbers overflow")


def chain(middle: str) -> ModelProto:
    return model(f"g (float[2] x) => (float[2] y) {{ {middle} }}")


RELUS = chain("a = Relu(x) \n b = Relu(a) \n c = Relu(b) \n y = Relu(c)")


def opened(proto: ModelProto) -> Model:
    graph = import_model(proto)
    infer_types(graph)
    return graph


def run(proto: ModelProto, *rules: Rule, **settings: object) -> tuple[Model, Rewriter]:  # type: ignore[type-arg]
    graph = opened(proto)
    edit = Rewriter(graph, **settings)  # type: ignore[arg-type]
    run_rules(rules, Facts(graph), edit)
    checker = StructureChecker()
    checker.before(PassRecord(0, "t", 0), opened(proto))
    checker.after(PassRecord(0, "t", 0), graph)
    return graph, edit


def test_applications_are_numbered_and_know_their_nodes() -> None:
    graph, edit = run(RELUS, FuseRelus())
    assert [a.number for a in edit.log.applications] == [1, 2, 3]
    assert {a.rule for a in edit.log.applications} == {"fuse-relus"}
    first = edit.log.applications[0]
    assert len(first.consumed) == 2
    (node,) = graph.graph.nodes
    assert node.result.name == "y"
    assert node.rule == "fuse-relus"


def test_a_limit_stops_after_that_many() -> None:
    for limit in range(4):
        graph, edit = run(RELUS, FuseRelus(), limit=limit)
        assert len(edit.log.applications) == limit
        assert len(graph.graph.nodes) == 4 - limit
        assert edit.log.stopped_at_limit == (limit < 3)


PAIRS = chain("a = Relu(x) \n b = Relu(a) \n c = Neg(b) \n d = Relu(c) \n y = Relu(d)")


def test_an_excluded_place_is_left_alone_and_the_rest_goes_on() -> None:
    _, edit = run(PAIRS, FuseRelus())
    key = edit.log.applications[0].key
    _, edit = run(PAIRS, FuseRelus(), excluded=frozenset({key}))
    assert [a.at for a in edit.log.applications] == ["y"]
    assert any("excluded" in reason for _, reason in edit.log.refusals)


def test_a_refusal_half_way_changes_nothing() -> None:
    graph, edit = run(RELUS, Fails())
    assert export_model(graph) == RELUS
    assert list(edit.log.refusals) == [("fails", "the numbers overflow")]


def test_a_judge_takes_a_change_back() -> None:
    graph, edit = run(
        PAIRS, FuseRelus(), judges=[lambda change: "no" if change.replaced.keys() & names("y", change) else None]
    )
    assert [a.at for a in edit.log.applications] == ["b"]
    assert ("fuse-relus", "no") in edit.log.refusals
    assert [n.op for n in graph.graph.sorted_nodes()] == ["Relu", "Neg", "Relu", "Relu"]


def names(name: str, change: Change) -> set[Tensor]:
    return {t for t in change.replaced if t.name == name}


def test_an_error_in_a_rule_leaves_the_graph_as_it_was() -> None:
    class Broken(FuseRelus):
        """Raises."""

        def rewrite(self, found: tuple[Node, Node], edit: Rewriter) -> None:
            super().rewrite(found, edit)
            raise ZeroDivisionError

    graph = opened(RELUS)
    with pytest.raises(ZeroDivisionError):
        run_rules([Broken()], Facts(graph), Rewriter(graph))
    assert export_model(graph) == RELUS


@pytest.mark.parametrize(
    ("middle", "left"),
    [
        ("y = Identity(x)", 1),  # an output that equals an input keeps its node
        ("a = Relu(x) \n y = Identity(a)", 1),
        ("a = Identity(x) \n y = Relu(a)", 1),
        ("a = Relu(x) \n b = Identity(a) \n c = Neg(b) \n y = Add(c, b)", 3),
    ],
)
def test_names_of_outputs_stay(middle: str, left: int) -> None:
    graph, _ = run(chain(middle), DropIdentity())
    assert len(graph.graph.nodes) == left
    assert [t.name for t in graph.graph.outputs] == ["y"]


def test_an_output_listed_twice_moves_as_a_whole() -> None:
    proto = model("g (float[2] x) => (float[2] y, float[2] y) { a = Relu(x) \n y = Identity(a) }")
    graph, _ = run(proto, DropIdentity())
    assert [t.name for t in graph.graph.outputs] == ["y", "y"]
    assert len(graph.graph.nodes) == 1


def test_two_outputs_of_one_value_keep_both_names() -> None:
    proto = model("g (float[2] x) => (float[2] a, float[2] y) { a = Relu(x) \n y = Identity(a) }")
    graph, edit = run(proto, DropIdentity())
    assert export_model(graph) == proto
    assert not edit.log.applications


def test_captures_of_bodies_move_too() -> None:
    proto = model(
        "g (float[2] x, bool c) => (float[2] y) { a = Relu(x) \n b = Identity(a) \n"
        " y = If (c) <then_branch = t () => (float[2] p) { p = Neg(b) }, "
        "else_branch = e () => (float[2] p) { p = Abs(b) }> }"
    )
    graph, edit = run(proto, DropIdentity())
    assert len(edit.log.applications) == 1
    assert [n.op for n in graph.graph.nodes] == ["Relu", "If"]


def test_what_a_rewrite_leaves_unread_goes_with_it() -> None:
    class TakeFirst(Rule[Node]):
        """Sub(x, y) becomes x: wrong as algebra, right as a test of the sweep."""

        roots = ("Sub",)

        def match(self, node: Node, facts: Facts) -> Node | NoMatch:
            return node

        def rewrite(self, found: Node, edit: Rewriter) -> None:
            source = found.inputs[0]
            assert source is not None
            edit.forward(found.result, source)

    proto = model(
        "g (float[2] x) => (float[2] y) { a = Mul(x, w) \n b = Neg(a) \n c = Relu(x) \n d = Sub(c, b) \n y = Abs(d) }",
        {"w": np.ones(2, np.float32)},
    )
    graph, edit = run(proto, TakeFirst())
    assert [n.op for n in graph.graph.nodes] == ["Relu", "Abs"]
    assert not graph.graph.initializers
    assert {n.op for n in edit.log.applications[0].consumed} == {"Sub", "Neg", "Mul"}


def test_rules_that_undo_each_other_are_stopped_and_named() -> None:
    class There(Rule[Node]):
        """Relu becomes Abs."""

        roots = ("Relu",)
        other = "Abs"

        def match(self, node: Node, facts: Facts) -> Node | NoMatch:
            return node

        def rewrite(self, found: Node, edit: Rewriter) -> None:
            edit.replace(found, edit.node(self.other, found.inputs))

    class Back(There):
        """Abs becomes Relu."""

        roots = ("Abs",)
        other = "Relu"

    graph = opened(chain("y = Relu(x)"))
    edit = Rewriter(graph)
    assert run_rules([There(), Back()], Facts(graph), edit) == Stop.CYCLE
    assert ("back / there", "these rules undo each other; stopped") in edit.log.refusals


def test_rules_at_any_root_see_every_node_once_more_only_after_a_change() -> None:
    seen: list[str] = []

    class Watch(Rule[Node]):
        """Looks and never touches."""

        roots = (ANY,)

        def match(self, node: Node, facts: Facts) -> Node | NoMatch:
            seen.append(node.op)
            return NoMatch("only looking", node)

        def rewrite(self, found: Node, edit: Rewriter) -> None:
            raise AssertionError

    run(RELUS, Watch())
    assert seen == ["Relu"] * 4


def test_nodes_with_attributes_of_a_function_are_offered_to_no_rule() -> None:
    proto = model(
        "g (float[2] x) => (float[2] y) { y = My.F<a: float = 0.5>(x) }",
        domains=', "My" : 1',
        functions='<domain: "My", opset_import: ["" : 17]> F <a>(p) => (q) '
        "{ r = LeakyRelu<alpha: float = @a>(p) \n q = Identity(r) }",
    )
    graph, edit = run(proto, DropIdentity())
    ops = [n.op for f in graph.functions.values() for n in f.body.nodes]
    assert ops == ["attr-ref::LeakyRelu"]
    assert export_model(graph).functions[0].output == ["q"]
    assert len(edit.log.applications) == 1
