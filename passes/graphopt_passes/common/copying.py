"""Whether an Identity may copy a value, where two names of it must stay."""

from __future__ import annotations

from functools import lru_cache

from onnx import TensorProto, TypeProto, defs

from graphopt.graph import Tensor
from graphopt_passes.common.types import lacking

Types = frozenset[str]


def can_copy(old: Tensor, new: Tensor, opset: int) -> bool:
    """Whether `old`, equal to `new`, may be Identity(new) in this opset, and runtimes have a kernel for that.

    Tensors of all types that runtimes can copy, sequences from opset 14 on, optionals from 16 on; unknown means no.
    """
    known = [types for types in (_types(old), _types(new)) if types]
    return any(types <= _copied(opset) for types in known)


@lru_cache(maxsize=64)
def _copied(opset: int) -> Types:
    try:
        taken = defs.get_schema("Identity", opset, "").inputs[0].types
    except defs.SchemaError:
        return frozenset()
    return frozenset(taken) - {_tensor(dtype) for dtype in lacking("Identity", opset)}


def _types(value: Tensor) -> Types:
    """What the value may be of, as schemas write types: its own type, else what its operator makes; empty: unknown."""
    if value.dtype is not None:
        return frozenset((_tensor(value.dtype),))
    declared = _written(value.info.type) if value.info is not None else ""
    if declared:
        return frozenset((declared,))
    node = value.producer
    return frozenset() if node is None else _made(node.op, value.graph.opset, node.outputs.index(value))


@lru_cache(maxsize=1024)
def _made(op: str, opset: int, index: int) -> Types:
    """The types that output `index` of a standard operator may have."""
    try:
        outputs = defs.get_schema(op, opset, "").outputs
    except defs.SchemaError:
        return frozenset()
    return frozenset(outputs[index].types) if index < len(outputs) else frozenset()


def _written(kind: TypeProto) -> str:
    """The type as schemas write it; empty where it is not known."""
    if kind.HasField("tensor_type"):
        return _tensor(kind.tensor_type.elem_type) if kind.tensor_type.elem_type else ""
    for name in ("sequence", "optional"):
        if kind.HasField(f"{name}_type"):
            inner = _written(getattr(kind, f"{name}_type").elem_type)
            return inner and f"{'seq' if name == 'sequence' else name}({inner})"
    return ""


def _tensor(dtype: int) -> str:
    return f"tensor({_NAMES.get(dtype, '')})"


_NAMES = {dtype: name.lower() for name, dtype in TensorProto.DataType.items()}
