"""Affine operators behind a linear one whose weights are quantized: they move into the scale of DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, RewriteRefusedError, Rule
from graphopt_passes.common.folding import FLOATS, Folded, exact_values, finite_vector, fold, sum_of_shifts
from graphopt_passes.vertical.affine import AFFINE_OPS, Affine, affine_at
from graphopt_passes.vertical.dequantized_linear import Dequantized, DequantizedLinear, dequantized_behind

# DequantizeLinear: a scale for each channel from this opset on.
_PER_CHANNEL = 13


@dataclass(frozen=True)
class QuantizedThenAffine:
    """s·(linear(x, dequantized, b)) + t."""

    linear: DequantizedLinear
    affine: Affine


class _FoldAffine(Rule[QuantizedThenAffine]):
    """s·(W·x + b) + t, W = (Q − z)·c."""

    roots = AFFINE_OPS
    exactness = Exactness.REASSOCIATES
    producers: tuple[str, ...]

    def match(self, node: Node, facts: Facts) -> QuantizedThenAffine | NoMatch:
        views = (dequantized_behind(t, facts) for t in node.inputs[:2])
        linear = next((v for v in views if v is not None and v.node.op in self.producers), None)
        if linear is None:
            return NoMatch(f"its input is no {self.producers[0]} of dequantized constants that it reads alone", node)
        affine = affine_at(node, linear.channels, facts)
        if isinstance(affine, NoMatch):
            return affine
        if affine.data is not linear.last.result:
            return NoMatch("the constant is not on its other input", node)
        if not affine.has_scale and not linear.can_add_bias:
            return NoMatch("it is the product's bias already", node)
        if linear.node.result.dtype not in FLOATS:
            return NoMatch("its type is not known", node)
        weight = linear.weight
        many = affine.has_scale and linear.channels.count > 1
        if many and facts.opset(node) < _PER_CHANNEL:
            return Refused("a scale for each channel needs opset 13", weight.node)
        return QuantizedThenAffine(linear, affine)

    def rewrite(self, found: QuantizedThenAffine, edit: Rewriter) -> None:
        linear, old = found.linear, found.linear.weight
        scale, shift = found.affine.vectors()
        weight: Tensor | None = linear.node.inputs[1]
        if found.affine.has_scale:
            weight = _rescaled(old, scale, edit)
        bias = None
        if found.affine.has_shift or linear.has_bias:
            dtype, own = linear.node.result.dtype, linear.bias_values()
            assert dtype is not None
            rounded = sum_of_shifts(dtype, own * scale, shift, unscaled=own).astype(numpy_dtype(dtype))
            finite_vector(rounded.astype(np.float64), "a folded bias")
            bias = edit.constant(rounded, f"{linear.node.label}.bias")
        edit.replace(found.affine.node, linear.rebuild(edit, weight, bias))


def _rescaled(old: Dequantized, factors: Array, edit: Rewriter) -> Tensor:
    """The weights with the scale of each channel multiplied. Raises RewriteRefusedError."""
    exact = exact_values(old.scale).reshape(-1) * factors
    scales = fold(Folded(old.scale.dtype, exact.shape, lambda: exact), channel_axis=0).array()
    if not (scales > 0).all():
        raise RewriteRefusedError("a scale of quantized weights would not be positive")
    zero = old.node.input(2)
    if old.zero is not None and old.zero.size == 1 and len(scales) > 1:
        zero = edit.constant(np.full(len(scales), old.zero.array().reshape(-1)[0]), "zero_point")
    given = old.node.inputs[1]
    assert given is not None
    along = {"axis": old.axis} if len(scales) > 1 else {}  # an attribute of opset 13
    if scales.size == old.scale.size:
        scales = scales.reshape(old.scale.shape)
    return edit.like(old.node, [old.node.inputs[0], edit.constant(scales, given.name), zero], **along).result


class FoldAffineIntoDequantizedConv(_FoldAffine):
    """s·Conv(x, (Q − z)·c, b) + t = Conv(x, (Q − z)·(c·s), s·b + t), Q int8 or the like, c a scalar or [C], s > 0 [C].

    The quantized weights stay as they are, only their scales change. A bias that is dequantized becomes a float one.
    A QuantizeLinear between the Conv and the affine operator keeps both apart. An s that is not positive is refused:
    scales are. ConvTranspose is taken without groups, where its output channels lie along one axis.

    Opsets: 10 on; 13 on where the scales become one a channel. Exactness: reassociates. Source: ONNX operators
    DequantizeLinear, Conv, ConvTranspose.
    """

    producers = ("Conv", "ConvTranspose")


class FoldAffineIntoDequantizedMatmul(_FoldAffine):
    """s·(x·(Q − z)·c + b) + t = x·(Q − z)·(c·s) + (s·b + t) for Gemm and MatMul, c a scalar or [C], s > 0 [C].

    Q is [I, C], or [C, I] with transB. A MatMul takes a shift only where it has a bias. As for
    `fold-affine-into-dequantized-conv`, only scales and bias change.

    Opsets: 10 on; 13 on where the scales become one a channel. Exactness: reassociates. Source: ONNX operators
    DequantizeLinear, Gemm, MatMul.
    """

    producers = ("Gemm", "MatMul")
