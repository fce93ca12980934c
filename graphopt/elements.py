"""The tensors in a type: itself, or what a sequence, an optional or a map holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import TypeProto, ValueInfoProto


def tensor_types(kind: TypeProto) -> Iterator[TypeProto | None]:
    """The tensor type that a type is or contains; None where there is no type at all."""
    which = kind.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        yield from tensor_types(getattr(kind, which).elem_type)
    elif which == "map_type":
        yield from tensor_types(kind.map_type.value_type)
    elif which in (None, "tensor_type"):
        yield kind if which else None


def forget_shapes(infos: Iterable[ValueInfoProto]) -> None:
    """Drops the shapes, those of a sequence's elements too."""
    for kind in (kind for info in infos for kind in tensor_types(info.type)):
        if kind is not None:
            kind.tensor_type.ClearField("shape")
