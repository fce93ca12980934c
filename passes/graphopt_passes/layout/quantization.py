"""Quantizing what was just dequantized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule

# their steps survive float32: (q − z)·s / s is within 2⁻⁷ of q − z
_NARROW = tuple(
    int(getattr(TensorProto, name))
    for name in ("UINT8", "INT8", "UINT16", "INT16", "UINT4", "INT4")
    if hasattr(TensorProto, name)
)
_SMALLEST, _LARGEST = 1e-30, 1e30
# of the attribute `precision`, of which 0 is the scale's type
_FLOAT32 = (0, TensorProto.FLOAT)


@dataclass(frozen=True)
class Requantization:
    """`quantize` gives `source` back."""

    quantize: Node
    source: Tensor


class DropRequantization(Rule[Requantization]):
    """QuantizeLinear(DequantizeLinear(q, s, z), s, z) = q, of 4, 8 or 16 bits, float32 between them.

    (q − z)·s / s rounds to q − z, since two roundings in float32 move it by far less than a half. s is a constant, of
    an ordinary size; scale, zero point, axis and block are the same. The DequantizeLinear may have other readers.
    Opset 10 on. Exact.
    """

    roots = ("QuantizeLinear",)

    def match(self, node: Node, facts: Facts) -> Requantization | NoMatch:
        inner = facts.producer(node.input(0), "DequantizeLinear")
        source = inner.input(0) if inner is not None else None
        if inner is None or source is None or source.dtype not in _NARROW:
            return NoMatch("its input is not dequantized from 16 bits or fewer", node)
        if node.input(1) is not inner.input(1) or node.input(2) is not inner.input(2):
            return NoMatch("scale or zero point differ", node)
        if node.result.dtype != source.dtype:
            return NoMatch("it quantizes to another type", node)
        if any(node.int_attr(name, default) != inner.int_attr(name, default) for name, default in _PLACES.items()):
            return NoMatch("they quantize along different axes", node)
        if inner.result.dtype != TensorProto.FLOAT or node.int_attr("precision", 0) not in _FLOAT32:
            return NoMatch("it is not float32 between them", node)
        if not _is_ordinary(facts.value(node.input(1))):
            return NoMatch("its scale is not an ordinary constant of 32 bits", node)
        if not facts.can_forward(node.result, source):
            return NoMatch("both names must stay", node)
        return Requantization(node, source)

    def rewrite(self, found: Requantization, edit: Rewriter) -> None:
        edit.forward(found.quantize.result, found.source)


_PLACES = {"axis": 1, "block_size": 0}


def _is_ordinary(scale: Array | None) -> bool:
    if scale is None or scale.size == 0 or scale.dtype != np.float32:
        return False
    return bool(np.all((scale >= _SMALLEST) & (scale <= _LARGEST)))
