"""Constants of one number that only enlarge a tensor, which a later operation enlarges anyway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.pointwise import BROADCASTING, UNARY, is_pointwise
from graphopt_passes.common.shapes import broadcasts_into
from graphopt_passes.common.uniform import uniform_value

# PRelu broadcasts its slope only, not the tensor
_BOTH_WAYS = BROADCASTING - {"PRelu"}
_FURTHEST = 8  # nodes between the constant and what enlarges anyway
_WIDEST = 32  # readers of one of them


@dataclass(frozen=True)
class Enlarged:
    """Input `index` of `smaller[0]` is `value` all over; `smaller` may all be smaller, since `ends` enlarge anyway."""

    index: int
    value: Array
    smaller: tuple[Node, ...]  # each behind those that it reads
    ends: tuple[Node, ...]


class ShrinkUniformOperand(Rule[Enlarged]):
    """g(h(f(C, x)), y) = g(h(f(c, x)), y) where each element of the constant C is the number c.

    f, h and g work element by element; C enlarges x; every path from f ends at such a g whose other operand y is as
    large as what it enlarges. A mask is then made once a row and not once an element, and where c is f's neutral
    element (x ∧ true) f goes as well. Opset 8 on. Exact.
    """

    roots = tuple(sorted(_BOTH_WAYS))

    def match(self, node: Node, facts: Facts) -> Enlarged | NoMatch:
        if len(node.outputs) != 1 or not is_pointwise(node.op, facts.opset(node)):
            return NoMatch("it is of an opset before broadcasting", node)
        shape = node.result.shape
        for index, tensor in enumerate(node.inputs):
            if tensor is None or tensor.shape is None or not facts.is_constant(tensor) or facts.size(tensor) == 1:
                continue
            others = [t for i, t in enumerate(node.inputs) if i != index and t is not None]
            if shape is None or any(t.shape == shape for t in others):
                continue  # it enlarges nothing
            value = uniform_value(tensor, facts)
            if value is not None:
                return self._walk(node, index, value, facts)
        return NoMatch("no operand is one number all over that enlarges the others", node)

    def _walk(self, node: Node, index: int, value: Array, facts: Facts) -> Enlarged | NoMatch:
        smaller, ends = [node], dict[Node, None]()
        made = {node.result}
        for each in smaller:
            if each.result.is_output or len(each.result.consumers) > _WIDEST:
                return NoMatch("a graph output, or too many nodes, need it enlarged", each)
            for reader in dict.fromkeys(each.result.consumers):
                if not _works_on(reader, each, facts):
                    return NoMatch("not only operators that work element by element read it", reader)
                if any(broadcasts_into(each.result.shape, t.shape) for t in _others(reader, made)):
                    ends[reader] = None
                elif reader not in smaller:
                    smaller.append(reader)
                    made.add(reader.result)
            if len(smaller) > _FURTHEST:
                return NoMatch("nothing near enlarges it anyway", node)
        if not _holds(smaller, ends, made):
            return NoMatch("what enlarges it anyway would get smaller itself", node)
        return Enlarged(index, value, _in_order(smaller), tuple(ends))

    def rewrite(self, found: Enlarged, edit: Rewriter) -> None:
        first = found.smaller[0]
        scalar = edit.constant(found.value, f"{first.label}.number")
        now: dict[Tensor, Tensor] = {}
        for node in found.smaller:
            inputs = [now.get(t, t) if t is not None else None for t in node.inputs]
            if node is first:
                inputs[found.index] = scalar
            now[node.result] = edit.like(node, inputs).result
        for node in found.ends:
            edit.replace(node, edit.like(node, [now.get(t, t) if t is not None else None for t in node.inputs]))


def _in_order(nodes: list[Node]) -> tuple[Node, ...]:
    """The same nodes, each behind those that it reads."""
    ordered: list[Node] = []
    rest = list(nodes)
    while rest:
        unmade = {n.result for n in rest}
        ready = [n for n in rest if unmade.isdisjoint(n.inputs)]
        ordered += ready
        rest = [n for n in rest if n not in ready]
    return tuple(ordered)


def _works_on(reader: Node, producer: Node, facts: Facts) -> bool:
    """Whether `reader`, of the same graph, gives the same elements when it reads fewer, to be enlarged later."""
    if reader.graph is not producer.graph or len(reader.outputs) != 1 or reader.result.shape is None:
        return False
    if reader.op in UNARY:
        return reader.input(0) is producer.result and producer.result not in reader.inputs[1:]
    return reader.op in _BOTH_WAYS and is_pointwise(reader.op, facts.opset(reader))


def _others(reader: Node, made: set[Tensor]) -> Iterator[Tensor]:
    return (t for t in reader.inputs if t is not None and t not in made)


def _holds(smaller: list[Node], ends: dict[Node, None], made: set[Tensor]) -> bool:
    """Whether every end still has, among what does not change, an operand as large as all that it enlarges."""
    if any(end in smaller for end in ends):
        return False
    return all(
        any(broadcasts_into(t.shape, y.shape) for y in _others(end, made))
        for end in ends
        for t in end.inputs
        if t in made
    )
