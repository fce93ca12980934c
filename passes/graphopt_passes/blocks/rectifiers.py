"""Rectifiers with a slope below zero that an exporter wrote as arithmetic: LeakyRelu and PRelu."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt_passes.blocks.activations import FEW_FOR_DOUBLES, Activation, _Recognize, lacks_type
from graphopt_passes.blocks.terms import clip_at, inner, polynomial, product_at
from graphopt_passes.common.folding import FLOATS, Folded, exact_values, fold
from graphopt_passes.common.shapes import broadcasts_into


class RecognizeLeakyRelu(_Recognize):
    """Max(x, α·x) = LeakyRelu(x, α) for 0 < α ≤ 1; x of any shape. 0·∞ is no number, so that α is not 0.

    Opsets: 8 on. Exactness: reassociates. Source: ONNX operator LeakyRelu.
    """

    roots = ("Max",)
    operator = ("LeakyRelu", 8, "max(x, α·x)")

    def find(self, node: Node, facts: Facts) -> Activation | None:
        first, second = node.input(0), node.input(1)
        if first is None or second is None or len(node.inputs) != 2:
            return None
        for x, other in ((first, second), (second, first)):
            line = polynomial(other, x, facts) if other is not x else None
            if line is not None and len(line) == 2 and line[0] == 0 and 0 < line[1] <= 1:
                return Activation(node, x, "LeakyRelu", {"alpha": line[1]})
        return None


@dataclass(frozen=True)
class TwoSlopes:
    """Relu(x) + coefficient·slope·min(x, 0); `slope` is None where it is a number for all channels."""

    total: Node
    x: Tensor
    coefficient: float
    slope: Tensor | None


class RecognizePRelu(Rule[TwoSlopes]):
    """Relu(x) + s·min(x, 0) = PRelu(x, s), s a constant that broadcasts to x; a scalar s makes a LeakyRelu.

    min(x, 0) is also written −Relu(−x) or (x − |x|) / 2, which is no number for x = ∞.

    Opsets: 7 on. Exactness: reassociates. Source: ONNX operators PRelu, LeakyRelu; He et al. 2015, arXiv 1502.01852.
    """

    roots = ("Add", "Sub")
    exactness = Exactness.REASSOCIATES
    needs_finite = True

    def match(self, node: Node, facts: Facts) -> TwoSlopes | NoMatch:
        inputs = node.inputs
        pairs = [(inputs[0], inputs[1])] if node.op == "Sub" else [(inputs[0], inputs[1]), (inputs[1], inputs[0])]
        for positive, negative in pairs:
            relu = inner(positive, facts, "Relu")
            x = relu.input(0) if relu is not None else None
            if x is None or x.dtype not in FLOATS or negative is None or facts.opset(node) < 7:
                continue
            found = _sloped(negative, x, facts)
            if found is None:
                continue
            coefficient, slope = found
            if slope is not None and not broadcasts_into(slope.shape, x.shape):
                return NoMatch("the slope does not surely broadcast to the data", node)
            if x.dtype == TensorProto.DOUBLE:
                return Refused(FEW_FOR_DOUBLES, node)
            refusal = lacks_type(node, facts, "LeakyRelu" if slope is None else "PRelu", x.dtype)
            if refusal is not None:
                return refusal
            return TwoSlopes(node, x, -coefficient if node.op == "Sub" else coefficient, slope)
        return NoMatch("it is no sum of a Relu and a multiple of the negative part", node)

    def rewrite(self, found: TwoSlopes, edit: Rewriter) -> None:
        total, slope = found.total, found.slope
        if slope is None:
            made = edit.node("LeakyRelu", [found.x], {"alpha": found.coefficient}, name=total.name)
        else:
            source, factor = slope.constant, found.coefficient
            assert source is not None
            scaled = Folded(source.dtype, source.shape, lambda: exact_values(source) * factor)
            made = edit.node("PRelu", [found.x, edit.constant(fold(scaled), slope.name)], name=total.name)
        edit.replace(total, made)


def _sloped(tensor: Tensor, x: Tensor, facts: Facts) -> tuple[float, Tensor | None] | None:
    """c and s of `tensor` = c·s·min(x, 0); s None where there is none."""
    node = inner(tensor, facts, "Mul", "Div")
    product = product_at(node, facts) if node is not None else None
    coefficient, factors = (product.coefficient, product.factors) if product is not None else (1.0, (tensor,))
    slopes = [f for f in factors if f.constant is not None]
    others = [f for f in factors if f.constant is None]
    if len(others) != 1 or len(slopes) > 1:
        return None
    part = _negative_part(others[0], x, facts)
    return None if part is None else (coefficient * part, slopes[0] if slopes else None)


def _negative_part(tensor: Tensor, x: Tensor, facts: Facts) -> float | None:
    """c of `tensor` = c·min(x, 0)."""
    node = inner(tensor, facts, "Relu", "Min", "Clip", "Sub", "Neg")
    if node is None:
        return None
    if node.op == "Neg":
        part = _negative_part(node.inputs[0], x, facts) if node.inputs[0] is not None else None
        return None if part is None else -part
    if node.op == "Relu":
        return -1.0 if polynomial(node.input(0), x, facts) == (0.0, -1.0) else None
    if node.op == "Sub":
        for data, sign in ((0, 2.0), (1, -2.0)):
            magnitude = inner(node.inputs[1 - data], facts, "Abs")
            if node.inputs[data] is x and magnitude is not None and magnitude.input(0) is x:
                return sign
        return None
    clip = clip_at(node, facts)
    return 1.0 if clip is not None and clip.data is x and clip.high == 0 and clip.low == float("-inf") else None
