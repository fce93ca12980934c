"""Loops of a known number of iterations, written out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Graph, Node, Tensor
from graphopt.graph.copies import Copier
from graphopt.pipeline import Context, Pass
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Refused, Rule
from graphopt_passes.common.pure import is_pure
from graphopt_passes.common.types import takes
from graphopt_passes.dead_layers.bodies import Iteration, forwarded, iteration, origin


@dataclass(frozen=True)
class KnownTrips:
    """A Loop that runs `trips` times."""

    old: Iteration
    trips: int


class UnrollLoop(Rule[KnownTrips]):
    """Loop(k, true, v) with constant k = its body k times, the i-th with i as its number and v from the one before.

    A collected value is Concat(Unsqueeze(t_0), ..., Unsqueeze(t_k-1)) along a new first axis. Only where the body
    returns its condition as it came in, or true: then k alone decides. Up to `trips` iterations of up to `nodes` nodes
    together; a body with random operators not, since a seed would start anew in each copy; none where a
    collected value is read not, since its shape is not known. Nor where the body declares its iteration number or its
    condition as anything but a scalar: runtimes make them of the declared rank. Opset 7 on. Exact.
    """

    roots = ("Loop",)

    def __init__(self, trips: int = 16, nodes: int = 512) -> None:
        self.trips, self.nodes = trips, nodes

    def match(self, node: Node, facts: Facts) -> KnownTrips | NoMatch:
        old = iteration(node, facts)
        if old is None or facts.opset(node) < 7:
            return NoMatch("it is not well-formed, or before opset 7", node)
        trips = _trips(old, facts)
        if trips is None:
            return NoMatch("how often it runs is known at run time only", node)
        if not any(t is not None and t.is_used for t in node.outputs):
            return NoMatch("nothing reads it at all", node)
        inner = [n for g in (old.body, *old.body.bodies()) for n in g.nodes]
        if trips > self.trips or trips * len(inner) > self.nodes:
            return self._too_large(node)
        if trips == 0 and any(old.is_read(old.carried + i) for i in range(old.collected)):
            return NoMatch("it collects nothing, of a shape that is not known", node)
        collected = [t for t in node.outputs[old.carried :] if t is not None and t.is_used and t.dtype is not None]
        if not all(takes("Concat", facts.opset(node), t.dtype) for t in collected):
            return Refused("it collects values of a type that cannot be put together", node)
        if trips > 0 and not all(n.bodies or is_pure(n, facts) for n in inner):
            return Refused("its body may be random or keep a state", node)
        if trips > 0 and not all(_is_scalar(t) for t in old.body.inputs[:2]):
            return Refused("its body declares its iteration number or condition as no scalar", node)
        return KnownTrips(old, trips)

    def _too_large(self, node: Node) -> NoMatch:
        return Refused(f"it is longer than {self.trips} iterations or {self.nodes} nodes written out", node)

    def rewrite(self, found: KnownTrips, edit: Rewriter) -> None:
        old, graph = found.old, found.old.node.owner
        carried = [_present(old.entering(i)) for i in range(old.carried)]
        collected: list[list[Tensor]] = [[] for _ in range(old.collected)]
        copier = Copier({}, edit.model.fresh_name)
        for constant in old.body.initializers:
            edit.place_constant(copier.tensor(constant, graph))
        truth = edit.constant(np.array(True), f"{old.node.label}.condition")
        for trip in range(found.trips):
            copier.mapping[old.body.inputs[0]] = edit.constant(np.array(trip, np.int64), f"{old.node.label}.{trip}")
            copier.mapping[old.body.inputs[1]] = truth
            copier.mapping |= {old.inside(i): value for i, value in enumerate(carried)}
            _write_out(old, trip, graph, copier, edit)
            carried = [copier.read(old.leaving(i)) for i in range(old.carried)]
            for i, values in enumerate(collected):
                values.append(copier.read(old.leaving(old.carried + i)))
        for i, value in enumerate(carried):
            forwarded(old.node.output(i), value, edit)
        for i, values in enumerate(collected):
            if old.is_read(old.carried + i):
                forwarded(old.node.output(old.carried + i), _stacked(values, old.node, edit), edit)


class InlineSingleIteration(UnrollLoop):
    """Loop(1, true, v) = its body once; Loop(0, true, v) = v. As `unroll-loop`; the graph does not grow by it."""

    def __init__(self) -> None:
        super().__init__(trips=1, nodes=1 << 16)

    def _too_large(self, node: Node) -> NoMatch:
        return NoMatch("it runs more than once", node)


def _trips(old: Iteration, facts: Facts) -> int | None:
    """How often the Loop runs; None when that is not known."""
    most, start = old.node.input(0), old.node.input(1)
    count = None if most is None else facts.scalar(most)
    goes = True if start is None else facts.scalar(start)
    if goes is not None and not goes:
        return 0
    following = origin(old.body.outputs[0])
    keeps_going = following is old.body.inputs[1] or facts.scalar(following) is True
    if count is None or goes is None or not keeps_going:
        return None
    return max(0, int(count))


def _is_scalar(tensor: Tensor) -> bool:
    """Whether the body's input is declared as []; also where nothing is said of its shape, or nothing reads it."""
    declared = tensor.info.type.tensor_type if tensor.info is not None else None
    return declared is None or not declared.HasField("shape") or not declared.shape.dim or not tensor.is_used


def _write_out(old: Iteration, trip: int, graph: Graph, copier: Copier, edit: Rewriter) -> None:
    """One copy of the body's nodes, in the place of the Loop."""
    for node in old.body.sorted_nodes():
        copy = copier.node(node, graph)
        copy.position = old.node.position
        copy.name = f"{old.node.label}/{trip}/{node.name}" if node.name else ""
        edit.place(copy)


def _stacked(values: list[Tensor], loop: Node, edit: Rewriter) -> Tensor:
    """The values along a new first axis."""
    if loop.owner.opset < 13:
        rows = [edit.node("Unsqueeze", [value], {"axes": (0,)}).result for value in values]
    else:
        axes = edit.constant(np.array([0], np.int64), f"{loop.label}.axes")
        rows = [edit.node("Unsqueeze", [value, axes]).result for value in values]
    return rows[0] if len(rows) == 1 else edit.node("Concat", rows, {"axis": 0}).result


def _present(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


@dataclass(frozen=True)
class UnrollLoops(Pass):
    """Writes out Loops of a known number of iterations: at most `trips`, and `nodes` nodes written out."""

    name: ClassVar[str] = "unroll-loops"
    rules = (UnrollLoop(),)

    trips: int = 16
    nodes: int = 512

    def run(self, context: Context) -> str | None:
        return context.run_rules([UnrollLoop(self.trips, self.nodes)])
