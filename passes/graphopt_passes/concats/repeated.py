"""A Concat of one tensor several times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.concats.segments import concat_axis


@dataclass(frozen=True)
class Repeated:
    """`concat` takes `source` several times along an axis; `repeats` counts for each axis."""

    concat: Node
    source: Tensor
    repeats: tuple[int, ...]


class RepeatedPartsToTile(Rule[Repeated]):
    """Concat(x, x, x; axis) = Tile(x, (1, ..., 3, ..., 1)).

    Opset 6 on (Tile-1 has other inputs). Exact.
    """

    roots = ("Concat",)
    trades = True

    def match(self, node: Node, facts: Facts) -> Repeated | NoMatch:
        axis, source = concat_axis(node, facts), node.input(0)
        rank = facts.rank(node.output(0))
        if axis is None or rank is None or source is None or facts.opset(node) < 6:
            return NoMatch("its axis is not known", node)
        if len(node.inputs) < 2 or any(t is not source for t in node.inputs):
            return NoMatch("its inputs are several tensors", node)
        if source.dtype == TensorProto.BFLOAT16:
            return NoMatch("ONNX Runtime has no Tile of bfloat16", node)
        return Repeated(node, source, tuple(len(node.inputs) if a == axis else 1 for a in range(rank)))

    def rewrite(self, found: Repeated, edit: Rewriter) -> None:
        repeats = edit.constant(np.array(found.repeats, np.int64), f"{found.concat.label}.repeats")
        edit.replace(found.concat, edit.node("Tile", [found.source, repeats]))
