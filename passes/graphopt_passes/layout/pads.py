"""Pads of pads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import padding


@dataclass(frozen=True)
class PaddedTwice:
    """`outer` pads what another Pad made of `source`: together `pads`, before all axes, then behind them."""

    outer: Node
    source: Tensor
    pads: tuple[int, ...]


class ComposePads(Rule[PaddedTwice]):
    """Pad(Pad(x, p, v), q, v) = Pad(x, p + q, v) in constant mode.

    Both add only (no negative pads: cropping what the other added is something else) and add the same value, bit for
    bit. The inner Pad is read by the outer alone. Opset 2 on (pads as attribute before 11). Exact.
    """

    roots = ("Pad",)

    def match(self, node: Node, facts: Facts) -> PaddedTwice | NoMatch:
        inner = facts.sole_producer(node.input(0), "Pad")
        source = inner.input(0) if inner is not None else None
        if inner is None or source is None:
            return NoMatch("its input is not a Pad that feeds it alone", node)
        first, second = padding(inner, facts), padding(node, facts)
        if first is None or second is None or len(first.before) != len(second.before):
            return NoMatch("its pads are not known", node)
        if (first.mode, second.mode) != ("constant", "constant"):
            return NoMatch("it does not pad with a constant", node)
        values = pad_value(inner, facts), pad_value(node, facts)
        if values[0] is None or values[0] != values[1]:
            return NoMatch("they pad with different values", node)
        if min(0, *first.before, *first.after, *second.before, *second.after) < 0:
            return NoMatch("one of them crops", node)
        pads = (*first.before, *first.after)
        return PaddedTwice(
            node, source, tuple(p + q for p, q in zip(pads, (*second.before, *second.after), strict=True))
        )

    def rewrite(self, found: PaddedTwice, edit: Rewriter) -> None:
        outer = found.outer
        if outer.input(1) is None:
            name = "paddings" if "paddings" in outer.attrs else "pads"
            made = edit.like(outer, [found.source], **{name: found.pads})
        else:
            pads = edit.constant(np.asarray(found.pads, np.int64), f"{outer.label}.pads")
            made = edit.like(outer, [found.source, pads, outer.input(2)])
        edit.replace(outer, made)


def pad_value(node: Node, facts: Facts) -> bytes | None:
    """The value that a constant Pad adds, as bytes of float64 or of the integer; None when it is computed."""
    given = node.input(2)
    if given is None:
        return bytes(np.float64(node.float_attr("value", 0.0)).tobytes())
    value = facts.value(given)
    if value is None or value.size != 1 or value.dtype.kind in "OSUc":
        return None
    # integers above 2**53 would collide in float64
    single = value.reshape(-1)[0]
    if value.dtype.kind in "iu" and abs(int(single)) >= 1 << 53:
        return None
    return bytes(np.float64(single).tobytes())
