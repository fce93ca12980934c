"""Concats of concats, and inputs that bring nothing."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import NoMatch, Rewriter, Rule
from graphopt_passes.concats.segments import concat_axis, length


@dataclass(frozen=True)
class Inputs:
    """A Concat and the inputs that give the same result."""

    concat: Node
    inputs: tuple[Tensor, ...]


def _put(found: Inputs, edit: Rewriter) -> None:
    edit.replace(found.concat, edit.like(found.concat, found.inputs))


class FlattenConcats(Rule[Inputs]):
    """Concat(..., Concat(a, b, axis), ..., axis) = Concat(..., a, b, ..., axis).

    The axes are the same once they are counted from the front, and nothing but the outer Concat reads the inner one.
    Opset 1 on. Exact.
    """

    roots = ("Concat",)

    def match(self, node: Node, facts: Facts) -> Inputs | NoMatch:
        axis = concat_axis(node, facts)
        if axis is None:
            return NoMatch("its axis is not known", node)
        inputs: list[Tensor] = []
        nested = False
        for tensor in node.inputs:
            if tensor is None:
                return NoMatch("it lacks an input", node)
            inner = facts.producer(tensor, "Concat")
            if inner is None or not _feeds_only(tensor, node) or concat_axis(inner, facts) != axis:
                inputs.append(tensor)
            else:
                nested = True
                inputs += [t for t in inner.inputs if t is not None]
        return Inputs(node, tuple(inputs)) if nested else NoMatch("no Concat on its axis feeds it alone", node)

    def rewrite(self, found: Inputs, edit: Rewriter) -> None:
        _put(found, edit)


def _feeds_only(tensor: Tensor, reader: Node) -> bool:
    """Whether `reader`, of the tensor's own graph, is all that reads it, once or several times."""
    return (
        not tensor.listings and len(tensor.consumers) == 1 and reader in tensor.consumers and _is_local(tensor, reader)
    )


def _is_local(tensor: Tensor, reader: Node) -> bool:
    return reader.graph is tensor.graph


class DropEmptyParts(Rule[Inputs]):
    """Concat(a, e, b) = Concat(a, b), where e has no elements along the axis.

    Opset 1 on. Exact.
    """

    roots = ("Concat",)

    def match(self, node: Node, facts: Facts) -> Inputs | NoMatch:
        axis = concat_axis(node, facts)
        if axis is None or None in node.inputs:
            return NoMatch("its axis is not known", node)
        inputs = [t for t in node.inputs if t is not None]
        kept = [t for t in inputs if length(t, axis) != 0] or inputs[:1]
        if len(kept) == len(inputs):
            return NoMatch("no input is empty", node)
        return Inputs(node, tuple(kept))

    def rewrite(self, found: Inputs, edit: Rewriter) -> None:
        _put(found, edit)
