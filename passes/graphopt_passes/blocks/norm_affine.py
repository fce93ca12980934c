"""A scale and a bias behind a normalization become its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.common.folding import FLOATS, Folded, exact_values, fold, sum_of_shifts
from graphopt_passes.common.shapes import broadcasts_into

_BY_AXIS = ("LayerNormalization", "RMSNormalization")
_BY_CHANNEL = ("InstanceNormalization", "GroupNormalization")


@dataclass(frozen=True)
class NormThenAffine:
    """`node` scales or shifts what `norm` makes by `factor`.

    `shape` is that of the norm's parameters; `own` is the factor's on the same axes, 1 where it broadcasts.
    """

    norm: Node
    node: Node
    factor: Tensor
    shape: tuple[int, ...]
    own: tuple[int, ...]


class _TakeIn(Rule[NormThenAffine]):
    """An elementwise operator behind a normalization."""

    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> NormThenAffine | NoMatch:
        for data, factor in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
            norm = facts.sole_producer(data, *_BY_AXIS, *_BY_CHANNEL)
            if norm is None or factor is None or len(norm.outputs) != 1:
                continue
            shapes = _parameter_shapes(norm, factor, facts)
            if shapes is None:
                return NoMatch("the other operand does not surely have the shape of the parameters", node)
            if not all(_fits(t, norm, shapes[0]) for t in norm.inputs[1:]):
                return NoMatch("the normalization's own parameters have more dimensions than it normalizes", node)
            found = NormThenAffine(norm, node, factor, *shapes)
            problem = self.problem(found, facts)
            return found if problem is None else NoMatch(problem, node)
        return NoMatch("no operand is a normalization that it reads alone", node)

    def problem(self, found: NormThenAffine, facts: Facts) -> str | None:
        """What keeps the normalization from taking the factor in."""
        raise NotImplementedError

    def replace(self, found: NormThenAffine, scale: Tensor | None, bias: Tensor | None, edit: Rewriter) -> None:
        """Puts the normalization with other parameters in the place of both."""
        inputs = [found.norm.inputs[0], scale, bias]
        edit.replace(found.node, edit.like(found.norm, inputs))


class FoldScaleIntoNorm(_TakeIn):
    """norm(x, γ, β) · s = norm(x, γ·s, β·s); where γ is 1 and there is no β, s may be computed.

    norm is LayerNormalization or RMSNormalization, s [*D] for the normalized dimensions D, or InstanceNormalization or
    GroupNormalization, s [C, 1, ...]. Constants γ and β broadcast to [*D], or are [C].

    Opsets: 7 on. Exactness: reassociates. Source: ONNX operator LayerNormalization.
    """

    roots = ("Mul",)

    def problem(self, found: NormThenAffine, facts: Facts) -> str | None:
        bias = found.norm.input(2)
        if is_all(found.norm.input(1), 1.0, facts) and (bias is None or is_all(bias, 0.0, facts)):
            computed = found.factor.constant is None and found.factor.shape != found.shape
            return "a computed scale would have to be reshaped" if computed else None
        parts = [found.factor, found.norm.input(1), *([bias] if bias is not None else [])]
        return None if _are_constants(parts) else "the scales are not constant"

    def rewrite(self, found: NormThenAffine, edit: Rewriter) -> None:
        scale, bias, factor = found.norm.inputs[1], found.norm.input(2), found.factor
        if factor.constant is None:
            self.replace(found, factor, bias, edit)
            return
        assert scale is not None
        new = _combined(found, scale, np.multiply, edit)
        shift = None if bias is None else _combined(found, bias, np.multiply, edit)
        self.replace(found, new, shift, edit)


class FoldShiftIntoNorm(_TakeIn):
    """norm(x, γ, β) + t = norm(x, γ, β + t); where there is no β, or it is 0, t may be computed.

    norm is LayerNormalization, t [*D] for the normalized dimensions D, or InstanceNormalization or
    GroupNormalization, t [C, 1, ...]. Constants γ and β broadcast to [*D], or are [C]. Not where β or t is so large
    that it may be meant to round: norm(x) + c − c.

    Opsets: 7 on. Exactness: reassociates. Source: ONNX operator LayerNormalization.
    """

    roots = ("Add",)

    def problem(self, found: NormThenAffine, facts: Facts) -> str | None:
        if found.norm.op == "RMSNormalization":
            return "an RMS normalization has no bias"
        bias = found.norm.input(2)
        if bias is None or is_all(bias, 0.0, facts):
            computed = found.factor.constant is None and found.factor.shape != found.shape
            return "a computed bias would have to be reshaped" if computed else None
        return None if _are_constants([found.factor, bias]) else "the biases are not constant"

    def rewrite(self, found: NormThenAffine, edit: Rewriter) -> None:
        scale, bias, factor = found.norm.inputs[1], found.norm.input(2), found.factor
        if factor.constant is None:
            self.replace(found, scale, factor, edit)
            return
        constant = factor.constant

        def added(old: Array, new: Array) -> Array:
            return sum_of_shifts(constant.dtype, old, new)

        self.replace(found, scale, _combined(found, bias, added, edit), edit)


def _combined(
    found: NormThenAffine, old: Tensor | None, function: Callable[[Array, Array], Array], edit: Rewriter
) -> Tensor:
    """`function` of an old parameter and the factor, or the factor alone, as a new constant of the norm's shape.

    Raises RewriteRefusedError, also where `function` does.
    """
    factor, shape, own = found.factor.constant, found.shape, found.own
    assert factor is not None
    kept = old.constant if old is not None else None

    def values() -> Array:
        numbers = exact_values(factor).reshape(own)
        return np.asarray(np.broadcast_to(numbers if kept is None else function(exact_values(kept), numbers), shape))

    name = found.factor.name if factor.size > 1 else f"{found.norm.label}.parameter"
    return edit.constant(fold(Folded(factor.dtype, shape, values)), name)


def _parameter_shapes(norm: Node, factor: Tensor, facts: Facts) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The shape of the norm's parameters, and the factor's on these axes, when it is 1 on all others.

    A computed factor has one number for each parameter; a constant may broadcast.
    """
    x, given = norm.input(0), facts.static_shape(factor)
    if x is None or x.shape is None or given is None or factor.dtype not in FLOATS or len(given) > len(x.shape):
        return None
    rank = len(x.shape)
    start, stop = 1, 2
    if norm.op in _BY_AXIS:
        axis = norm.int_attr("axis", -1)
        start, stop = (axis + rank if axis < 0 else axis), rank
    shape = tuple(d for d in x.shape[start:stop] if isinstance(d, int))
    aligned = (*[1] * (rank - len(given)), *given)
    own = aligned[start:stop]
    if len(shape) != stop - start or math.prod(own) != math.prod(given):
        return None
    if factor.constant is None:
        return (shape, own) if own == shape else None
    return (shape, own) if all(o in (1, d) for o, d in zip(own, shape, strict=True)) else None


def _fits(parameter: Tensor | None, norm: Node, shape: tuple[int, ...]) -> bool:
    """Whether the old parameter, where it is a constant, has no number more than the new one of `shape`."""
    if parameter is None or parameter.constant is None:
        return True
    own = parameter.constant.shape
    return broadcasts_into(own, shape) if norm.op in _BY_AXIS else own == shape


def is_all(tensor: Tensor | None, number: float, facts: Facts) -> bool:
    """Whether every value of a small constant is `number`."""
    value = facts.value(tensor)
    return value is not None and bool((value == number).all())


def _are_constants(tensors: list[Tensor | None]) -> bool:
    return all(t is not None and t.constant is not None for t in tensors)
