"""Nodes that compute the same: one is kept."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from google.protobuf.message import Message
from onnx import defs, helper

from graphopt.facts import Facts
from graphopt.graph import Graph, Node
from graphopt.rewrite import Rewriter
from graphopt.rule import ANY, NoMatch, Rule
from graphopt_passes.common.copying import can_copy
from graphopt_passes.common.folding import FLOATS
from graphopt_passes.common.pure import is_pure

_COMMUTATIVE = frozenset(
    ("Add", "Mul", "And", "Or", "Xor", "Equal", "Max", "Min", "Sum", "Mean", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
)


class NodeIndex:
    """The nodes seen so far by what they compute, the latest of each graph."""

    def __init__(self) -> None:
        self._nodes: dict[Hashable, dict[Graph, Node]] = {}
        # the one node of an operator with these inputs: its attributes are looked at when there is another, then None
        self._alone: dict[Hashable, Node | None] = {}

    def equal_to(self, node: Node, opset: int) -> Node | None:
        """A node that computes the same and whose graph `node`'s graph sees, not `node` itself; else notes `node`."""
        reading = (node.op, _unordered(node), opset)
        first = self._alone.setdefault(reading, node)
        if first is node:
            return None
        if first is not None:
            self._alone[reading] = None
            if not first.is_erased:
                self._note(first, opset)
        return self._note(node, opset)

    def _note(self, node: Node, opset: int) -> Node | None:
        computation = computation_of(node, opset)
        known = self._nodes.setdefault(computation, {})
        for graph in node.owner.scopes():
            other = known.get(graph)
            if other is not None and other is not node and other.graph is graph and not other.is_erased:
                still = computation_of(other, opset)  # what it reads may have changed since it was noted
                if still == computation:
                    return other
        known[node.owner] = node
        return None


def computation_of(node: Node, opset: int) -> Hashable:
    """What equal nodes have in common: operator, attributes (defaults filled in), inputs, outputs as far as they tell.

    The two inputs of commutative operators are compared as a set; with more than two, rounding depends on the order.
    """
    attrs = dict(_defaults(node.op_type, node.domain, opset))
    attrs.update((name, _frozen(value)) for name, value in node.attrs.items())
    return node.op, _unordered(node), tuple(sorted(attrs.items())), _told_by_outputs(node)


def _told_by_outputs(node: Node) -> Hashable:
    """How many outputs there are; of a BatchNormalization which: before opset 14 those behind the first say whether it
    trains."""
    if node.op != "BatchNormalization":
        return len(node.outputs)
    return tuple([t is not None for t in node.outputs])


def _unordered(node: Node) -> Hashable:
    """The inputs, in an order of no meaning where the operator has none."""
    if node.op in _COMMUTATIVE and len(node.inputs) == 2 and not _may_meet_zeros(node):
        return tuple(sorted(node.inputs, key=id))
    return node.inputs


def _may_meet_zeros(node: Node) -> bool:
    """Whether 0.0 and −0.0 may be compared: which of them is the larger depends on the order."""
    return node.op in ("Max", "Min") and any(t is None or t.dtype is None or t.dtype in FLOATS for t in node.inputs)


def _frozen(value: Any) -> Hashable:
    """The attribute's value, comparable bit for bit (−0.0 is not 0.0)."""
    if isinstance(value, Message):
        return value.SerializeToString(deterministic=True)
    return repr(value).encode()


@lru_cache(maxsize=1024)
def _defaults(op_type: str, domain: str, opset: int) -> tuple[tuple[str, Hashable], ...]:
    """The attributes that the operator's schema gives a value when they are left out."""
    try:
        schema = defs.get_schema(op_type, opset, domain)
    except defs.SchemaError:
        return ()
    found = []
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type:
            value = helper.get_attribute_value(attribute.default_value)
            value = value.decode() if isinstance(value, bytes) else tuple(value) if isinstance(value, list) else value
            found.append((name, _frozen(value)))
    return tuple(found)


@dataclass(frozen=True)
class EqualNodes:
    """`duplicate` computes what `kept` computes."""

    kept: Node
    duplicate: Node


class ShareEqualNodes(Rule[EqualNodes]):
    """f(x), f(x) = one f(x), read twice: same operator, attributes and inputs, those of commutative operators sorted.

    A body's node may be an outer graph's, never the reverse. Not for random operators, training, operators of unknown
    domains, or nodes with bodies. Where both results are graph outputs, the second becomes an Identity of the first.
    Exact.
    """

    roots = (ANY,)

    def match(self, node: Node, facts: Facts) -> EqualNodes | NoMatch:
        if not is_pure(node, facts) or node.op == "Constant":
            return NoMatch("it may give another result each time, or is a constant", node)
        if not any(t is not None and t.is_used for t in node.outputs):
            return NoMatch("nothing reads it", node)
        kept = facts.shared(NodeIndex).equal_to(node, facts.opset(node))
        if kept is None:
            return NoMatch("no other node computes the same", node)
        pairs = list(zip(node.outputs, kept.outputs, strict=True))
        if any(old is not None and new is None for old, new in pairs):
            return NoMatch("the other node leaves an output out", node)
        stuck = [(a, b) for a, b in pairs if a and b and a.is_used and not facts.can_forward(a, b)]
        if stuck and (node.op == "Identity" or not all(can_copy(a, b, facts.opset(node)) for a, b in stuck)):
            return NoMatch("both names must stay", node)
        return EqualNodes(kept, node)

    def rewrite(self, found: EqualNodes, edit: Rewriter) -> None:
        facts = Facts(edit.model)
        for old, new in zip(found.duplicate.outputs, found.kept.outputs, strict=True):
            if old is None or new is None or not old.is_used:
                continue
            direct = facts.can_forward(old, new)
            edit.forward(old, new if direct else edit.node("Identity", [new]).result)
