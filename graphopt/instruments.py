"""Instruments: clients of one before/after protocol around each pass. They look and never change the graph."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from graphopt.graph import Graph, Model, Node
from graphopt.save import save

if TYPE_CHECKING:
    from graphopt.change import Application


@dataclass
class PassRecord:
    """What one pass did. `stop` is the driver's stop reason."""

    number: int
    text: str
    nodes_before: int
    nodes_after: int = 0
    seconds: float = 0.0
    stop: str = ""
    applications: list[Application] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """How often each rule was applied."""
        return Counter(a.rule for a in self.applications)


class Instrument(Protocol):
    """Sees every pass."""

    def before(self, record: PassRecord, model: Model) -> None:
        """Called when the pass is about to run."""

    def after(self, record: PassRecord, model: Model) -> None:
        """Called when the pass has run."""


class Timer:
    """Notes the seconds that each pass took."""

    def __init__(self) -> None:
        self._started: list[float] = []

    def before(self, record: PassRecord, model: Model) -> None:
        """Starts the clock."""
        self._started.append(time.perf_counter())

    def after(self, record: PassRecord, model: Model) -> None:
        """Stops the clock."""
        record.seconds = time.perf_counter() - self._started.pop()


class Dumper:
    """Writes the model after each pass that changed it: `01-clean-up.onnx` and so on, into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def before(self, record: PassRecord, model: Model) -> None:
        """Makes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def after(self, record: PassRecord, model: Model) -> None:
        """Writes the model when the pass changed it."""
        if record.applications:
            name = record.text.partition("{")[0]
            save(model, self.folder / f"{record.number:02d}-{name}.onnx")


class StructureError(AssertionError):
    """A pass left the graph in a state that no graph may have: a bug of graphopt."""


class StructureChecker:
    """Checks the invariants of every graph after each pass: unique names, both-way links, an unchanged interface."""

    def __init__(self) -> None:
        self._interface: tuple[list[str], list[str]] | None = None

    def before(self, record: PassRecord, model: Model) -> None:
        """Remembers the interface that the model came with."""
        if self._interface is None:
            self._interface = _interface(model)

    def after(self, record: PassRecord, model: Model) -> None:
        """Raises StructureError, naming the pass, when an invariant is broken."""
        problem = next((p for graph in model.graphs() for p in _problems(graph)), None)
        if problem is None and _interface(model) != self._interface:
            problem = f"the interface changed from {self._interface} to {_interface(model)}"
        if problem is not None:
            raise StructureError(f"after pass '{record.text}': {problem}")


def _interface(model: Model) -> tuple[list[str], list[str]]:
    return [t.name for t in model.graph.inputs], [t.name for t in model.graph.outputs]


def _problems(graph: Graph) -> list[str]:
    """Every broken invariant of one graph, as sentences."""
    problems = []
    defined = [*graph.inputs, *graph.initializers, *(t for n in graph.nodes for t in n.outputs if t is not None)]
    twice = [name for name, times in Counter(t.name for t in defined).items() if times > 1]
    problems += [f"tensor '{name}' is made twice" for name in twice]
    for node in graph.nodes:
        problems += _node_problems(node, graph)
    for index, tensor in enumerate(graph.outputs):
        if (graph, index) not in tensor.listings:
            problems.append(f"output '{tensor.name}' does not know that it is one")
        if tensor.graph is graph and tensor not in graph.inputs and tensor.producer is None and tensor.constant is None:
            problems.append(f"nothing makes output '{tensor.name}'")
    graph.sorted_nodes()
    return problems


def _node_problems(node: Node, graph: Graph) -> list[str]:
    problems = []
    if node.graph is not graph:
        problems.append(f"node '{node.label}' is listed in a graph that it does not belong to")
    strays = [t for t in node.outputs if t is not None and (t.producer is not node or t.graph is not graph)]
    problems += [f"tensor '{t.name}' does not know its producer '{node.label}'" for t in strays]
    for tensor, times in Counter(t for t in node.inputs if t is not None).items():
        if tensor.consumers.get(node) != times:
            problems.append(f"tensor '{tensor.name}' miscounts its consumer '{node.label}'")
        made = tensor.producer is not None or tensor.is_input or tensor in tensor.graph.initializers
        if not made or not graph.is_inside(tensor.graph):
            problems.append(f"node '{node.label}' reads '{tensor.name}', which is not there")
    return problems
