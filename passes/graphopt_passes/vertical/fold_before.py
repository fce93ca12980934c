"""Affine operators before a linear one move into its weight and bias; a shift does not cross zero padding."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Array, Node
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt_passes.common.folding import (
    Folded,
    copies_much,
    exact_values,
    finite_vector,
    fold,
    moved_shift,
    sum_of_shifts,
)
from graphopt_passes.common.whole_blocks import ends_block
from graphopt_passes.vertical.affine import AFFINE_OPS, NORM_OPS, Affine, Channels, affine_at
from graphopt_passes.vertical.fold_after import fold_bias, scale_bounds
from graphopt_passes.vertical.geometry import is_pointwise, may_pad
from graphopt_passes.vertical.linear import ConvTransposeLinear, Linear, linear_at


@dataclass(frozen=True)
class AffineThenLinear:
    """W·(s·x + t) + b."""

    affine: Affine
    linear: Linear


class _FoldAffineBefore(Rule[AffineThenLinear]):
    """W·(s·x + t) + b = (W·s)·x + (W·t + b), s and t one number an input channel."""

    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> AffineThenLinear | NoMatch:
        linear = linear_at(node, facts)
        if linear is None:
            return NoMatch("its weight or bias is not constant", node)
        before = facts.sole_producer(linear.data, *AFFINE_OPS)
        if before is None:
            return NoMatch("its input is no affine operator that it reads alone", node)
        affine = affine_at(before, input_channels(linear, facts), facts)
        if isinstance(affine, NoMatch):
            return affine
        problem = enters(affine, linear, facts)
        if problem is not None:
            return problem
        if whole := ends_block(before, facts):
            return whole
        return AffineThenLinear(affine, linear)

    def rewrite(self, found: AffineThenLinear, edit: Rewriter) -> None:
        take_in(found.affine, found.linear, edit)


def take_in(affine: Affine, linear: Linear, edit: Rewriter) -> None:
    """Puts W·(s·x + t) + b as one linear operator of x in the place of `linear`. Raises RewriteRefusedError."""
    scale, shift = affine.vectors()
    weight, bias = linear.weight, linear.bias
    if affine.has_scale:
        weight = edit.constant(scaled_inputs(linear, scale, affine.node.label), weight.name)
    if affine.has_shift:
        moved = linear.response(exact_values(linear.weights), moved_shift(linear.weights.dtype, shift))
        values = sum_of_shifts(linear.weights.dtype, linear.bias_values(), moved)
        bias = edit.constant(fold_bias(linear, values), bias.name if bias is not None else f"{weight.name}.bias")
    edit.replace(linear.last, linear.rebuild(edit, affine.data, weight, bias))


def scaled_inputs(linear: Linear, scale: Array, label: str) -> Folded:
    """The weight whose input channel c is multiplied by scale[c]; `label` names who scales.

    Raises RewriteRefusedError when its type cannot hold it.
    """
    finite_vector(scale, f"the scale of '{label}'")
    source = linear.weights
    folded = Folded(source.dtype, source.shape, lambda: linear.scale_inputs(exact_values(source), scale))
    return fold(folded, channel_axis=linear.weight_axis, bounds=scale_bounds(linear, scale))


def enters(affine: Affine, linear: Linear, facts: Facts) -> NoMatch | None:
    """Why the affine operator before `linear` cannot move into its weight and bias; None when it can."""
    if not keeps_shape(affine, facts):
        return NoMatch("the constant may enlarge the data", affine.node)
    problem = shift_problem(affine, linear)
    if problem is not None:
        return problem
    if affine.has_scale and copies_much(linear.weight):
        return Refused("its weight is shared with other nodes and would be stored twice", linear.node)
    return None


def input_channels(linear: Linear, facts: Facts) -> Channels:
    """Where the channels of the data lie that `linear` reads."""
    if linear.node.op == "MatMul":
        return Channels(linear.in_channels, linear.from_right, facts.rank(linear.data))
    return Channels(linear.in_channels, linear.data_from_right, linear.rank)


def keeps_shape(affine: Affine, facts: Facts) -> bool:
    """Whether the affine operator's result surely has the shape of its data."""
    if affine.node.op in NORM_OPS or not affine.constants or not affine.constants[0].shape:
        return True
    channels, shape = affine.channels, affine.data.shape
    if shape is None or channels.rank != len(shape):
        return False
    return affine.constants[0].size == 1 or shape[len(shape) - 1 - channels.from_right] == channels.count


def shift_problem(affine: Affine, linear: Linear) -> NoMatch | None:
    """Why a shift cannot move behind `linear`; None when it can, or there is none."""
    if not affine.has_shift:
        return None
    if not linear.can_add_bias:
        return NoMatch("a MatMul has no bias to take the shift", linear.node)
    if isinstance(linear, ConvTransposeLinear):
        if not is_pointwise(linear.node) or may_pad(linear.node):
            return Refused("the shift would differ from position to position behind the ConvTranspose", affine.node)
    elif linear.node.op == "Conv":
        if may_pad(linear.node):
            return Refused("its shift would have to cross the zero padding of the Conv behind it", affine.node)
    elif linear.node.op == "MatMul" and len(linear.weights.shape) != 2:
        return NoMatch("the weight has batch dimensions", linear.node)
    return None


class FoldAffineBeforeConv(_FoldAffineBefore):
    """Conv(s·x + t, W, b) = Conv(x, W·s, b + Σ W·t), s and t scalars or [I]; t only where nothing is padded.

    W is [C, I/group, *kernel]: input channel i of group g is column i − g·I/group. For ConvTranspose W is
    [I, C/group, *kernel], and a shift needs a 1×1 kernel of stride 1, since borders see part of a larger one.
    s·x + t is a BatchNormalization in inference form, Mul, Div, Neg, Add or Sub.

    Opsets: all. Exactness: reassociates. Source: ONNX operators Conv, ConvTranspose, BatchNormalization.
    """

    roots = ("Conv", "ConvTranspose")


class FoldAffineBeforeMatmul(_FoldAffineBefore):
    """(s·x + t)·W + b = x·(s·W) + (t·W + b) for Gemm and MatMul, s and t scalars or [I].

    W is [I, C]: its rows are scaled (columns with transB, or where W is left of x). A MatMul takes a shift only where
    it has a bias.

    Opsets: all. Exactness: reassociates. Source: ONNX operators Gemm, MatMul.
    """

    roots = ("Gemm", "MatMul", "Add")
