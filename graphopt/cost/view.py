"""The graph around a node as it is, or as it was before a rewrite: what it costs depends on who makes and reads."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from graphopt.change import Change
from graphopt.graph import Node, Tensor

# Of a tensor that many nodes read, this many are looked at.
MOST_READERS = 16


class View(Protocol):
    """Who makes a tensor and who reads it, at one moment."""

    def outputs(self, node: Node) -> tuple[Tensor | None, ...]:
        """What `node` made at that moment."""

    def producer(self, tensor: Tensor) -> Node | None:
        """The node that made `tensor` at that moment."""

    def readers(self, tensor: Tensor) -> list[Node]:
        """The nodes that read `tensor` at that moment, `MOST_READERS` of them at most."""


class Now:
    """The graph as it is."""

    def outputs(self, node: Node) -> tuple[Tensor | None, ...]:
        """The node's outputs."""
        return node.outputs

    def producer(self, tensor: Tensor) -> Node | None:
        """The tensor's producer."""
        return tensor.producer

    def readers(self, tensor: Tensor) -> list[Node]:
        """The tensor's first consumers."""
        return list(islice(tensor.consumers, MOST_READERS))


class Before:
    """The graph as it was before `change`: its consumed nodes are there, its new ones are not."""

    def __init__(self, change: Change) -> None:
        self._outputs = dict(zip(change.consumed, change.consumed_outputs, strict=True))
        self._producers = {t: n for n, outputs in self._outputs.items() for t in outputs if t is not None}
        self._made = set(change.made)
        self._replaced = change.replaced
        # nodes that stayed may read the new tensor of an old one by now
        self._former = {new: old for old, new in change.replaced.items()}
        self._readers: dict[Tensor, dict[Node, None]] = {}
        for node in change.consumed:
            for tensor in _present(node.inputs):
                self._readers.setdefault(tensor, {})[node] = None

    def outputs(self, node: Node) -> tuple[Tensor | None, ...]:
        """What the node made before its tensors moved."""
        return self._outputs.get(node, node.outputs)

    def producer(self, tensor: Tensor) -> Node | None:
        """The consumed node that made the tensor, else its producer."""
        former = self._former.get(tensor, tensor)
        return self._producers.get(former, former.producer)

    def readers(self, tensor: Tensor) -> list[Node]:
        """The consumed nodes that read the tensor, and those that still read what stands for it."""
        former = self._former.get(tensor, tensor)
        kept = self._replaced.get(former, former).consumers
        now = [n for n in islice(kept, MOST_READERS) if n not in self._made]
        return list(dict.fromkeys((*self._readers.get(former, ()), *now)))[:MOST_READERS]


def _present(tensors: Iterable[Tensor | None]) -> list[Tensor]:
    return [t for t in tensors if t is not None]
