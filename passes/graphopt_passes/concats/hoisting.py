"""Operators between a Concat and a Split at the same borders: done on each part, so that both disappear."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.splits import split_axis, split_sizes
from graphopt_passes.concats.segments import concat_axis, length
from graphopt_passes.siblings.followers import POINTWISE

# So many operators between the two are looked through.
MOST_BETWEEN = 4


@dataclass(frozen=True)
class Between:
    """`chain`, in order, leads from the tensors `inputs`, joined, to `split`, which takes them apart again."""

    split: Node
    chain: tuple[Node, ...]
    inputs: tuple[Tensor, ...]


class HoistAboveConcat(Rule[Between]):
    """Split(f(Concat(a, b, ...)), (|a|, |b|, ...)) = f(a), f(b), ...

    f is a chain of point-wise operators of one tensor (their further inputs single constants); nothing else reads the
    Concat or what f makes. The Split's borders are those of the Concat's inputs, all known numbers, on one axis.

    Opsets: all. Exact.
    """

    roots = ("Split",)
    trades = True

    def match(self, node: Node, facts: Facts) -> Between | NoMatch:
        axis = split_axis(node, facts)
        sizes = split_sizes(node, axis, facts) if axis is not None else None
        chain: list[Node] = []
        tensor = node.input(0)
        while len(chain) < MOST_BETWEEN and (step := facts.sole_producer(tensor, *POINTWISE)) is not None:
            if any(t is not None and not _is_single(t, facts) for t in step.inputs[1:]) or len(step.outputs) != 1:
                return NoMatch("an operator between is not point-wise in one tensor", node)
            chain.insert(0, step)
            tensor = step.input(0)
        concat = facts.sole_producer(tensor, "Concat")
        if concat is None or not chain or concat_axis(concat, facts) != axis or axis is None:
            return NoMatch("no Concat leads to it through point-wise operators", node)
        inputs = [t for t in concat.inputs if t is not None]
        if sizes is None or [length(t, axis) for t in inputs] != list(sizes) or None in node.outputs:
            return NoMatch("its borders are not those of the Concat's inputs", node)
        return Between(node, tuple(chain), tuple(inputs))

    def rewrite(self, found: Between, edit: Rewriter) -> None:
        for tensor, output in zip(found.inputs, found.split.outputs, strict=True):
            made = tensor
            for step in found.chain:
                made = edit.like(step, [made, *step.inputs[1:]]).result
            if output is not None and output.is_used:
                edit.forward(output, made)


def _is_single(tensor: Tensor, facts: Facts) -> bool:
    constant = facts.constant(tensor)
    return constant is not None and constant.size == 1
