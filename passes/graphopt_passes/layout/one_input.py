"""Transposes sink below operators with one input that name axes: the axes are renamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.layout.sinking import pays, transposed_input
from graphopt_passes.layout.transposes import Perm


@dataclass(frozen=True)
class OneInput:
    """`node` reads Transpose(`source`, `perm`) as its first input; on `source` it works along `axes`."""

    node: Node
    source: Tensor
    perm: Perm
    axes: tuple[int, ...]


class BelowOneInput(Rule[OneInput]):
    """What the rules for operators with one transposed input share."""

    def match(self, node: Node, facts: Facts) -> OneInput | NoMatch:
        found = transposed_input(node.input(0), facts)
        if found is None or node.inputs[0] is None:
            return NoMatch("its input is not a Transpose", node)
        source, perm = found
        axes = self.axes(node, len(perm), facts)
        if isinstance(axes, NoMatch):
            return axes
        if not pays(node, {node.inputs[0]}, facts):
            return NoMatch("the Transpose before it has other readers", node)
        return OneInput(node, source, perm, tuple(perm[a] for a in axes))

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        """The axes of the transposed tensor along which `node` works, counted from the front, or why not."""
        raise NotImplementedError


def with_ints(node: Node, source: Tensor, attribute: str, index: int, values: tuple[int, ...], edit: Rewriter) -> Node:
    """`node` with `source` as first input and other integers for an argument, in the form that the node uses."""
    if len(node.inputs) < 2 and (attribute in node.attrs or _has_attributes_only(node)):
        changed: dict[str, Any] = {attribute: values}
        return edit.like(node, [source], **changed)
    inputs = [source, *node.inputs[1:]]
    inputs += [None] * (index + 1 - len(inputs))
    # a Slice's arguments have one type, int32 or int64; the other operators take int64 alone
    first = node.input(1)
    kind = numpy_dtype(first.dtype) if first is not None and first.dtype is not None else np.dtype(np.int64)
    inputs[index] = edit.constant(np.asarray(values, kind), f"{node.label}.{attribute}")
    return edit.like(node, inputs)


def _has_attributes_only(node: Node) -> bool:
    """Whether a Slice is of an opset before 10: its ranges are attributes."""
    return "starts" in node.attrs
