"""Enlargements by whole factors, one behind the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule

_MOST = 1 << 10  # a factor; sizes times factors stay far below what float32 counts exactly


@dataclass(frozen=True)
class Enlarged:
    """`outer` enlarges what another Resize made of `source`; both together by `factors`."""

    outer: Node
    source: Tensor
    factors: tuple[int, ...]


class ComposeResizes(Rule[Enlarged]):
    """Resize(Resize(x, a), b) = Resize(x, a·b) to the nearest element, a and b whole numbers an axis.

    With asymmetric coordinates and `floor`, as exporters write nearest-neighbour upsampling: element i is that at
    ⌊i/b⌋, and ⌊⌊i/b⌋/a⌋ = ⌊i/(a·b)⌋. The factors are constants; other modes round halves, which does not compose. The
    inner node is read by the outer alone. Opset 11 on. Exact.
    """

    roots = ("Resize",)

    def match(self, node: Node, facts: Facts) -> Enlarged | NoMatch:
        inner = facts.sole_producer(node.input(0), "Resize")
        source = inner.input(0) if inner is not None else None
        if inner is None or source is None:
            return NoMatch("its input is not a Resize that feeds it alone", node)
        after, before = whole_factors(node, facts), whole_factors(inner, facts)
        if after is None or before is None or len(after) != len(before):
            return NoMatch("not both enlarge by constant whole factors to the nearest element", node)
        factors = tuple(a * b for a, b in zip(after, before, strict=True))
        return NoMatch("its factors are too large", node) if max(factors) > _MOST else Enlarged(node, source, factors)

    def rewrite(self, found: Enlarged, edit: Rewriter) -> None:
        outer = found.outer
        scales = edit.constant(np.asarray(found.factors, np.float32), f"{outer.label}.scales")
        edit.replace(outer, edit.like(outer, [found.source, outer.input(1), scales]))


def whole_factors(node: Node, facts: Facts) -> tuple[int, ...] | None:
    """The factor of each axis, where a Resize repeats elements and does nothing else; None where that is not sure."""
    if facts.opset(node) < 11 or node.input(3) is not None or "axes" in node.attrs:
        return None
    spelled = (
        node.str_attr("mode", "nearest"),
        node.str_attr("coordinate_transformation_mode", "half_pixel"),
        node.str_attr("nearest_mode", "round_prefer_floor"),
    )
    scales = facts.value(node.input(2))
    if spelled != ("nearest", "asymmetric", "floor") or scales is None or scales.ndim != 1 or scales.size == 0:
        return None
    if not np.all(scales == np.rint(scales)) or scales.min() < 1 or scales.max() > _MOST:
        return None
    return tuple(int(s) for s in scales)
