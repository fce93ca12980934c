"""Chains of additions and of multiplications with constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_dtypes import finfo

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.common.pointwise import is_pointwise
from graphopt_passes.common.shapes import broadcasts_into
from graphopt_passes.common.whole_blocks import ends_block

_INVERSE = {"Sub": "Add", "Div": "Mul"}


@dataclass(frozen=True)
class Term:
    """x + c or x · c: a node as one; `value` is c in float64 or, of integers, in their own dtype, `kind`."""

    op: str
    source: Tensor
    value: Array
    kind: np.dtype[Any]


@dataclass(frozen=True)
class TermTwice:
    """`outer` adds to, or multiplies, what another such node made of `source`: together with `value`."""

    outer: Node
    op: str
    source: Tensor
    value: Array


class ComposeConstantTerms(Rule[TermTwice]):
    """(x + a) + b = x + (a + b) and (x · a) · b = x · (a · b), a and b constant; x − a is x + (−a), x / a is x · (1/a).

    The inner node is read by the outer alone. a and b are small and neither is enlarged by the other. Floats: computed
    in float64 and rounded once; not where the result is zero, subnormal or not finite, nor where two summands cancel
    by more than half (adding and taking off a large number rounds on purpose). Integers wrap in any order; they are not
    divided. Opset 8 on. Reassociates.
    """

    roots = ("Add", "Sub", "Mul", "Div")
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> TermTwice | NoMatch:
        if not is_pointwise(node.op, facts.opset(node)):
            return NoMatch("it is of an opset before broadcasting", node)
        second = term_of(node, facts)
        inner = facts.sole_producer(second.source, *self.roots) if second is not None else None
        first = term_of(inner, facts) if inner is not None else None
        if first is None or second is None or first.op != second.op:
            return NoMatch("no constant is added or multiplied twice", node)
        if inner is not None and (reason := ends_block(inner, facts)):
            return reason
        value = _combined(first, second)
        if value is None:
            return NoMatch("the two constants do not make one", node)
        dtype = node.result.dtype if node.result.dtype is not None else first.source.dtype
        if dtype is None or first.source.dtype != dtype:
            return NoMatch("the dtype is unknown", node)
        return TermTwice(node, first.op, first.source, value)

    def rewrite(self, found: TermTwice, edit: Rewriter) -> None:
        constant = edit.constant(found.value, f"{found.outer.label}.constant")
        edit.replace(found.outer, edit.node(found.op, [found.source, constant], name=found.outer.name))


def term_of(node: Node, facts: Facts) -> Term | None:
    """The node as x + c or x · c; None when it is not, or c is large, empty, or of a type that does not add up."""
    op = _INVERSE.get(node.op, node.op)
    for x, c in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        value = facts.value(c)
        if x is None or value is None or x.constant is not None or value.size == 0:
            continue
        if value.dtype.kind in "iu":
            return None if node.op in _INVERSE else Term(op, x, value, value.dtype)
        if value.dtype.kind not in "fV" or (node.op in _INVERSE and x is node.input(1)):
            return None
        exact = value.astype(np.float64)
        if node.op == "Div" and not np.all(exact):
            return None
        with np.errstate(all="ignore"):
            turned = -exact if node.op == "Sub" else 1 / exact if node.op == "Div" else exact
        return Term(op, x, turned, value.dtype)
    return None


def _combined(first: Term, second: Term) -> Array | None:
    """The one constant of both, in their dtype; None where it is larger than either or loses what they say."""
    a, b = first.value, second.value
    if first.kind != second.kind or (len(a.shape) != len(b.shape) and min(a.size, b.size) > 1):
        return None
    try:
        size = int(np.prod(np.broadcast_shapes(a.shape, b.shape)))
    except ValueError:
        return None
    if size != max(a.size, b.size):
        return None
    with np.errstate(all="ignore"):
        exact = a + b if first.op == "Add" else a * b
        if first.kind.kind in "iu":
            return np.asarray(exact, first.kind)
        value = np.asarray(exact).astype(first.kind)
    return value if _says_the_same(first.op, a, b, value) else None


def _says_the_same(op: str, a: Array, b: Array, value: Array) -> bool:
    magnitude = np.abs(value.astype(np.float64))
    smallest = float(finfo(value.dtype).smallest_normal)  # type: ignore[no-untyped-call]
    if not np.all(np.isfinite(magnitude)) or not np.all(magnitude >= smallest):
        return False
    return op == "Mul" or bool(np.all(magnitude >= np.maximum(np.abs(a), np.abs(b)) / 2))


@dataclass(frozen=True)
class Reciprocal:
    """`product` multiplies `dividend` with 1 / `divisor`."""

    product: Node
    dividend: Tensor
    divisor: Tensor


class ProductWithReciprocalToDivision(Rule[Reciprocal]):
    """y · (1 / x) = y / x in floats, 1 / x written as Div or Reciprocal and read by the product alone.

    One rounding instead of two. The 1 is a scalar, or does not enlarge x. Opset 8 on. Reassociates.
    """

    roots = ("Mul",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> Reciprocal | NoMatch:
        if not is_pointwise(node.op, facts.opset(node)) or node.result.dtype not in (1, 10, 11, 16):
            return NoMatch("it multiplies no floats, or is of an opset before broadcasting", node)
        for y, inverse in (node.inputs, node.inputs[::-1]):
            made = facts.sole_producer(inverse, "Div", "Reciprocal")
            divisor = None if made is None else _inverted(made, facts)
            if y is not None and divisor is not None:
                return Reciprocal(node, y, divisor)
        return NoMatch("it does not multiply with a reciprocal", node)

    def rewrite(self, found: Reciprocal, edit: Rewriter) -> None:
        made = edit.node("Div", [found.dividend, found.divisor], name=found.product.name)
        edit.replace(found.product, made)


def _inverted(node: Node, facts: Facts) -> Tensor | None:
    """x where `node` is 1 / x."""
    if node.op == "Reciprocal":
        return node.input(0)
    one, x = node.input(0), node.input(1)
    if one is None or x is None or facts.scalar(one) != 1 or not broadcasts_into(one.shape, x.shape):
        return None
    return x
