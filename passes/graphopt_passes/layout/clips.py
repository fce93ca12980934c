"""Chains of Relu, Clip, Min and Max: one interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.common.shapes import broadcasts_into

Bound = float | int | None
_MOST_OPERANDS = 17
_CLIPPING = ("Relu", "Clip", "Max", "Min")


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
    """`outer` clips what another node clipped of `source`: together `op` to `interval`."""

    outer: Node
    source: Tensor
    interval: Interval
    op: str


class ComposeClips(Rule[Clipped]):
    """Clip(Clip(x, a, b), c, d) = Clip(x, clip(a, c, d), clip(b, c, d)).

    Relu is Clip(0, ∞), Max(x, a) is Clip(a, ∞) and Min(x, b) is Clip(−∞, b) where a and b have one element. Each maps
    monotonically onto an interval, so the whole maps onto that of the ends; two that leave ∞ alone make one that does,
    a Max or Min. Bounds are constant, a ≤ b, c ≤ d; the
    inner node is read by the outer alone. A Relu of a Relu is left to the idempotent rules. Opset 8 on (bounds of Clip
    are attributes before 11, inputs from then on). Reassociates: the sign of a zero at a bound 0 may differ.
    """

    roots = _CLIPPING
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> Clipped | NoMatch:
        if facts.opset(node) < 8:
            return NoMatch("it is of an opset before 8", node)
        outer = bounded(node, facts)
        if outer is None:
            return NoMatch("a bound is computed at run time, or the bounds cross", node)
        inner_node = facts.sole_producer(outer.source, *_CLIPPING)
        inner = bounded(inner_node, facts) if inner_node is not None else None
        if inner_node is None or inner is None or (inner_node.op, node.op) == ("Relu", "Relu"):
            return NoMatch("its input is not clipped to a constant interval for it alone", node)
        low = outer.interval.clip(inner.interval.low, outermost=-np.inf)
        high = outer.interval.clip(inner.interval.high, outermost=np.inf)
        op = "Clip"
        if "Clip" not in (inner_node.op, node.op) and (low is None or high is None):
            op = "Max" if high is None else "Min"  # an absent bound of Clip is the largest number, not ∞
        if op == "Clip" and not _has_clip(facts.opset(node), inner.source.dtype):
            return NoMatch("its opset has no Clip of this dtype", node)
        return Clipped(node, inner.source, Interval(low, high), op)

    def rewrite(self, found: Clipped, edit: Rewriter) -> None:
        outer, source, low, high = found.outer, found.source, found.interval.low, found.interval.high
        assert source.dtype is not None
        kind = numpy_dtype(source.dtype)

        def constant(value: Bound, name: str) -> Tensor | None:
            return None if value is None else edit.constant(np.asarray(value).astype(kind), f"{outer.label}.{name}")

        if found.op != "Clip":
            made = edit.node(found.op, [source, constant(low if high is None else high, "bound")], name=outer.name)
        elif Facts(edit.model).opset(outer) < 11:
            given = {k: float(v) for k, v in (("min", low), ("max", high)) if v is not None}
            made = edit.node("Clip", [source], given, name=outer.name)
        else:
            made = edit.node("Clip", [source, constant(low, "min"), constant(high, "max")], name=outer.name)
        edit.replace(outer, made)


@dataclass(frozen=True)
class Bounded:
    """What a node clips, and to what."""

    source: Tensor
    interval: Interval


def bounded(node: Node, facts: Facts) -> Bounded | None:
    """The node as a clip to constant bounds that leaves the shape of its input; None when it is not one."""
    if node.op in ("Relu", "Clip"):
        source, interval = node.input(0), interval_of(node, facts)
        return None if source is None or source.dtype is None or interval is None else Bounded(source, interval)
    if len(node.inputs) != 2:
        return None
    for x, bound in (node.inputs, node.inputs[::-1]):
        value = _number(facts.value(bound))
        if value is None or x is None or bound is None or x.constant is not None or x.dtype is None:
            continue
        if broadcasts_into(bound.shape, x.shape):
            return Bounded(x, Interval(value, None) if node.op == "Max" else Interval(None, value))
    return None


def _has_clip(opset: int, dtype: int | None) -> bool:
    """Whether Clip takes the dtype: floats always, integers from opset 12 on (never 16-bit ones), and so doubles.

    Older ones have bounds of float32 (attributes before 11), and ONNX Runtime has none for doubles.
    """
    return dtype in (1, 10) or (opset >= 12 and dtype in (2, 3, 6, 7, 11, 12, 13))


class FlattenMinMax(Rule[tuple[Node, Node, int]]):
    """Max(Max(a, b), c) = Max(a, b, c), each input once; the same for Min; of any number of inputs and broadcasting.

    The inner node is read by the outer alone, once. Up to 16 inputs: a longer chain would be copied again and again.
    Opset 8 on. Exact.
    """

    roots = ("Max", "Min")

    def match(self, node: Node, facts: Facts) -> tuple[Node, Node, int] | NoMatch:
        if facts.opset(node) < 8:
            return NoMatch("it is of an opset before 8", node)
        for index, tensor in enumerate(node.inputs):
            inner = facts.sole_producer(tensor, node.op)
            if inner is not None and len(node.inputs) + len(inner.inputs) <= _MOST_OPERANDS:
                return node, inner, index
        return NoMatch("no input is the same operator that feeds it alone, or there would be many inputs", node)

    def rewrite(self, found: tuple[Node, Node, int], edit: Rewriter) -> None:
        node, inner, index = found
        inputs = [*node.inputs[:index], *inner.inputs, *node.inputs[index + 1 :]]
        edit.replace(node, edit.like(node, list(dict.fromkeys(inputs))))


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
