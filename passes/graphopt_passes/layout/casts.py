"""Casts of casts."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule

# bits of the value and whether there is a sign bit
_INTEGERS = {
    int(TensorProto.BOOL): (1, False),
    int(TensorProto.UINT8): (8, False),
    int(TensorProto.UINT16): (16, False),
    int(TensorProto.UINT32): (32, False),
    int(TensorProto.UINT64): (64, False),
    int(TensorProto.INT8): (7, True),
    int(TensorProto.INT16): (15, True),
    int(TensorProto.INT32): (31, True),
    int(TensorProto.INT64): (63, True),
}
# bits of the significand, largest exponent, exponent of the smallest subnormal (IEEE 754; bfloat16 is float32 cut off)
_FLOATS = {
    int(TensorProto.FLOAT16): (11, 15, -24),
    int(TensorProto.BFLOAT16): (8, 127, -133),
    int(TensorProto.FLOAT): (24, 127, -149),
    int(TensorProto.DOUBLE): (53, 1023, -1074),
}


def is_widening(source: int, target: int) -> bool:
    """Whether every value of the ONNX data type `source` is one of `target`. Unknown types are not."""
    if source in _INTEGERS and target in _INTEGERS:
        (bits, signed), (room, room_signed) = _INTEGERS[source], _INTEGERS[target]
        return bits <= room and (room_signed or not signed)
    if source in _INTEGERS and target in _FLOATS:
        significand, exponent, _ = _FLOATS[target]
        return _INTEGERS[source][0] <= min(significand, exponent)
    if source in _FLOATS and target in _FLOATS:
        (p, top, low), (room, room_top, room_low) = _FLOATS[source], _FLOATS[target]
        return p <= room and top <= room_top and low >= room_low
    return False


@dataclass(frozen=True)
class CastTwice:
    """`outer` casts to `to` what another Cast made of `source`."""

    outer: Node
    source: Tensor
    to: int


class ComposeCasts(Rule[CastTwice]):
    """Cast(Cast(x: A, B), C) = Cast(x, C), or x where C is A, if every value of A is one of B.

    Then the value that is cast to C is the same. Bool counts as 0 and 1. Float → int → float is no such pair, nor is
    what goes through a float to an integer type that does not hold all of A: what ONNX leaves undefined there (out of
    range, NaN) may come out otherwise. The inner Cast may have other readers. Opset 6 on. Exact.
    """

    roots = ("Cast",)

    def match(self, node: Node, facts: Facts) -> CastTwice | NoMatch:
        inner = facts.producer(node.input(0), "Cast")
        source = inner.input(0) if inner is not None else None
        if inner is None or source is None:
            return NoMatch("its input is not a Cast", node)
        if facts.opset(node) < 6 or source.dtype is None:
            return NoMatch("a dtype is unknown", node)
        middle, to = inner.int_attr("to", 0), node.int_attr("to", 0)
        if not is_widening(source.dtype, middle):
            return NoMatch("the inner Cast may change values", node)
        if to not in _FLOATS and to not in _INTEGERS:
            return NoMatch("it casts to a type whose rules differ", node)
        is_defined = to == TensorProto.BOOL or is_widening(source.dtype, to)
        if (source.dtype in _FLOATS or middle in _FLOATS) and to in _INTEGERS and not is_defined:
            return NoMatch("floats out of an integer's range are undefined", node)
        return CastTwice(node, source, to)

    def rewrite(self, found: CastTwice, edit: Rewriter) -> None:
        outer, source = found.outer, found.source
        if source.dtype != found.to:
            edit.replace(outer, edit.like(outer, [source]))
        elif Facts(edit.model).can_forward(outer.result, source):
            edit.forward(outer.result, source)
        else:
            edit.replace(outer, edit.node("Identity", [source], name=outer.name))
