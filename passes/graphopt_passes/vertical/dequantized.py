"""Affine operators behind a Conv whose weights are quantized: they move into the scale of the DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Constant, Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, RewriteRefusedError, Rule
from graphopt_passes.common.folding import FLOATS, exact_values, finite_vector
from graphopt_passes.vertical.affine import AFFINE_OPS, Affine, Channels, affine_at

# DequantizeLinear: a scale for each channel from this opset on.
_PER_CHANNEL = 13


@dataclass(frozen=True)
class Dequantized:
    """(weights − zero point) · scale of a DequantizeLinear, all constant, one scale or one along axis 0."""

    node: Node
    weights: Constant
    scale: Constant
    zero: Constant | None


@dataclass(frozen=True)
class QuantizedThenAffine:
    """s·(Conv(x, dequantized, b)) + t; `bias` is a Constant, a Dequantized, or None where there is none."""

    conv: Node
    dequantized: Dequantized
    bias: Constant | Dequantized | None
    affine: Affine


class FoldAffineIntoDequantizedConv(Rule[QuantizedThenAffine]):
    """s·Conv(x, (Q − z)·c, b) + t = Conv(x, (Q − z)·(c·s), s·b + t), Q int8 or the like, c a scalar or [C], s > 0 [C].

    The quantized weights stay as they are, only their scales change. A bias that is dequantized becomes a float one.
    A QuantizeLinear between the Conv and the affine operator keeps both apart. An s that is not positive is refused:
    scales are.

    Opsets: 10 on; 13 on where the scales become one a channel. Exactness: reassociates. Source: ONNX operators
    DequantizeLinear, Conv.
    """

    roots = AFFINE_OPS
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> QuantizedThenAffine | NoMatch:
        conv = next((c for t in node.inputs[:2] if (c := facts.sole_producer(t, "Conv")) is not None), None)
        dequantized = dequantized_at(conv.input(1), facts) if conv is not None else None
        if conv is None or dequantized is None or len(dequantized.weights.shape) < 3:
            return NoMatch("its input is no Conv of dequantized constants that it reads alone", node)
        rank, channels = len(dequantized.weights.shape), dequantized.weights.shape[0]
        affine = affine_at(node, Channels(channels, rank - 2, rank), facts)
        if isinstance(affine, NoMatch):
            return affine
        if affine.data is not conv.result:
            return NoMatch("the constant is not on its other input", node)
        bias: Constant | Dequantized | None = None
        if conv.input(2) is not None:
            bias = facts.constant(conv.input(2)) or dequantized_at(conv.input(2), facts)
            if bias is None:
                return NoMatch("the Conv's bias is computed", conv)
        if affine.has_scale and dequantized.scale.size == 1 and channels > 1 and facts.opset(node) < _PER_CHANNEL:
            return Refused("a scale for each channel needs opset 13", dequantized.node)
        return QuantizedThenAffine(conv, dequantized, bias, affine)

    def rewrite(self, found: QuantizedThenAffine, edit: Rewriter) -> None:
        conv, old = found.conv, found.dequantized
        scale, shift = found.affine.vectors()
        weight = conv.inputs[1]
        if found.affine.has_scale:
            weight = self._rescaled(old, scale, edit)
        bias = conv.input(2)
        if found.affine.has_shift or bias is not None:
            values = _bias_values(found.bias, len(scale)) * scale + shift
            rounded = values.astype(numpy_dtype(old.scale.dtype))
            finite_vector(rounded.astype(np.float64), "a folded bias")
            bias = edit.constant(rounded, f"{conv.label}.bias")
        edit.replace(found.affine.node, edit.like(conv, [conv.inputs[0], weight, bias]))

    def _rescaled(self, old: Dequantized, factors: Array, edit: Rewriter) -> Tensor:
        kind = numpy_dtype(old.scale.dtype)
        scales = (exact_values(old.scale).reshape(-1) * factors).astype(kind)
        finite_vector(scales.astype(np.float64), "a scale of quantized weights")
        if not (scales > 0).all():
            raise RewriteRefusedError("a scale of quantized weights would not be positive")
        zero = old.node.input(2)
        if old.zero is not None and old.zero.size == 1 and len(scales) > 1:
            zero = edit.constant(np.full(len(scales), old.zero.array().reshape(-1)[0]), "zero_point")
        given = old.node.inputs[1]
        assert given is not None
        return edit.like(old.node, [old.node.inputs[0], edit.constant(scales, given.name), zero], axis=0).result


def dequantized_at(tensor: Tensor | None, facts: Facts) -> Dequantized | None:
    """The DequantizeLinear of constants that makes `tensor` for one reader, with scales along axis 0 or one scale."""
    node = facts.sole_producer(tensor, "DequantizeLinear")
    if node is None or node.int_attr("block_size", 0):
        return None
    weights, scale = facts.constant(node.input(0)), facts.constant(node.input(1))
    zero = facts.constant(node.input(2))
    if weights is None or scale is None or scale.dtype not in FLOATS or not weights.shape:
        return None
    if node.input(2) is not None and (zero is None or zero.shape != scale.shape):
        return None
    along = node.int_attr("axis", 1) in (0, -len(weights.shape))
    if scale.size != 1 and not (along and scale.shape == weights.shape[:1]):
        return None
    return Dequantized(node, weights, scale, zero)


def _bias_values(bias: Constant | Dequantized | None, channels: int) -> Array:
    """The bias as float64 [C]."""
    if bias is None:
        return np.zeros(channels)
    if isinstance(bias, Constant):
        return exact_values(bias).reshape(-1)
    zero = 0.0 if bias.zero is None else exact_values(bias.zero).reshape(-1)
    return np.asarray((exact_values(bias.weights).reshape(-1) - zero) * exact_values(bias.scale).reshape(-1))
