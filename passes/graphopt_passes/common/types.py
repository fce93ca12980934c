"""Which types operators take, by the standard's own schemas, and which of them runtimes have kernels for."""

from __future__ import annotations

from functools import lru_cache

from onnx import TensorProto, defs

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor, bits_of


@lru_cache(maxsize=1024)
def takes(op: str, opset: int, dtype: int | None) -> bool:
    """Whether the operator's first input may have this type in this opset; unknown means no.

    False, too, for an operator that the opset lacks, has deprecated, or that has no inputs.
    """
    if dtype is None:
        return False
    try:
        schema = defs.get_schema(op, opset, "")
        name = TensorProto.DataType.Name(dtype).lower()
    except (defs.SchemaError, ValueError):
        return False
    return not schema.deprecated and bool(schema.inputs) and f"tensor({name})" in schema.inputs[0].types


def lacking(op: str, opset: int) -> frozenset[int]:
    """The types that ONNX Runtime (1.31) has no kernel for, of those that this operator may move or copy."""
    if op == "Transpose":
        return _BARELY_THERE
    if op in ("Flatten", "Squeeze", "Unsqueeze") or (op == "Reshape" and opset < 21):
        return _NARROW | _BARELY_THERE | _FLOAT8
    return _NARROW | _BARELY_THERE if op in ("Reshape", "Identity") else frozenset()


def runs(op: str, opset: int, dtype: int | None) -> bool:
    """Whether the operator `takes` this type, and ONNX Runtime has a kernel for it; unknown means no."""
    return takes(op, opset, dtype) and dtype not in lacking(op, opset)


def takes_result_of(node: Node, mover: Node, source: Tensor, facts: Facts) -> bool:
    """Whether `mover`, which moves the elements of `source` before `node` works on them, may do so with its result.

    That is a question only where `node` makes another type of it. Types that are not known (in functions) are taken
    for the same.
    """
    made = node.int_attr("to", 0) if node.op == "Cast" else node.result.dtype
    return made in (None, source.dtype) or runs(mover.op, facts.opset(node), made)


def is_narrow(dtype: int | None) -> bool:
    """Whether several elements lie in one byte."""
    bits = bits_of(dtype) if dtype is not None else None
    return bits is not None and bits < 8


_NARROW = frozenset(dtype for dtype in TensorProto.DataType.values() if is_narrow(dtype))
_FLOAT8 = frozenset(
    (TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ)
)
# there is no more than a Cast of the former, and not even that of the latter
_BARELY_THERE = frozenset((TensorProto.FLOAT8E8M0, TensorProto.FLOAT4E2M1))
