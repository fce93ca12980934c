"""Parts of one tensor that meet again in a Concat, in their order."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import INT64_MAX
from graphopt_passes.common.cutting import cut
from graphopt_passes.concats.segments import Segment, concat_axis, hull, joined, segment


@dataclass(frozen=True)
class Coalesced:
    """A Concat along `axis`, and fewer parts that give the same result: tensors as they are, or cut out anew."""

    concat: Node
    axis: int
    parts: tuple[Tensor | Segment, ...]


class CoalesceParts(Rule[Coalesced]):
    """Concat(..., x[a:b], x[b:c], ...) = Concat(..., x[a:c], ...), and = x where it is all of x alone.

    The parts are outputs of a Split (sizes as attribute, input, or equal parts; all outputs in order need no sizes) or
    Slices of one axis with step 1, on the Concat's axis. Where the joined part is not all of x, it is cut out by one
    Slice if that leaves fewer nodes: if the parts were Slices that nothing else reads.

    Opsets: all. Exact.
    """

    roots = ("Concat",)

    def match(self, node: Node, facts: Facts) -> Coalesced | NoMatch:
        axis = concat_axis(node, facts)
        tensors = [t for t in node.inputs if t is not None]
        if axis is None or len(tensors) != len(node.inputs):
            return NoMatch("its axis is not known", node)
        runs = joined([segment(t, axis, facts) for t in tensors], axis)
        if len(runs) == len(tensors):
            return NoMatch("no part continues the one before", node)
        parts: list[Tensor | Segment] = []
        position = 0
        for run in runs:
            own = tensors[position : position + len(run)]
            position += len(run)
            parts += _joined(run, own, node, facts)
        if len(parts) == len(tensors):
            return NoMatch("its parts are read elsewhere too, or their borders are not known", node)
        return Coalesced(node, axis, tuple(parts))

    def rewrite(self, found: Coalesced, edit: Rewriter) -> None:
        tensors = [_made(p, found.axis, edit) for p in found.parts]
        concat = found.concat
        if len(tensors) > 1:
            edit.replace(concat, edit.like(concat, tensors))
        else:
            put_tensor(concat, tensors[0], edit)


def _joined(run: list[Segment], own: list[Tensor], concat: Node, facts: Facts) -> list[Tensor | Segment]:
    """What stands for a run of parts: the source, one cut, or the parts as they are."""
    whole = hull(run)
    if len(run) == 1:
        return list(own)
    if whole.is_whole and facts.visible(whole.source, concat.owner):
        return [whole.source]
    loose = all(t.sole_consumer is concat and t.producer is not None and t.producer.op == "Slice" for t in own)
    return [whole] if whole.is_known and loose else list(own)


def _made(part: Tensor | Segment, axis: int, edit: Rewriter) -> Tensor:
    return part if isinstance(part, Tensor) else cut_out(part, axis, edit)


def cut_out(part: Segment, axis: int, edit: Rewriter) -> Tensor:
    """A part with known borders, by a Slice of its own."""
    assert isinstance(part.start, int)
    stop = part.stop if isinstance(part.stop, int) else INT64_MAX
    return cut(part.source, axis, part.start, stop, edit).result


def put_tensor(node: Node, tensor: Tensor, edit: Rewriter) -> None:
    """Makes `tensor` stand for the one output of `node`; an Identity stays where a graph output needs its own node."""
    if Facts(edit.model).can_forward(node.result, tensor):
        edit.forward(node.result, tensor)
    else:
        edit.replace(node, edit.node("Identity", [tensor]))
