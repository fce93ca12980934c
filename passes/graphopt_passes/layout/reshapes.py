"""Chains of operators that only give the elements another shape: Reshape, Flatten, Squeeze, Unsqueeze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import ints_argument
from graphopt_passes.common.shapes import reshape_target

RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Chain:
    """`outer` reshapes what another reshape made of `source`; `target` is the whole, None where it is `source`."""

    outer: Node
    source: Tensor
    target: tuple[int, ...] | None


class ComposeReshapes(Rule[Chain]):
    """A reshape of a reshape of x = Reshape(x, s), s the last shape; a copy of x where s is x's shape.

    s must be known as a constant: at most one dimension unknown, or the unknown ones those of x at the same place. The
    inner node is read by the outer alone, unless the whole is a copy. Opset 5 on. Exact.
    """

    roots = RESHAPES

    def match(self, node: Node, facts: Facts) -> Chain | NoMatch:
        inner = facts.producer(node.input(0), *RESHAPES)
        source = inner.input(0) if inner is not None else None
        if inner is None or source is None:
            return NoMatch("its input is no reshape", node)
        if facts.opset(node) < 5:
            return NoMatch("Reshape takes its shape as an input from opset 5 on", node)
        if facts.same_shape(source, node.result) or _undoes(node, inner, facts):
            return Chain(node, source, None)
        if facts.sole_producer(node.input(0), *RESHAPES) is None:
            return NoMatch("the inner reshape has other readers", node)
        target = reshape_target(source.shape, node.result.shape) or _own_target(node, inner, source, facts)
        return NoMatch("the last shape is not known", node) if target is None else Chain(node, source, target)

    def rewrite(self, found: Chain, edit: Rewriter) -> None:
        outer, source = found.outer, found.source
        if found.target is not None:
            shape = edit.constant(np.asarray(found.target, np.int64), f"{outer.label}.shape")
            edit.replace(outer, edit.node("Reshape", [source, shape], name=outer.name))
        elif Facts(edit.model).can_forward(outer.result, source):
            edit.forward(outer.result, source)
        else:
            edit.replace(outer, edit.node("Identity", [source], name=outer.name))


def _undoes(outer: Node, inner: Node, facts: Facts) -> bool:
    """Whether a Squeeze takes out what an Unsqueeze put in, told by the axes alone, of whatever shape."""
    if (inner.op, outer.op) != ("Unsqueeze", "Squeeze"):
        return False
    inserted, removed = ints_argument(inner, facts, "axes", 1), ints_argument(outer, facts, "axes", 1)
    if inserted is None or removed is None or not inserted.values or not removed.values:
        return False
    # axes of both count in the same tensor; negative ones of the two are the same only if all are
    return sorted(inserted.values) == sorted(removed.values)


def _own_target(outer: Node, inner: Node, source: Tensor, facts: Facts) -> tuple[int, ...] | None:
    """The outer Reshape's constant target, right for `source` too: each 0 copies what is known, or the same dimension.

    Keeps the outer's own −1, so that it asks no more of the shapes than before.
    """
    middle = inner.result.shape
    target = facts.ints(outer.input(1)) if outer.op == "Reshape" else None
    if target is None or outer.int_attr("allowzero", 0) != 0:
        return None
    result: list[int] = []
    for i, t in enumerate(target):
        copied = middle[i] if t == 0 and middle is not None and i < len(middle) else None
        if t != 0:
            result.append(t)
        elif isinstance(copied, int) and copied > 0:
            result.append(copied)
        elif copied is not None and source.shape is not None and i < len(source.shape) and source.shape[i] == copied:
            result.append(0)
        else:
            return None
    return tuple(result)


@dataclass(frozen=True)
class SameKind:
    """An Unsqueeze of an Unsqueeze, or a Squeeze of a Squeeze, of `source`: together on `axes`."""

    outer: Node
    source: Tensor
    axes: tuple[int, ...]


class ComposeUnsqueezes(Rule[SameKind]):
    """Unsqueeze(Unsqueeze(x, a), b) = Unsqueeze(x, c), Squeeze(Squeeze(x, a), b) = Squeeze(x, c), of any shape.

    Axes are counted in the Unsqueeze's result and in the Squeeze's input. All are constant and not negative. The inner
    node is read by the outer alone. Opset 1 on, in the form of the opset. Exact.
    """

    roots = ("Squeeze", "Unsqueeze")

    def match(self, node: Node, facts: Facts) -> SameKind | NoMatch:
        inner = facts.sole_producer(node.input(0), node.op)
        source = inner.input(0) if inner is not None else None
        if inner is None or source is None:
            return NoMatch("its input is not the same operator, read by it alone", node)
        first, second = ints_argument(inner, facts, "axes", 1), ints_argument(node, facts, "axes", 1)
        if first is None or second is None or not first.values or not second.values:
            return NoMatch("the axes are not known", node)
        if min(*first.values, *second.values) < 0:
            return NoMatch("an axis counts from the back of an unknown rank", node)
        merge = _merged_insertions if node.op == "Unsqueeze" else _merged_removals
        return SameKind(node, source, merge(first.values, second.values))

    def rewrite(self, found: SameKind, edit: Rewriter) -> None:
        outer = found.outer
        if outer.input(1) is None:
            made = edit.like(outer, [found.source], axes=found.axes)
        else:
            axes = edit.constant(np.asarray(found.axes, np.int64), f"{outer.label}.axes")
            made = edit.like(outer, [found.source, axes])
        edit.replace(outer, made)


def _merged_insertions(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of the final result that either insertion made: the second's, and the first's where they have moved to."""
    result = set(second)
    for axis in sorted(first):
        # the axis-th dimension of the middle tensor is the axis-th of the final ones that `second` did not insert
        place, seen = 0, -1
        while True:
            seen += place not in second
            if seen == axis:
                break
            place += 1
        result.add(place)
    return tuple(sorted(result))


def _merged_removals(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of the first input that either removal took out: the same question, read backwards."""
    return _merged_insertions(second, first)
