"""The one division of constants that a processor refuses, and that ends the process which runs it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from graphopt.verification import source

_SIGNED = (TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64)
_MOST_ELEMENTS = 1 << 16  # longer operands are weights


def divides_fatally(proto: onnx.ModelProto) -> bool:
    """Whether a Div or Mod has the least integer of its type among one constant operand and -1 in the other.

    The quotient has no place in the type. Operands that are computed are not looked at.
    """
    divisions = [n for n in source.nodes(proto) if n.op_type in ("Div", "Mod") and len(n.input) == 2]
    if not divisions:
        return False
    constants = {t.name: t for graph in source.graphs(proto) for t in graph.initializer if t.data_type in _SIGNED}
    for node in source.nodes(proto):
        if node.op_type == "Constant" and node.output:
            constants.update((node.output[0], a.t) for a in node.attribute if a.t.data_type in _SIGNED)
    return any(
        n.input[0] in constants and n.input[1] in constants and _overflows(constants[n.input[0]], constants[n.input[1]])
        for n in divisions
    )


def _overflows(dividend: TensorProto, divisor: TensorProto) -> bool:
    if any(source.is_external(t) or np.prod(t.dims, dtype=object) > _MOST_ELEMENTS for t in (dividend, divisor)):
        return False
    numerator, denominator = numpy_helper.to_array(dividend), numpy_helper.to_array(divisor)
    least = np.iinfo(numerator.dtype).min
    return bool((numerator == least).any() and (denominator == -1).any())
