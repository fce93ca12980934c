"""The index of siblings asks for each reader's key a bounded number of times, however wide the fan."""

from __future__ import annotations

from collections.abc import Hashable

from graphopt.graph import Graph, Node, Tensor, import_model
from graphopt_passes.siblings.fans import Fans
from tests.support.models import model


def fan(count: int) -> tuple[Tensor, list[Node]]:
    body = "  ".join(f"y{i} = Relu(x)" for i in range(count))
    outputs = ", ".join(f"float[2] y{i}" for i in range(count))
    graph: Graph = import_model(model(f"g (float[2] x) => ({outputs}) {{ {body} }}")).graph
    return graph.inputs[0], list(graph.nodes)


def test_only_the_first_of_a_group_gets_the_group() -> None:
    tensor, nodes = fan(6)
    kinds = {node: i % 2 for i, node in enumerate(nodes)}
    fans = Fans()
    groups = [fans.group("rule", n, tensor, kinds.__getitem__) for n in nodes]
    assert groups == [nodes[0::2], nodes[1::2], [], [], [], []]


def test_what_is_gone_or_changed_is_no_member() -> None:
    tensor, nodes = fan(4)
    kinds: dict[Node, int | None] = dict.fromkeys(nodes, 1)
    fans = Fans()
    assert fans.group("rule", nodes[0], tensor, kinds.__getitem__) == nodes
    kinds[nodes[0]], kinds[nodes[2]] = None, 2
    assert fans.group("rule", nodes[0], tensor, kinds.__getitem__) == []
    assert fans.group("rule", nodes[1], tensor, kinds.__getitem__) == [nodes[1], nodes[3]]
    assert fans.group("rule", nodes[2], tensor, kinds.__getitem__) == [nodes[2]]


def test_work_is_linear_in_the_fan() -> None:
    for kinds in (1, 500, 1000):
        tensor, nodes = fan(1000)
        place = {node: i % kinds for i, node in enumerate(nodes)}
        asked = 0

        def key_of(node: Node, place: dict[Node, int] = place) -> Hashable:
            nonlocal asked
            asked += 1
            return place[node]

        fans = Fans()
        for node in nodes:
            fans.group("rule", node, tensor, key_of)
        assert asked <= 5 * len(nodes)
