"""Chains of unary operators: idempotent ones collapse, self-inverse ones cancel."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.dead_layers.wires import NoOp, returned

_ROUNDING = ("Ceil", "Floor", "Round")

# operator -> the producers whose results it returns unchanged
_KEEPS: dict[str, tuple[str, ...]] = {
    "Relu": ("Relu",),
    "Abs": ("Abs",),
    "Sign": ("Sign",),
    "LeakyRelu": ("Relu",),
    "Elu": ("Relu",),
    "Ceil": _ROUNDING,
    "Floor": _ROUNDING,
    "Round": _ROUNDING,
}
_SELF_INVERSE = ("Neg", "Not", "BitwiseNot")


class DropRepeatedUnary(NoOp):
    """f(g(x)) = g(x): Relu∘Relu, Abs∘Abs, Sign∘Sign, LeakyRelu∘Relu, Elu∘Relu, Ceil, Floor, Round of one another.

    What g returns, f returns unchanged: non-negative numbers (and −0.0, NaN), −1, 0, 1, integers. The inner node may
    have other readers. Any opset. Exact.
    """

    roots = tuple(_KEEPS)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        x = node.input(0)
        if facts.producer(x, *_KEEPS[node.op]) is None:
            return NoMatch("its input is not already of its range", node)
        return returned(x, node)


class DropSelfInversePair(NoOp):
    """−(−x) = x, ¬¬x = x, ~~x = x (two's complement wraps back). The inner node may have other readers. Exact."""

    roots = _SELF_INVERSE

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        inner = facts.producer(node.input(0), node.op)
        if inner is None:
            return NoMatch("its input is not its own inverse's result", node)
        return returned(inner.input(0), node)


class AbsOfNegation(Rule[tuple[Node, Tensor]]):
    """|−x| = |x|, also for −0.0, NaN and the smallest integer. Any opset. Exact."""

    roots = ("Abs",)

    def match(self, node: Node, facts: Facts) -> tuple[Node, Tensor] | NoMatch:
        negation = facts.producer(node.input(0), "Neg")
        x = negation.input(0) if negation is not None else None
        return (node, x) if x is not None else NoMatch("its input is no negation", node)

    def rewrite(self, found: tuple[Node, Tensor], edit: Rewriter) -> None:
        node, x = found
        edit.replace(node, edit.like(node, [x]))
