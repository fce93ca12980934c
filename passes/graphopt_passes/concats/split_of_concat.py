"""Split of a Concat: where borders coincide, tensors go through as they are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.cutting import divide
from graphopt_passes.common.splits import split_axis, split_sizes
from graphopt_passes.concats.segments import concat_axis, length


@dataclass(frozen=True)
class Group:
    """Neighbouring inputs of the Concat that hold the same elements as neighbouring outputs of the Split."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor | None, ...]
    sizes: tuple[int, ...]  # of the outputs

    @property
    def nodes(self) -> int:
        """The number of nodes that make the outputs of the inputs."""
        used = any(t is not None and t.is_used for t in self.outputs)
        return used * ((len(self.inputs) > 1) + (len(self.outputs) > 1))


@dataclass(frozen=True)
class Regrouped:
    """A Split along `axis` of a Concat along the same axis, and the groups between common borders."""

    split: Node
    axis: int
    groups: tuple[Group, ...]


class SplitConcatApart(Rule[Regrouped]):
    """Split(Concat(a, b, c), (|a| + |b|, |c|)) = Concat(a, b), c; with the borders of all inputs it is a, b, c.

    Between two borders that both have, the inputs are wired, joined, split, or both, and only where that leaves fewer
    nodes; the Concat stays for its other readers. The sizes along the axis are known numbers.

    Opsets: all. Exact.
    """

    roots = ("Split",)

    def match(self, node: Node, facts: Facts) -> Regrouped | NoMatch:
        concat = facts.producer(node.input(0), "Concat")
        axis = split_axis(node, facts)
        if concat is None or axis is None or concat_axis(concat, facts) != axis:
            return NoMatch("its input is not a Concat on the same axis", node)
        if not any(t is not None and t.is_used for t in node.outputs):
            return NoMatch("nothing reads it", node)
        sizes = split_sizes(node, axis, facts)
        tensors = [t for t in concat.inputs if t is not None]
        lengths = [length(t, axis) for t in tensors]
        known = [n for n in lengths if n is not None]
        if sizes is None or len(known) != len(concat.inputs) or sum(known) != sum(sizes):
            return NoMatch("the sizes of the parts are not known", node)
        groups = _groups(tensors, known, list(node.outputs), sizes)
        goes = concat.result.sole_consumer is node
        if sum(g.nodes for g in groups) >= 1 + goes:
            return NoMatch("its borders are not those of the Concat's inputs", node)
        if any(not facts.visible(t, node.owner) for t in tensors):
            return NoMatch("an input of the Concat is not seen here", node)
        return Regrouped(node, axis, tuple(groups))

    def rewrite(self, found: Regrouped, edit: Rewriter) -> None:
        facts = Facts(edit.model)
        for group in found.groups:
            if not any(t is not None and t.is_used for t in group.outputs):
                continue
            tensor = group.inputs[0]
            if len(group.inputs) > 1:
                tensor = edit.node("Concat", group.inputs, {"axis": found.axis}).result
            made: tuple[Tensor | None, ...] = (tensor,)
            if len(group.outputs) > 1:
                made = divide(tensor, group.sizes, found.axis, edit).outputs
            for old, new in zip(group.outputs, made, strict=True):
                if old is not None and new is not None and old.is_used:
                    free = facts.can_forward(old, new)
                    edit.forward(old, new if free else edit.node("Identity", [new]).result)


def _groups(
    inputs: list[Tensor], lengths: list[int], outputs: list[Tensor | None], sizes: tuple[int, ...]
) -> list[Group]:
    """Inputs and outputs between the borders that both have, in order."""
    ends, borders = list(accumulate(lengths)), list(accumulate(sizes))
    common = sorted(set(ends) & set(borders))
    groups = []
    low_in = low_out = 0
    for border in common:
        # of several parts that end at one border (empty ones) all belong to the group that ends there
        high_in = max(i for i, e in enumerate(ends) if e == border) + 1
        high_out = max(i for i, e in enumerate(borders) if e == border) + 1
        groups.append(Group(tuple(inputs[low_in:high_in]), tuple(outputs[low_out:high_out]), sizes[low_out:high_out]))
        low_in, low_out = high_in, high_out
    return groups
