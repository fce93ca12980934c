"""Transposes of transposes, and transposes that move no data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Refused, Rule
from graphopt_passes.common.arguments import permutation
from graphopt_passes.common.copying import can_copy
from graphopt_passes.common.shapes import reshape_target
from graphopt_passes.common.types import is_narrow

Perm = tuple[int, ...]


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes `perm`."""
    result = [0] * len(perm)
    for i, p in enumerate(perm):
        result[p] = i
    return tuple(result)


@dataclass(frozen=True)
class Composition:
    """`outer` permutes what another Transpose made of `source`: together `perm`."""

    outer: Node
    source: Tensor
    perm: Perm


class ComposeTransposes(Rule[Composition]):
    """Transpose(Transpose(x, p), q) = Transpose(x, r), r[i] = p[q[i]]; where r is the identity, a copy of x.

    Output dimension i is the inner result's q[i], which is x's p[q[i]]. The inner Transpose may have other readers.
    Opset 1 on. Exact.
    """

    roots = ("Transpose",)

    def match(self, node: Node, facts: Facts) -> Composition | NoMatch:
        inner = facts.producer(node.input(0), "Transpose")
        if inner is None:
            return NoMatch("its input is not a Transpose", node)
        p, q = permutation(inner, facts), permutation(node, facts)
        source = inner.input(0)
        if p is None or q is None or len(p) != len(q) or source is None:
            return NoMatch("a permutation is unknown", node)
        perm = tuple(p[i] for i in q)
        is_copy = perm == tuple(range(len(perm))) and not facts.can_forward(node.result, source)
        if is_copy and not can_copy(node.result, source, facts.opset(node)):
            return Refused("its input and its output must both keep their names, and no Identity copies the type", node)
        return Composition(node, source, perm)

    def rewrite(self, found: Composition, edit: Rewriter) -> None:
        outer, source = found.outer, found.source
        if found.perm != tuple(range(len(found.perm))):
            edit.replace(outer, edit.like(outer, [source], perm=found.perm))
        elif Facts(edit.model).can_forward(outer.result, source):
            edit.forward(outer.result, source)
        else:
            edit.replace(outer, edit.node("Identity", [source], name=outer.name))


@dataclass(frozen=True)
class Relabelling:
    """A Transpose that a Reshape to `target` does as well."""

    node: Node
    target: tuple[int, ...]


class TransposeOfOnesToReshape(Rule[Relabelling]):
    """Transpose(x, p) = Reshape(x, s) where p keeps the order of all dimensions of x that are not 1.

    s is the shape of the result; at most one dimension of it is unknown, or the unknown ones stay in place. A Reshape
    moves no data and merges with its neighbours. Opset 5 on. Exact.
    """

    roots = ("Transpose",)

    def match(self, node: Node, facts: Facts) -> Relabelling | NoMatch:
        x = node.input(0)
        perm = permutation(node, facts)
        if x is None or x.shape is None or perm is None or len(perm) != len(x.shape):
            return NoMatch("the shape is unknown", node)
        if facts.opset(node) < 5:
            return NoMatch("Reshape takes its shape as an input from opset 5 on", node)
        moving = [p for p in perm if x.shape[p] != 1]
        if moving != sorted(moving):
            return NoMatch("it moves data", node)
        if perm == tuple(range(len(perm))):
            return NoMatch("it moves nothing at all", node)
        if is_narrow(x.dtype):
            return NoMatch("runtimes transpose numbers of 4 bits, and do not reshape them", node)
        target = reshape_target(x.shape, tuple(x.shape[p] for p in perm))
        return NoMatch("the shape cannot be written down", node) if target is None else Relabelling(node, target)

    def rewrite(self, found: Relabelling, edit: Rewriter) -> None:
        shape = edit.constant(np.asarray(found.target, np.int64), f"{found.node.label}.shape")
        made = edit.node("Reshape", [found.node.input(0), shape], name=found.node.name)
        edit.replace(found.node, made)
