"""The tensors in a type: itself, or what a sequence, an optional or a map holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from onnx import TypeProto, ValueInfoProto

_CONTAINERS = ("sequence_type", "optional_type")


def tensor_types(kind: TypeProto) -> Iterator[Any]:
    """The TypeProto.Tensor and TypeProto.SparseTensor in a type; whoever changes one changes the type."""
    which = kind.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        yield getattr(kind, which)
    elif which in _CONTAINERS:
        yield from tensor_types(getattr(kind, which).elem_type)
    elif which == "map_type":
        yield from tensor_types(kind.map_type.value_type)


def forget_shapes(infos: Iterable[ValueInfoProto]) -> None:
    """Drops the shapes, those of a sequence's elements too."""
    for info in infos:
        for tensor_type in tensor_types(info.type):
            tensor_type.ClearField("shape")
