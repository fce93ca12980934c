"""Reductions of a Concat over other axes: reduce first, concatenate little."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt.targets import Target
from graphopt_passes.common.arguments import ints_argument, normalized_axes
from graphopt_passes.concats.segments import concat_axis

POOLS = ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)


@dataclass(frozen=True)
class ReducedConcat:
    """A reduction of a Concat's result; `axis` is that of the Concat once the inputs are reduced."""

    reduction: Node
    concat: Node
    axis: int


class ReduceBeforeConcat(Rule[ReducedConcat]):
    """Reduce(Concat(a, b, ...; i); axes) = Concat(Reduce(a; axes), Reduce(b; axes), ...; i'), i not among the axes.

    Reduce is any ReduceX with constant axes, or a global pool (then i is 0 or 1). i' is i, less the axes before it
    that the reduction takes out (`keepdims` 0). Nothing else reads the Concat.

    Not for TensorRT, which fuses the Concat into the reduction: more reductions are only more kernels there (18 become
    20 in a small net, TensorRT-RTX 1.7). Opsets: all. Exactness: reassociates (each number is reduced from the same
    ones, but a runtime may choose another order for another size).
    """

    roots = (*POOLS, *REDUCTIONS)
    exactness = Exactness.REASSOCIATES
    trades = True

    def match(self, node: Node, facts: Facts) -> ReducedConcat | NoMatch:
        concat = facts.sole_producer(node.input(0), "Concat")
        axis = concat_axis(concat, facts) if concat is not None else None
        rank = facts.rank(node.input(0))
        if concat is None or axis is None or rank is None:
            return NoMatch("its input is not a Concat that feeds it alone", node)
        if facts.target is Target.TENSORRT:
            return NoMatch("TensorRT reads the parts of a Concat within the reduction's kernel", node)
        if node.op in POOLS:
            return ReducedConcat(node, concat, axis) if axis < 2 else NoMatch("it pools along the Concat's axis", node)
        given = ints_argument(node, facts, "axes", 1)
        axes = normalized_axes(given.values, rank) if given is not None and given.values else None
        if axes is None or axis in axes:
            return NoMatch("its axes are not known, or the Concat's is among them", node)
        gone = 0 if node.int_attr("keepdims", 1) else sum(a < axis for a in axes)
        return ReducedConcat(node, concat, axis - gone)

    def rewrite(self, found: ReducedConcat, edit: Rewriter) -> None:
        node = found.reduction
        parts = [edit.like(node, [t, *node.inputs[1:]]).result for t in found.concat.inputs]
        edit.replace(node, edit.like(found.concat, parts, axis=found.axis))
