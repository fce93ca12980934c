"""Chains of Relu and Clip: one interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor, numpy_dtype
from graphopt.rewrite import Exactness, NoMatch, Rewriter, Rule

Bound = float | int | None


@dataclass(frozen=True)
class Interval:
    """What a node clips to; None leaves that side to the dtype's limit."""

    low: Bound
    high: Bound

    def clip(self, value: Bound, *, outermost: float) -> Bound:
        """`value`, or the dtype's limit `outermost` (−inf, inf) for None, clipped; None where still unbounded."""
        number = outermost if value is None else value
        if self.low is not None and number < self.low:
            return self.low
        if self.high is not None and number > self.high:
            return self.high
        return value


@dataclass(frozen=True)
class Clipped:
    """`outer` clips what another node clipped of `source`: together to `interval`."""

    outer: Node
    source: Tensor
    interval: Interval


class ComposeClips(Rule[Clipped]):
    """Clip(Clip(x, a, b), c, d) = Clip(x, clip(a, c, d), clip(b, c, d)); Relu is Clip(0, ∞).

    Both map monotonically onto an interval, so the whole maps onto that of the ends. Bounds are constant, a ≤ b, c ≤ d;
    the inner node is read by the outer alone. A Relu of a Relu is left to the idempotent rules. Opset 6 on (attributes
    before 11, inputs from then on). Reassociates: the sign of a zero at a bound 0 may differ.
    """

    roots = ("Relu", "Clip")
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> Clipped | NoMatch:
        inner = facts.sole_producer(node.input(0), "Relu", "Clip")
        source = inner.input(0) if inner is not None else None
        if inner is None or source is None or (inner.op, node.op) == ("Relu", "Relu"):
            return NoMatch("its input is not a Relu or Clip that feeds it alone", node)
        if source.dtype is None:
            return NoMatch("the dtype is unknown", node)
        if facts.opset(node) < 6 or (source.dtype != 1 and facts.opset(node) < 12):
            return NoMatch("its opset has no Clip of this dtype", node)
        first, second = interval_of(inner, facts), interval_of(node, facts)
        if first is None or second is None:
            return NoMatch("a bound is computed at run time or they cross", node)
        low = second.clip(first.low, outermost=-np.inf)
        high = second.clip(first.high, outermost=np.inf)
        return Clipped(node, source, Interval(low, high))

    def rewrite(self, found: Clipped, edit: Rewriter) -> None:
        outer, source, interval = found.outer, found.source, found.interval
        assert source.dtype is not None
        if Facts(edit.model).opset(outer) < 11:
            bounds = {"min": interval.low, "max": interval.high}
            given = {k: float(v) for k, v in bounds.items() if v is not None}
            made = edit.node("Clip", [source], given, name=outer.name)
        else:
            kind = numpy_dtype(source.dtype)
            ends = [
                None if v is None else edit.constant(np.asarray(v).astype(kind), f"{outer.label}.{side}")
                for side, v in (("min", interval.low), ("max", interval.high))
            ]
            made = edit.node("Clip", [source, *ends], name=outer.name)
        edit.replace(outer, made)


def interval_of(node: Node, facts: Facts) -> Interval | None:
    """The constant bounds of a Relu or Clip; None when unknown, NaN, or the lower one is above the upper."""
    if node.op == "Relu":
        return Interval(0, None)
    if facts.opset(node) < 11:
        low, high = node.attrs.get("min"), node.attrs.get("max")
    else:
        values: list[Bound] = []
        for tensor in (node.input(1), node.input(2)):
            value = None if tensor is None else _number(facts.value(tensor))
            if tensor is not None and value is None:
                return None
            values.append(value)
        low, high = values
    if low is not None and high is not None and low > high:
        return None
    return Interval(low, high)


def _number(array: Array | None) -> float | int | None:
    """The one value of `array`, exact in Python's int or float; None when there is not one, or it is NaN."""
    if array is None or array.size != 1:
        return None
    value = array.reshape(-1)[0]
    if array.dtype.kind in "iu":
        return int(value)
    number = float(value)
    return None if np.isnan(number) else number
