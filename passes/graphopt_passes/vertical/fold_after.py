"""Affine operators behind a linear one move into its weight and bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt_passes.common.folding import Folded, copies_much, exact_values, finite_vector, fold, peak, sum_of_shifts
from graphopt_passes.vertical.affine import NORM_OPS, SCALE_OPS, SHIFT_OPS, Affine, Channels, affine_at
from graphopt_passes.vertical.linear import Linear, linear_behind


@dataclass(frozen=True)
class LinearThenAffine:
    """s·(W·x + b) + t."""

    linear: Linear
    affine: Affine


class _FoldAffine(Rule[LinearThenAffine]):
    """s·(W·x + b) + t = (s·W)·x + (s·b + t), s and t one number an output channel."""

    exactness = Exactness.REASSOCIATES
    producers: tuple[str, ...]

    def match(self, node: Node, facts: Facts) -> LinearThenAffine | NoMatch:
        linear = next((v for v in (linear_behind(t, facts) for t in node.inputs[:2]) if v is not None), None)
        if linear is None or linear.node.op not in self.producers:
            return NoMatch(f"its input is no {self.producers[0]} of constant weight that it reads alone", node)
        affine = affine_at(node, Channels(linear.channels, linear.from_right, linear.rank), facts)
        if isinstance(affine, NoMatch):
            return affine
        if affine.data is not linear.last.result:
            return NoMatch("the constant is not on its other input", node)
        if not affine.has_scale and not linear.can_add_bias:
            return NoMatch("it is the product's bias already", node)
        if affine.has_scale and copies_much(linear.weight):
            return Refused("its weight is shared with other nodes and would be stored twice", linear.node)
        return LinearThenAffine(linear, affine)

    def rewrite(self, found: LinearThenAffine, edit: Rewriter) -> None:
        linear, affine = found.linear, found.affine
        scale, shift = affine.vectors()
        finite_vector(scale, f"the scale of '{affine.node.label}'")
        weight = linear.weight
        if affine.has_scale:
            weight = edit.constant(_scaled_weight(linear, scale), weight.name)
        bias = linear.bias
        if affine.has_shift or bias is not None:
            own = linear.bias_values()
            values = sum_of_shifts(linear.weights.dtype, own * scale, shift, unscaled=own)
            bias = edit.constant(fold_bias(linear, values), _bias_name(linear))
        edit.replace(affine.node, linear.rebuild(edit, linear.data, weight, bias))


def fold_bias(linear: Linear, values: Array) -> Folded:
    """The bias of `linear` with these `values`, [C]. Raises RewriteRefusedError when its type cannot hold them.

    Precision is not judged number by number: a bias near zero beside large ones is rounded like the sum that it is in.
    """
    shaped = values.reshape(linear.bias_shape)
    folded = Folded(linear.weights.dtype, shaped.shape, lambda: shaped)
    finite_vector(folded.array().astype(np.float64), "a folded bias")
    return folded


def scale_bounds(linear: Linear, scale: Array) -> tuple[float, float]:
    """Bounds of the magnitudes in a weight scaled by `scale`, zeros aside."""
    sizes, top = np.abs(scale[scale != 0]), peak(linear.weights)
    return float(sizes.min(initial=1.0)) * top, float(sizes.max(initial=1.0)) * top


def _scaled_weight(linear: Linear, scale: Array) -> Folded:
    source = linear.weights
    folded = Folded(source.dtype, source.shape, lambda: linear.scale_outputs(exact_values(source), scale))
    return fold(folded, channel_axis=linear.weight_axis, bounds=scale_bounds(linear, scale))


def _bias_name(linear: Linear) -> str:
    return linear.bias.name if linear.bias is not None else f"{linear.weight.name}.bias"


class FoldBatchNormIntoConv(_FoldAffine):
    """BatchNormalization(Conv(x, W, b)) = Conv(x, s·W, s·b + t), s = γ / √(σ² + ε), t = β − μ·s.

    W is [C, I/group, *kernel], for ConvTranspose [I, C/group, *kernel]; b, s, t are [C]. Strides, pads, dilations,
    group, output_padding stay.

    Opsets: all; BatchNormalization of opset 1 and 6 with is_test, of 7 and 9 with one output, of 14 and 15 without
    training_mode. Exactness: reassociates. Source: ONNX operators BatchNormalization, Conv; Jacob et al. 2018,
    arXiv 1712.05877, equation 14.
    """

    roots = NORM_OPS
    producers = ("Conv", "ConvTranspose")


class FoldScaleIntoConv(_FoldAffine):
    """Mul(Conv(x, W, b), s) = Conv(x, s·W, s·b); Div by c is s = 1/c, Neg is s = −1.

    s is a scalar or [C, 1, ...], with leading ones; shapes as for `fold-batch-norm-into-conv`.

    Opsets: all. Exactness: reassociates. Source: ONNX operators Mul, Div, Neg, Conv, ConvTranspose.
    """

    roots = SCALE_OPS
    producers = ("Conv", "ConvTranspose")


class FoldShiftIntoConv(_FoldAffine):
    """Add(Conv(x, W, b), t) = Conv(x, W, b + t); y − c is t = −c, and c − y turns the signs: Conv(x, −W, c − b).

    t is a scalar or [C, 1, ...], with leading ones.

    Opsets: all. Exactness: reassociates. Source: ONNX operators Add, Sub, Conv, ConvTranspose.
    """

    roots = SHIFT_OPS
    producers = ("Conv", "ConvTranspose")


class FoldBatchNormIntoMatmul(_FoldAffine):
    """BatchNormalization(Gemm(x, W, b)) = Gemm(x, s·W, s·b + t), and the same for MatMul with or without a bias.

    s = γ / √(σ² + ε), t = β − μ·s, [C]; W is [I, C] (or [C, I] with transB; or [C, I] left of x in a MatMul). The
    normalized axis 1 must be the one on which the weight's outputs lie.

    Opsets: as for `fold-batch-norm-into-conv`. Exactness: reassociates. Source: ONNX operators Gemm, MatMul.
    """

    roots = NORM_OPS
    producers = ("Gemm", "MatMul")


class FoldScaleIntoMatmul(_FoldAffine):
    """Mul(x·W + b, s) = x·(s·W) + s·b for Gemm and MatMul; Div by c is s = 1/c, Neg is s = −1.

    s is a scalar or [C], with leading ones ([C, 1] where W is left of x).

    Opsets: all. Exactness: reassociates. Source: ONNX operators Mul, Div, Neg, Gemm, MatMul.
    """

    roots = SCALE_OPS
    producers = ("Gemm", "MatMul")


class FoldShiftIntoMatmul(_FoldAffine):
    """Add(x·W + b, t) = x·W + (b + t) for Gemm, and for a MatMul that has a bias already; c − y turns the signs.

    Opsets: all. Exactness: reassociates. Source: ONNX operators Add, Sub, Gemm, MatMul.
    """

    roots = SHIFT_OPS
    producers = ("Gemm", "MatMul")
