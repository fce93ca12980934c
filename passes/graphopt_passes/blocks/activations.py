"""Activations that an exporter wrote as arithmetic become the operator, where the opset has it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NeedsOpset, NoMatch, Refused, Rule
from graphopt_passes.blocks.terms import (
    clip_at,
    close,
    inner,
    may_round,
    polynomial,
    product_at,
    rounds_to,
    splits,
    with_scalar,
)
from graphopt_passes.common.folding import FLOATS
from graphopt_passes.common.types import takes

# ONNX Runtime has Mul, Max, Clip and Tanh of doubles, and no Gelu, HardSigmoid, HardSwish, LeakyRelu, Mish or PRelu.
FEW_FOR_DOUBLES = "its data is of doubles, for which the runtime lacks the operator, or its numbers are of float32"

_LAST_WITH_SWISH = 24


@dataclass(frozen=True)
class Activation:
    """`last` computes operator `op` with `attrs` of `x`.

    `core` is the node that other rewrites leave where it is, `last` unless told.
    """

    last: Node
    x: Tensor
    op: str
    attrs: dict[str, Any] = field(default_factory=dict)
    core: Node | None = None


def needs_opset(node: Node, facts: Facts, op: str, version: int, what: str) -> Refused | None:
    """The refusal that tells from which opset on `op` exists; None where the graph's is recent enough."""
    if facts.opset(node) >= version:
        return None
    reason = f"{what} is the operator {op} from opset {version} on: take --opset {version}"
    return NeedsOpset(reason, node, op, version)


def lacks_type(node: Node, facts: Facts, op: str, dtype: int | None) -> Refused | None:
    """The refusal where `op` of the graph's opset does not take data of this type, such as bfloat16 in older ones."""
    opset = facts.opset(node)
    return None if takes(op, opset, dtype) else Refused(f"{op} of opset {opset} does not take data of this type", node)


class _Recognize(Rule[Activation]):
    """A composite activation becomes one operator."""

    exactness = Exactness.REASSOCIATES
    for_doubles = False  # attributes, and the constants of operators that are functions, are of float32
    operator: tuple[str, int, str]  # its name, the opset that brought it, how it is written without

    def find(self, node: Node, facts: Facts) -> Activation | None:
        """The activation that ends at `node`, whatever the opset."""
        raise NotImplementedError

    def match(self, node: Node, facts: Facts) -> Activation | NoMatch:
        found = self.find(node, facts)
        if found is None:
            return NoMatch(f"it does not compute {self.operator[0]}", node)
        if found.x.dtype not in FLOATS:
            return NoMatch("its data is not known to be of floats", node)
        if found.x.dtype == TensorProto.DOUBLE and not self.for_doubles:
            return Refused(FEW_FOR_DOUBLES, node)
        refusal = needs_opset(found.core or node, facts, *self.operator)
        return refusal or lacks_type(node, facts, found.op, found.x.dtype) or found

    def rewrite(self, found: Activation, edit: Rewriter) -> None:
        edit.replace(found.last, edit.node(found.op, [found.x], found.attrs, name=found.last.name))


class RecognizeSwish(_Recognize):
    """x · Sigmoid(α·x) = Swish(x, alpha=α); x of any shape.

    Opset 24 alone: in models of later opsets ONNX Runtime 1.31 finds no kernel for it, of whatever type.
    Exactness: reassociates. Source: ONNX operator Swish; Ramachandran et al. 2017, arXiv 1710.05941.
    """

    roots = ("Mul", "Div")
    operator = ("Swish", 24, "x·sigmoid(x)")

    def match(self, node: Node, facts: Facts) -> Activation | NoMatch:
        found = super().match(node, facts)
        if isinstance(found, Activation) and facts.opset(node) > _LAST_WITH_SWISH:
            return Refused("ONNX Runtime runs Swish in models of opset 24 only", node)
        return found

    def find(self, node: Node, facts: Facts) -> Activation | None:
        product = product_at(node, facts)
        if product is None or product.coefficient != 1.0:
            return None
        for x, other in splits(product.factors):
            gate = inner(other, facts, "Sigmoid")
            line = polynomial(gate.input(0), x, facts) if gate is not None else None
            if line is not None and len(line) == 2 and line[0] == 0:
                return Activation(node, x, "Swish", {"alpha": line[1]})
        return None


class RecognizeHardSwish(_Recognize):
    """x · Clip(x + 3, 0, 6) / 6 = x · HardSigmoid(x, 1/6, 1/2) = HardSwish(x); x of any shape.

    Opsets: 14 on. Exactness: reassociates. Source: ONNX operator HardSwish; Howard et al. 2019, arXiv 1905.02244.
    """

    roots = ("Mul", "Div")
    operator = ("HardSwish", 14, "x·clip(x+3, 0, 6)/6")

    def find(self, node: Node, facts: Facts) -> Activation | None:
        product = product_at(node, facts)
        if product is None:
            return None
        for x, other in splits(product.factors):
            gate = _hard_gate(other, x, facts)
            if gate is None:
                continue
            slope, offset, top = (v * product.coefficient for v in gate)
            if close(slope, 1 / 6, x) and close(offset, 0.5, x) and rounds_to(top, 1.0, x):
                return Activation(node, x, "HardSwish")
        return None


def _hard_gate(tensor: Tensor, x: Tensor, facts: Facts) -> tuple[float, float, float] | None:
    """a, b, c of `tensor` = Clip(a·x + b, 0, c)."""
    hard = inner(tensor, facts, "HardSigmoid")
    if hard is not None:
        return (hard.float_attr("alpha", 0.2), hard.float_attr("beta", 0.5), 1.0) if hard.input(0) is x else None
    node = inner(tensor, facts, "Clip", "Relu", "Min", "Max")
    clip = clip_at(node, facts) if node is not None else None
    if clip is None or clip.low != 0:
        return None
    line = polynomial(clip.data, x, facts)
    return (line[1], line[0], clip.high) if line is not None and len(line) == 2 else None


class RecognizeHardSigmoid(_Recognize):
    """Clip(a·x + b, 0, c) / c = HardSigmoid(x, alpha=a/c, beta=b/c), such as Clip(x + 3, 0, 6) / 6; x of any shape.

    Opsets: 7 on. Exactness: reassociates. Source: ONNX operator HardSigmoid.
    """

    roots = ("Mul", "Div", "Clip", "Min", "Max")
    operator = ("HardSigmoid", 7, "clip(a·x+b, 0, 1)")

    def find(self, node: Node, facts: Facts) -> Activation | None:
        coefficient, clipped = 1.0, node
        if node.op in ("Mul", "Div"):
            product = product_at(node, facts)
            if product is None or len(product.factors) != 1:
                return None
            gate = inner(product.factors[0], facts, "Clip", "Min", "Max", "Relu")
            if gate is None:
                return None
            coefficient, clipped = product.coefficient, gate
        clip = clip_at(clipped, facts)
        if clip is None or clip.low != 0 or not rounds_to(clip.high * coefficient, 1.0, clip.data):
            return None
        line = self._line(clip.data, facts)
        if line is None or (line[1:] == (1.0, 0.0) and coefficient == 1.0):
            return None  # a plain Clip says as much
        x, slope, offset = line
        return Activation(node, x, "HardSigmoid", {"alpha": slope * coefficient, "beta": offset * coefficient})

    def _line(self, tensor: Tensor, facts: Facts) -> tuple[Tensor, float, float] | None:
        """x, a, b of `tensor` = a·x + b, through two operators at most, none of which may be meant to round."""
        slope, offset = 1.0, 0.0
        for _ in range(2):
            node = inner(tensor, facts, "Add", "Sub", "Mul", "Div")
            beside = with_scalar(node, facts) if node is not None else None
            if node is None or beside is None or beside[2] or beside[1] == 0:
                break
            data, value, _ = beside
            if node.op in ("Add", "Sub"):
                if may_round(value, data):
                    break
                offset += slope * (value if node.op == "Add" else -value)
            else:
                slope *= value if node.op == "Mul" else 1 / value
            tensor = data
        return tensor, slope, offset


class RecognizeMish(_Recognize):
    """x · Tanh(Softplus(x)) = Mish(x); x of any shape.

    Opsets: 18 on. Exactness: reassociates. Source: ONNX operator Mish; Misra 2019, arXiv 1908.08681.
    """

    roots = ("Mul",)
    operator = ("Mish", 18, "x·tanh(softplus(x))")

    def find(self, node: Node, facts: Facts) -> Activation | None:
        product = product_at(node, facts)
        if product is None or product.coefficient != 1.0:
            return None
        for x, other in splits(product.factors):
            tanh = inner(other, facts, "Tanh")
            soft = inner(tanh.input(0), facts, "Softplus") if tanh is not None else None
            if soft is not None and soft.input(0) is x:
                return Activation(node, x, "Mish")
        return None


class RecognizeGelu(_Recognize):
    """½·x·(1 + Erf(x / √2)) = Gelu(x); ½·x·(1 + Tanh(√(2/π)·(x + 0.044715·x³))) = Gelu(x, approximate="tanh").

    x is of any shape; factors come in any order, the polynomial in any form.

    Opsets: 20 on. Exactness: reassociates. Source: ONNX operator Gelu; Hendrycks and Gimpel 2016, arXiv 1606.08415.
    """

    roots = ("Mul", "Div")
    operator = ("Gelu", 20, "the erf or tanh form of GELU")

    def find(self, node: Node, facts: Facts) -> Activation | None:
        product = product_at(node, facts)
        if product is None:
            return None
        for x, other in splits(product.factors):
            bell = _one_plus(other, facts)
            if bell is None or not close(product.coefficient * bell[1], 0.5, x):
                continue
            approximate = _gelu_form(bell[0], x, facts)
            if approximate is not None:
                return Activation(node, x, "Gelu", {"approximate": approximate}, core=bell[0])
        return None


def _one_plus(tensor: Tensor, facts: Facts) -> tuple[Node, float] | None:
    """f and a of `tensor` = a + a·f, f an Erf or Tanh."""
    node = inner(tensor, facts, "Add")
    beside = with_scalar(node, facts) if node is not None else None
    if beside is None:
        return None
    data, value, _ = beside
    function = inner(data, facts, "Erf", "Tanh")
    if function is not None:
        return (function, value) if value == 1.0 else None
    scaled = inner(data, facts, "Mul", "Div")
    product = product_at(scaled, facts) if scaled is not None else None
    if product is None or len(product.factors) != 1 or product.coefficient != value:
        return None
    function = inner(product.factors[0], facts, "Erf", "Tanh")
    return None if function is None else (function, value)


def _gelu_form(function: Node, x: Tensor, facts: Facts) -> str | None:
    """Which GELU has this Erf or Tanh: the attribute `approximate`."""
    argument = polynomial(function.input(0), x, facts)
    if argument is None or argument[0] != 0:
        return None
    if function.op == "Erf":
        return "none" if len(argument) == 2 and close(argument[1], math.sqrt(0.5), x) else None
    root = math.sqrt(2 / math.pi)
    if len(argument) != 4 or argument[2] != 0 or not close(argument[1], root, x):
        return None
    return "tanh" if close(argument[3], root * 0.044715, x) else None


class RecognizeSoftplus(_Recognize):
    """Log(1 + Exp(x)) = Softplus(x), which does not overflow; x of any shape.

    Opsets: 7 on. Exactness: reassociates. Source: ONNX operator Softplus.
    """

    roots = ("Log",)
    operator = ("Softplus", 7, "log(1+exp(x))")

    def find(self, node: Node, facts: Facts) -> Activation | None:
        total = inner(node.input(0), facts, "Add")
        beside = with_scalar(total, facts) if total is not None else None
        exp = inner(beside[0], facts, "Exp") if beside is not None and beside[1] == 1.0 else None
        x = exp.input(0) if exp is not None else None
        return None if x is None else Activation(node, x, "Softplus")


class RecognizeLogSoftmax(_Recognize):
    """Log(Softmax(x, axis)) = LogSoftmax(x, axis); x of any shape, the axis read as this opset reads it.

    Opsets: all. Exactness: reassociates. Source: ONNX operators Softmax, LogSoftmax (1, 11, 13 alike).
    """

    roots = ("Log",)
    operator = ("LogSoftmax", 1, "log(softmax(x))")
    for_doubles = True

    def find(self, node: Node, facts: Facts) -> Activation | None:
        softmax = inner(node.input(0), facts, "Softmax")
        x = softmax.input(0) if softmax is not None else None
        return None if x is None or softmax is None else Activation(node, x, "LogSoftmax", dict(softmax.attrs))
