"""Arithmetic and logic with the operation's neutral element.

Every rule here needs that broadcasting does not enlarge the other operand: the constant is a scalar, or each of its
dimensions, from the back, is 1 or the operand's. Operands have one dtype by ONNX's rules, so the dtype stays.
"""

from __future__ import annotations

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rule import Exactness, NoMatch
from graphopt_passes.common.shapes import broadcasts_into, is_same
from graphopt_passes.dead_layers.wires import NoOp, returned

# operator -> (value of its neutral element, whether it may stand on the left as well)
_NEUTRAL: dict[str, tuple[float | int | bool, bool]] = {
    "Add": (0, True),
    "Sub": (0, False),
    "Mul": (1, True),
    "Div": (1, False),
    "Pow": (1, False),
    "Or": (False, True),
    "And": (True, True),
    "Xor": (False, True),
    "BitShift": (0, False),
    "BitwiseOr": (0, True),
    "BitwiseXor": (0, True),
}
_BROADCASTS_SINCE = 7  # before, Add and its like had the attributes `axis` and `broadcast`


class DropNeutralElement(NoOp):
    """x − 0, x · 1, x / 1, x¹, x ∨ false, x ∧ true, x ⊕ false, x << 0, x | 0, and x + 0 of integers = x.

    In floats x + (−0.0) = x and x − (+0.0) = x for every x, −0.0 included; x + (+0.0) and x − (−0.0) turn −0.0 into
    +0.0 and are left to `DropPositiveZero`. 1·x, x/1 and x¹ return NaN, infinities and −0.0 as they are (IEEE 754,
    6.3; C11, F.10.4.4). Opset 7 on. Exact.
    """

    roots = tuple(_NEUTRAL)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        return neutral_operand(node, facts, sign_of_zero_matters=True)


class DropPositiveZero(NoOp):
    """x + (+0.0) = x and x − (−0.0) = x in floats, but for x = −0.0, which the operation turns into +0.0.

    Opset 7 on. Reassociates: only the sign of a zero differs.
    """

    roots = ("Add", "Sub")
    exactness = Exactness.REASSOCIATES

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        return neutral_operand(node, facts, sign_of_zero_matters=False)


def neutral_operand(node: Node, facts: Facts, *, sign_of_zero_matters: bool) -> Tensor | NoMatch:
    """The operand that `node` returns because the other one is neutral and does not enlarge it."""
    value, commutes = _NEUTRAL[node.op]
    if facts.opset(node) < _BROADCASTS_SINCE or len(node.inputs) != 2:
        return NoMatch("it is of an opset before broadcasting", node)
    for constant, other in ((node.input(1), node.input(0)), (node.input(0), node.input(1)))[: 2 if commutes else 1]:
        if not is_filled(constant, value, facts):
            continue
        if sign_of_zero_matters and not _keeps_sign_of_zero(node, constant, facts):
            return NoMatch("it turns −0.0 into +0.0", node)
        if not keeps_shape(node, other, [constant], facts):
            return NoMatch("its constant may enlarge the other operand", node)
        return returned(other, node)
    return NoMatch("no operand is its neutral element", node)


def is_filled(tensor: Tensor | None, value: float | int | bool, facts: Facts) -> bool:
    """Whether a small constant has at least one element and all are `value`."""
    array = facts.value(tensor)
    if array is None or array.size == 0 or array.dtype.kind in "OSU" or array.item(0) != value:
        return False
    return bool(np.all(array == np.asarray(value).astype(array.dtype)))


def keeps_shape(node: Node, operand: Tensor | None, others: list[Tensor | None], facts: Facts) -> bool:
    """Whether the result of a broadcasting `node` surely has the shape of `operand`."""
    if operand is None:
        return False
    if is_same(facts, operand, node.result):
        return True
    return all(o is not None and broadcasts_into(o.shape, operand.shape) for o in others)


def _keeps_sign_of_zero(node: Node, constant: Tensor | None, facts: Facts) -> bool:
    array = facts.value(constant)
    if array is None or node.op not in ("Add", "Sub") or array.dtype.kind in "iu":
        return True
    negative = np.signbit(array.astype(np.float64))
    return bool(negative.all()) if node.op == "Add" else not bool(negative.any())


class DropSelectOfKnownSide(NoOp):
    """Where(c, x, y) = x where c is constant true all over, = y where it is false all over, = x where y is x.

    Where neither c nor the other side enlarges the one returned. Opset 9 on. Exact.
    """

    roots = ("Where",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        condition, x, y = node.input(0), node.input(1), node.input(2)
        if x is y or is_filled(condition, True, facts):
            chosen = x
        elif is_filled(condition, False, facts):
            chosen = y
        else:
            return NoMatch("its condition is not constant", node)
        if not keeps_shape(node, chosen, [condition, x, y], facts):
            return NoMatch("the side it returns may be enlarged", node)
        return returned(chosen, node)


class DropOperationWithItself(NoOp):
    """x ∧ x, x ∨ x, x & x, x | x, Max(x, ..., x) and Min(x, ..., x) = x. Opset 7 on. Exact."""

    roots = ("And", "Or", "BitwiseAnd", "BitwiseOr", "Max", "Min")

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        first = node.input(0)
        if facts.opset(node) < _BROADCASTS_SINCE or any(t is not first for t in node.inputs):
            return NoMatch("its operands differ", node)
        return returned(first, node)
