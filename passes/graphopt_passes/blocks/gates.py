"""Sigmoids, and Softplus beyond a threshold, that an exporter wrote as arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.blocks.activations import Activation, _Recognize, lacks_type
from graphopt_passes.blocks.norms import NORM_TYPES
from graphopt_passes.blocks.terms import inner, with_scalar

# log(1 + e^x) is x to float32's precision from here on: e^-17 < 2^-24.
_LEAST_THRESHOLD = 17.0


@dataclass(frozen=True)
class Quotient:
    """`numerator` / (1 + Exp(−x)); `numerator` None where it is 1."""

    last: Node
    x: Tensor
    numerator: Tensor | None


class RecognizeSigmoid(Rule[Quotient]):
    """1 / (1 + Exp(−x)) = Sigmoid(x), and y / (1 + Exp(−x)) = y·Sigmoid(x); x and y broadcast to each other.

    The quotient may be a Reciprocal, −x a product with −1. With y = x this is Swish, which another rule takes further.

    Opsets: 7 on, not for doubles. Exactness: reassociates. Source: ONNX operator Sigmoid.
    """

    roots = ("Div", "Reciprocal")
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> Quotient | NoMatch:
        numerator, denominator = (None, node.input(0)) if node.op == "Reciprocal" else (node.input(0), node.input(1))
        x = _negated_exponent(denominator, facts)
        if x is None or facts.opset(node) < 7:
            return NoMatch("it divides by no 1 + exp(-x)", node)
        if x.dtype not in NORM_TYPES:
            return NoMatch("its data is not known to be of floats that runtimes have a Sigmoid of", node)
        beside = with_scalar(node, facts) if node.op == "Div" else None
        if beside is not None and beside[2] and beside[1] == 1.0:
            numerator = None
        if numerator is denominator and numerator is not None:
            return NoMatch("it divides 1 + exp(-x) by itself", node)
        return lacks_type(node, facts, "Sigmoid", x.dtype) or Quotient(node, x, numerator)

    def rewrite(self, found: Quotient, edit: Rewriter) -> None:
        gate = edit.node("Sigmoid", [found.x], name=found.last.name)
        if found.numerator is not None:
            gate = edit.node("Mul", [found.numerator, gate.result])
        edit.replace(found.last, gate)


def _negated_exponent(tensor: Tensor | None, facts: Facts) -> Tensor | None:
    """x of `tensor` = 1 + Exp(−x)."""
    total = inner(tensor, facts, "Add")
    beside = with_scalar(total, facts) if total is not None else None
    exponential = inner(beside[0], facts, "Exp") if beside is not None and beside[1] == 1.0 else None
    negative = inner(exponential.input(0), facts, "Neg", "Mul") if exponential is not None else None
    if negative is None:
        return None
    if negative.op == "Neg":
        return negative.input(0)
    product = with_scalar(negative, facts)
    return product[0] if product is not None and product[1] == -1.0 else None


class RecognizeThresholdedSoftplus(_Recognize):
    """Where(x > c, x, Softplus(x)) = Softplus(x) for c ≥ 17, from where on both are equal in float32.

    PyTorch's dynamo exporter writes its threshold of 20 so.

    Opsets: 9 on, not for doubles. Exactness: reassociates. Source: ONNX operator Softplus.
    """

    roots = ("Where",)
    operator = ("Softplus", 9, "where(x > 20, x, softplus(x))")

    def find(self, node: Node, facts: Facts) -> Activation | None:
        above, x = inner(node.input(0), facts, "Greater", "GreaterOrEqual"), node.input(1)
        softplus = inner(node.input(2), facts, "Softplus")
        if above is None or x is None or softplus is None or softplus.input(0) is not x:
            return None
        beside = with_scalar(above, facts)
        if beside is None or beside[2] or beside[0] is not x or not _LEAST_THRESHOLD <= beside[1] < math.inf:
            return None
        return Activation(node, x, "Softplus")
