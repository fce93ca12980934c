"""Expressions of one tensor x, however an exporter spelled them: products, polynomials, clips.

The order of factors, a division in place of a product, constants on either side: all of it disappears here, so that a
rule compares numbers in place of spellings. Inner tensors have one reader; constants are scalars.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from ml_dtypes import finfo

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor, numpy_dtype
from graphopt_passes.common.folding import FLOATS, rounds_at

# What an expression may hold at most: a rule looks at a few nodes, whatever the graph.
MOST_FACTORS = 4
MOST_DEPTH = 6
MOST_DEGREE = 3

Polynomial = tuple[float, ...]  # coefficients, of x⁰ first


def close(value: float, expected: float, tensor: Tensor) -> bool:
    """Whether a constant beside `tensor` is `expected`, up to the rounding of the tensor's type."""
    if tensor.dtype not in FLOATS:
        return False
    eps = float(finfo(numpy_dtype(tensor.dtype)).eps)  # type: ignore[no-untyped-call]
    return abs(value - expected) <= 4 * eps * max(abs(expected), 1e-6)


def rounds_to(value: float, expected: float, tensor: Tensor) -> bool:
    """Whether a number beside `tensor` is `expected` in the tensor's type: where a result may be exactly that."""
    if tensor.dtype not in FLOATS:
        return False
    with np.errstate(over="ignore"):  # infinity is another number
        return float(np.asarray(value).astype(numpy_dtype(tensor.dtype))) == expected


def may_round(value: float, tensor: Tensor) -> bool:
    """Whether `value` may be added to numbers of the tensor's type in order to round them.

    x + c − c is no x where c is large: 1.5 · 2²³ rounds float32 to integers. True, too, where the type is unknown.
    """
    return tensor.dtype not in FLOATS or abs(value) >= rounds_at(tensor.dtype)


def scalar_beside(constant: Tensor | None, data: Tensor | None, facts: Facts) -> float | None:
    """The one number of `constant`, whose rank does not enlarge `data`; None for everything else."""
    value = facts.scalar(constant)
    if constant is None or constant.constant is None or value is None or isinstance(value, (bool, complex)):
        return None
    rank = facts.rank(data)
    if constant.constant.shape and (rank is None or rank < len(constant.constant.shape)):
        return None
    return float(value)


def with_scalar(node: Node, facts: Facts) -> tuple[Tensor, float, bool] | None:
    """Of a binary operator: the data, the scalar constant, and whether the constant comes first."""
    first, second = node.input(0), node.input(1)
    if first is None or second is None or len(node.inputs) != 2 or facts.opset(node) < 7:
        return None
    right = scalar_beside(second, first, facts)
    if right is not None and first.constant is None:
        return first, right, False
    left = scalar_beside(first, second, facts)
    if left is not None and second.constant is None:
        return second, left, True
    return None


def inner(tensor: Tensor | None, facts: Facts, *ops: str) -> Node | None:
    """The producer of `tensor`, one of `ops`, when one node alone reads the tensor (however often), in its graph."""
    node = facts.producer(tensor, *ops)
    if node is None or tensor is None or tensor.is_output or len(tensor.consumers) != 1:
        return None
    return node if next(iter(tensor.consumers)).graph is node.graph else None


def read_only_by(tensor: Tensor, nodes: Collection[Node]) -> bool:
    """Whether `nodes`, few, are all that read `tensor`; takes no longer for a tensor with many readers."""
    return not tensor.is_output and len(tensor.consumers) <= len(nodes) and all(c in nodes for c in tensor.consumers)


@dataclass(frozen=True)
class Product:
    """coefficient · Π factors."""

    coefficient: float
    factors: tuple[Tensor, ...]


def product_at(node: Node, facts: Facts) -> Product | None:
    """The product that `node`, a Mul or Div, computes; None when it has more than `MOST_FACTORS` factors."""
    coefficient, factors = 1.0, []
    stack: list[tuple[Node, int]] = [(node, 0)]
    while stack:
        current, depth = stack.pop()
        beside = with_scalar(current, facts)
        if beside is not None:
            data, value, first = beside
            if current.op == "Div" and (first or value == 0):
                return None
            coefficient = coefficient / value if current.op == "Div" else coefficient * value
            operands = [data]
        elif current.op == "Mul" and facts.opset(current) >= 7:
            operands = [t for t in current.inputs if t is not None]
        else:
            return None
        for tensor in operands:
            producer = inner(tensor, facts, "Mul", "Div") if depth < MOST_DEPTH else None
            if producer is not None and _is_product(producer, facts):
                stack.append((producer, depth + 1))
            else:
                factors.append(tensor)
        if len(factors) + len(stack) > MOST_FACTORS:
            return None
    return Product(coefficient, tuple(factors))


def _is_product(node: Node, facts: Facts) -> bool:
    beside = with_scalar(node, facts)
    if node.op == "Div":
        return beside is not None and not beside[2] and beside[1] != 0
    return facts.opset(node) >= 7


def polynomial(tensor: Tensor | None, x: Tensor, facts: Facts, depth: int = 0) -> Polynomial | None:
    """The coefficients of `tensor` as a polynomial of x of degree `MOST_DEGREE` at most; None when it is none.

    None, too, where a number is added that may be meant to round.
    """
    if tensor is x:
        return (0.0, 1.0)
    node = inner(tensor, facts, "Add", "Sub", "Mul", "Div", "Pow", "Neg")
    if node is None or depth > MOST_DEPTH:
        return None
    if node.op == "Neg":
        return _scaled(polynomial(node.input(0), x, facts, depth + 1), -1.0)
    beside = with_scalar(node, facts)
    if beside is not None:
        data, value, first = beside
        if node.op in ("Add", "Sub") and may_round(value, x):
            return None
        return _with_constant(node.op, polynomial(data, x, facts, depth + 1), value, first)
    if facts.opset(node) < 7:
        return None
    left = polynomial(node.input(0), x, facts, depth + 1)
    right = left if node.input(1) is node.input(0) else polynomial(node.input(1), x, facts, depth + 1)
    if left is None or right is None:
        return None
    if node.op == "Add":
        return _sum(left, right)
    if node.op == "Sub":
        return _sum(left, tuple(-c for c in right))
    return _times(left, right) if node.op == "Mul" else None


def _with_constant(op: str, p: Polynomial | None, value: float, first: bool) -> Polynomial | None:
    if p is None or not math.isfinite(value):
        return None
    if op == "Add":
        return (p[0] + value, *p[1:])
    if op == "Sub":
        return (value - p[0], *(-c for c in p[1:])) if first else (p[0] - value, *p[1:])
    if op == "Mul":
        return _scaled(p, value)
    if op == "Div":
        return None if first or value == 0 else _scaled(p, 1.0 / value)
    if op == "Pow" and not first and value in (1.0, 2.0, 3.0):
        result: Polynomial | None = p
        for _ in range(int(value) - 1):
            result = None if result is None else _times(result, p)
        return result
    return None


def _scaled(p: Polynomial | None, factor: float) -> Polynomial | None:
    return None if p is None else tuple(c * factor for c in p)


def _sum(a: Polynomial, b: Polynomial) -> Polynomial:
    size = max(len(a), len(b))
    return tuple((a[i] if i < len(a) else 0.0) + (b[i] if i < len(b) else 0.0) for i in range(size))


def _times(a: Polynomial, b: Polynomial) -> Polynomial | None:
    if len(a) + len(b) - 2 > MOST_DEGREE:
        return None
    result = [0.0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            result[i + j] += x * y
    return tuple(result)


@dataclass(frozen=True)
class Clipped:
    """`data` held between `low` and `high`."""

    data: Tensor
    low: float
    high: float


def clip_at(node: Node, facts: Facts) -> Clipped | None:
    """Relu, Clip of any opset, Min and Max with a scalar, and what these give when they follow each other."""
    found = _clip(node, facts)
    for _ in range(2):
        if found is None:
            return None
        before = inner(found.data, facts, "Clip", "Relu", "Min", "Max")
        earlier = _clip(before, facts) if before is not None else None
        if earlier is None:
            return found
        low = min(max(earlier.low, found.low), found.high)
        high = min(max(earlier.high, found.low), found.high)
        found = Clipped(earlier.data, low, high)
    return found


def _clip(node: Node, facts: Facts) -> Clipped | None:
    data = node.input(0)
    if data is None:
        return None
    if node.op == "Relu":
        return Clipped(data, 0.0, math.inf)
    if node.op in ("Min", "Max"):
        beside = with_scalar(node, facts)
        if beside is None or facts.opset(node) < 8:
            return None
        return Clipped(beside[0], *((-math.inf, beside[1]) if node.op == "Min" else (beside[1], math.inf)))
    if node.op != "Clip":
        return None
    if facts.opset(node) < 11:
        return Clipped(data, node.float_attr("min", -math.inf), node.float_attr("max", math.inf))
    low = -math.inf if node.input(1) is None else facts.scalar(node.input(1))
    high = math.inf if node.input(2) is None else facts.scalar(node.input(2))
    return None if low is None or high is None or low > high else Clipped(data, float(low), float(high))


def splits(factors: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """Both ways to call one of two factors x and the other one f(x)."""
    if len(factors) == 2:
        yield factors[0], factors[1]
        yield factors[1], factors[0]
