"""Parts of one tensor that meet in a Concat in another order: one Gather."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.concats.segments import END, concat_axis, length, segment

# Indices are written into the model: an axis longer than this is no axis of channels.
MOST_INDICES = 1 << 13


@dataclass(frozen=True)
class Permuted:
    """The Concat takes the positions `indices` of `source` along `axis`."""

    concat: Node
    source: Tensor
    axis: int
    indices: tuple[int, ...]


class PermutedPartsToGather(Rule[Permuted]):
    """Concat(x[b:c], x[a:b], ...) = Gather(x, (b, ..., c - 1, a, ..., b - 1, ...)).

    All inputs are parts of one tensor along the Concat's axis, made by Splits and Slices that nothing else reads; the
    same part may come several times, parts may overlap. Borders and x's size are known numbers. Opsets: all. Exact.
    """

    roots = ("Concat",)
    trades = True

    def match(self, node: Node, facts: Facts) -> Permuted | NoMatch:
        axis = concat_axis(node, facts)
        if axis is None or len(node.inputs) < 2:
            return NoMatch("its axis is not known, or it has one input", node)
        indices: list[int] = []
        sources: dict[Tensor, None] = {}
        for tensor in node.inputs:
            if tensor is None or tensor.listings or any(c is not node for c in tensor.consumers):
                return NoMatch("a part is read elsewhere too", node)
            part = segment(tensor, axis, facts)
            size = length(part.source, axis)
            stop = size if part.stop == END else part.stop
            # numbers on an axis of unknown size are clamped to it, which indices are not
            if not part.makers or size is None or not isinstance(part.start, int) or not isinstance(stop, int):
                return NoMatch("an input is no part of a tensor with known borders", node)
            sources[part.source] = None
            indices += range(part.start, stop)
            if len(sources) > 1 or len(indices) > MOST_INDICES:
                return NoMatch("its inputs are parts of several tensors, or of a long axis", node)
        (source,) = sources
        if source.dtype in (None, TensorProto.STRING):
            return NoMatch("strings are not gathered: runtimes differ", node)
        if not facts.visible(source, node.owner):
            return NoMatch("the tensor is not seen here", node)
        return Permuted(node, source, axis, tuple(indices))

    def rewrite(self, found: Permuted, edit: Rewriter) -> None:
        indices = edit.constant(np.array(found.indices, np.int64), f"{found.concat.label}.indices")
        edit.replace(found.concat, edit.node("Gather", [found.source, indices], {"axis": found.axis}))
