"""Concats that begin with the same tensors: the shorter one is a part of the longer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import NoMatch, Rewriter, Rule
from graphopt_passes.concats.segments import concat_axis

# Of a tensor's readers so many are looked at.
MOST_READERS = 64


@dataclass(frozen=True)
class SharedPrefix:
    """`shorter` is a Concat of the first inputs of `longer`."""

    longer: Node
    shorter: Node


class ReuseConcatPrefix(Rule[SharedPrefix]):
    """Concat(a, b, c), where Concat(a, b) is there too, = Concat(Concat(a, b), c).

    Both on one axis in one graph; of several Concats the longest is taken. DenseNet's blocks in their flat spelling:
    each layer's input is the one before and one new tensor, so that no tensor is an input of many Concats.

    Opsets: all. Exact.
    """

    roots = ("Concat",)
    trades = True

    def match(self, node: Node, facts: Facts) -> SharedPrefix | NoMatch:
        axis = concat_axis(node, facts)
        first = node.input(0)
        if axis is None or first is None or len(node.inputs) < 3:
            return NoMatch("its axis is not known, or it has two inputs", node)
        best: Node | None = None
        for reader in islice(first.consumers, MOST_READERS):
            count = len(reader.inputs)
            if reader.op != "Concat" or reader.graph is not node.graph or not 1 < count < len(node.inputs):
                continue
            if reader.inputs != node.inputs[:count] or concat_axis(reader, facts) != axis:
                continue
            if best is None or count > len(best.inputs):
                best = reader
        return SharedPrefix(node, best) if best is not None else NoMatch("no other Concat begins as it does", node)

    def rewrite(self, found: SharedPrefix, edit: Rewriter) -> None:
        rest = found.longer.inputs[len(found.shorter.inputs) :]
        edit.replace(found.longer, edit.like(found.longer, [found.shorter.result, *rest]))
