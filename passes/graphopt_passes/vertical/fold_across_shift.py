"""A scale before a shift that cannot cross zero padding: the scale crosses both alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Array, Node
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, RewriteRefusedError, Rule
from graphopt_passes.common.folding import Folded, copies_much, finite_vector, fold
from graphopt_passes.vertical.affine import NORM_OPS, SCALE_OPS, SHIFT_OPS, Affine, affine_at
from graphopt_passes.vertical.fold_before import input_channels, keeps_shape, scaled_inputs, shift_problem
from graphopt_passes.vertical.linear import Linear, linear_at

# float16 may not hold t / s, though it holds t
_TYPES = (TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.DOUBLE)
# A larger shift may be meant to round what it is added to (x + 1.5 · 2²³): another one would round to another grid.
_MOST_SHIFT = 1024.0


@dataclass(frozen=True)
class ScaleShiftLinear:
    """linear(shift(scale(x))); each of both reads what the one before it makes."""

    scale: Affine
    shift: Affine
    linear: Linear

    def vectors(self) -> tuple[Array, Array]:
        """σ and τ of σ·x + τ."""
        scale, first = self.scale.vectors()
        sign, second = self.shift.vectors()
        return sign * scale, sign * first + second


class FoldScaleAcrossShift(Rule[ScaleShiftLinear]):
    """Conv(s·x + t, W, b) = Conv(x + t/s, W·s, b), s and t scalars or [I], s nowhere 0, where the Conv pads.

    Padding adds zeros, and s·0 = 0: so s crosses it though t does not. t − s·x turns the sign of s. W is
    [C, I/group, *kernel], for ConvTranspose [I, C/group, *kernel].

    Opsets: 7 on; not for float16, whose range t/s may leave. Exactness: reassociates. Source: ONNX operators Conv, Mul.
    """

    roots = ("Conv", "ConvTranspose")
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> ScaleShiftLinear | NoMatch:
        if facts.opset(node) < 7:
            return NoMatch("before opset 7 an Add broadcasts in its own way", node)
        linear = linear_at(node, facts)
        if linear is None or linear.weights.dtype not in _TYPES:
            return NoMatch("its weight or bias is not constant, or of float16", node)
        second = facts.sole_producer(linear.data, *SHIFT_OPS)
        shift = affine_at(second, input_channels(linear, facts), facts) if second is not None else None
        if shift is None or isinstance(shift, NoMatch) or not keeps_shape(shift, facts):
            return NoMatch("its input is no shift by constants that it reads alone", node)
        first = facts.sole_producer(shift.data, *SCALE_OPS)
        scale = affine_at(first, shift.channels, facts) if first is not None else None
        if scale is None or isinstance(scale, NoMatch) or scale.node.op in NORM_OPS or not keeps_shape(scale, facts):
            return NoMatch("nothing scales before the shift", node)
        if shift_problem(shift, linear) is None:
            return NoMatch("the shift can move into the bias", node)
        if copies_much(linear.weight):
            return Refused("its weight is shared with other nodes and would be stored twice", node)
        return ScaleShiftLinear(scale, shift, linear)

    def rewrite(self, found: ScaleShiftLinear, edit: Rewriter) -> None:
        linear, data = found.linear, found.scale.data
        scale, shift = found.vectors()
        if not scale.all():
            raise RewriteRefusedError(f"the scale of '{found.scale.node.label}' is zero for a channel")
        if not (np.abs(shift) <= _MOST_SHIFT).all():
            raise RewriteRefusedError("the shift is so large that what it is added to is rounded, which may be meant")
        weight = edit.constant(scaled_inputs(linear, scale, found.scale.node.label), linear.weight.name)
        moved = edit.node("Add", [data, edit.constant(_constant(found, shift / scale), "shift")])
        edit.replace(linear.last, linear.rebuild(edit, moved.result, weight, linear.bias))


def _constant(found: ScaleShiftLinear, values: Array) -> Folded:
    """The shift, as a constant that broadcasts like those of the old operators."""
    finite_vector(values, f"the shift of '{found.shift.node.label}'")
    shaped = values.reshape(-1, *[1] * found.shift.channels.from_right)
    if (shaped == shaped.reshape(-1)[0]).all():
        shaped = np.asarray(shaped.reshape(-1)[0])
    folded = Folded(found.linear.weights.dtype, shaped.shape, lambda: shaped)
    return fold(folded, channel_axis=0 if shaped.ndim else None)
