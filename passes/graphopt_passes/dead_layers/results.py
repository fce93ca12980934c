"""Results of If, Loop and Scan that nothing reads, and carried values that never change."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.graph.copies import Copier, tensors_read
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.dead_layers.bodies import (
    Iteration,
    Kept,
    forwarded,
    iteration,
    may_forward,
    needed,
    origin,
    trimmed,
)


@dataclass(frozen=True)
class Trimming:
    """What an iteration keeps of what it carries, reads and collects."""

    old: Iteration
    kept: Kept


class DropUnreadIterations(Rule[Trimming]):
    """Loop and Scan without the carried and collected values that decide about nothing that is read.

    A carried value is needed when its last value is read, or when in the body the condition, a collected value that is
    read or another needed carried value depends on it, directly or through further iterations. A Scan's element that
    the body no longer reads goes too; one stays, since it tells the number of iterations. Loop 1 on, Scan 9 on. Exact.
    """

    roots = ("Loop", "Scan")

    def match(self, node: Node, facts: Facts) -> Trimming | NoMatch:
        if not any(t is not None and t.is_used for t in node.outputs):
            return NoMatch("nothing reads it at all", node)
        old = iteration(node, facts)
        if old is None:
            return NoMatch("it is not well-formed, or a Scan before opset 9", node)
        live, read = _live(old)
        if len(live) < old.least:
            return NoMatch("a Loop before opset 11 carries a value at least", node)
        first = old.before + old.carried
        elements = tuple(i for i in range(old.elements) if old.body.inputs[first + i] in read)
        collected = tuple(i for i in range(old.collected) if old.is_read(old.carried + i))
        kept = Kept(live, elements or tuple(range(min(1, old.elements))), collected)
        if (len(kept.carried), len(kept.elements), len(kept.collected)) == (old.carried, old.elements, old.collected):
            return NoMatch("all that it carries and collects is needed", node)
        return Trimming(old, kept)

    def rewrite(self, found: Trimming, edit: Rewriter) -> None:
        trimmed(found.old, found.kept, {}, edit)


def _live(old: Iteration) -> tuple[tuple[int, ...], set[Tensor]]:
    """The carried values that are needed, and all tensors that what is needed reads in the body."""
    body = old.body
    place = {old.inside(i): i for i in range(old.carried)}
    stack = list(body.outputs[: old.leading])
    stack += [old.leaving(i) for i in range(old.carried + old.collected) if old.is_read(i)]
    live = {i for i in range(old.carried) if old.is_read(i)}
    read: set[Tensor] = set()
    while stack:
        tensor = stack.pop()
        if tensor in read:
            continue
        read.add(tensor)
        index = place.get(tensor)
        if index is not None and index not in live:
            live.add(index)
            stack.append(old.leaving(index))
        if tensor.graph is body and tensor.producer is not None:
            stack += tensors_read(tensor.producer)
    return tuple(sorted(live)), read


@dataclass(frozen=True)
class Constancy:
    """The carried values that an iteration hands on as they are."""

    old: Iteration
    unchanged: tuple[int, ...]


class DropUnchangedState(Rule[Constancy]):
    """Loop, Scan(s, ...) = s for a carried value s that the body returns as it came in; the body reads s from outside.

    By induction s is the same in every iteration, and after none. Loop 1 on, Scan 9 on. Exact.
    """

    roots = ("Loop", "Scan")

    def match(self, node: Node, facts: Facts) -> Constancy | NoMatch:
        if not any(t is not None and t.is_used for t in node.outputs):
            return NoMatch("nothing reads it at all", node)
        old = iteration(node, facts)
        if old is None:
            return NoMatch("it is not well-formed, or a Scan before opset 9", node)
        unchanged = tuple(i for i in range(old.carried) if _is_unchanged(old, i, facts))
        if old.collected and len(unchanged) == old.carried:
            unchanged = unchanged[old.least :]
        return Constancy(old, unchanged) if unchanged else NoMatch("every carried value may change", node)

    def rewrite(self, found: Constancy, edit: Rewriter) -> None:
        old, unchanged = found.old, set(found.unchanged)
        outputs = [(old.node.output(i), old.entering(i)) for i in found.unchanged]
        given = {old.inside(i): start for i in unchanged if (start := old.entering(i)) is not None}
        carried = tuple(i for i in range(old.carried) if i not in unchanged)
        trimmed(old, Kept(carried, tuple(range(old.elements)), tuple(range(old.collected))), given, edit)
        for result, start in outputs:
            assert start is not None
            forwarded(result, start, edit)


def _is_unchanged(old: Iteration, index: int, facts: Facts) -> bool:
    """Whether the body returns the value as it is, and nowhere else: a body must not return an outer tensor.

    What reads it behind the node must be able to read what it starts with.
    """
    inside, start = old.inside(index), old.entering(index)
    own = {(old.body, old.leading + index)}
    if origin(old.leaving(index)) is not inside or not inside.listings.keys() <= own:
        return False
    return start is not None and may_forward(old.node.output(index), start, facts)


@dataclass(frozen=True)
class Branches:
    """An If and the indices of its outputs that are read."""

    node: Node
    kept: tuple[int, ...]


class DropUnreadBranchResults(Rule[Branches]):
    """If(c) -> (y, unread) = If(c) -> y, both branches without what only the unread result needs. Opset 1 on. Exact."""

    roots = ("If",)

    def match(self, node: Node, facts: Facts) -> Branches | NoMatch:
        kept = tuple(i for i, t in enumerate(node.outputs) if t is not None and t.is_used)
        bodies = [b for bodies in node.bodies.values() for b in bodies]
        if not kept:
            return NoMatch("nothing reads it at all", node)
        if len(bodies) != 2 or any(b.inputs or len(b.outputs) < len(node.outputs) for b in bodies):
            return NoMatch("its branches are not well-formed", node)
        if len(kept) == max(len(b.outputs) for b in bodies):
            return NoMatch("all its outputs are read", node)
        return Branches(node, kept)

    def rewrite(self, found: Branches, edit: Rewriter) -> None:
        node, kept = found.node, found.kept
        made = Node(node.op_type, node.domain, name=node.name, attrs=dict(node.attrs))
        made.position, made.inputs = node.position, node.inputs
        made.outputs = tuple(Tensor(edit.model.fresh_name(f"{node.label}.{i}"), node.owner) for i in kept)
        copier = Copier({}, lambda name: name)
        for name, (body,) in node.bodies.items():
            nodes = needed(body, [body.outputs[i] for i in kept])
            ordered = [n for n in body.sorted_nodes() if n in nodes]
            made.bodies[name] = (copier.body(body, made, [], kept, ordered),)
        edit.replace(node, edit.place(made), kept)
