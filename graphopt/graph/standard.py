"""Which operators the ONNX standard has: what it lacks has no definition here, whatever its name."""

from __future__ import annotations

from functools import lru_cache

from onnx import AttributeProto, defs

STANDARD = ("", "ai.onnx")
# what stands before the name of an operator of the standard domain that the standard does not have
UNKNOWN = "unknown"


@lru_cache(maxsize=1 << 12)
def is_defined(op_type: str, version: int) -> bool:
    """Whether the standard's operator set of this version has `op_type`.

    A runtime may have it all the same: ONNX Runtime registers LayerNormalization before opset 17, for one.
    """
    return defs.has(op_type, version, "")


def is_unknown(op_type: str, domain: str, version: int) -> bool:
    """Whether a node claims to be of the standard and is not; `version` is that of the standard, 0 for no import.

    Without an import nothing can be told, so that it is for the checker to say what is missing.
    """
    return domain in STANDARD and version > 0 and not is_defined(op_type, version)


@lru_cache(maxsize=1 << 8)
def list_type(op_type: str, attribute: str) -> int:
    """The protobuf type of a list that is an attribute of the operator: integers where the newest version lacks it."""
    declared = defs.get_schema(op_type, "").attributes.get(attribute) if defs.has(op_type, "") else None
    return int(
        AttributeProto.INTS
        if declared is None
        else AttributeProto.AttributeType.Value(str(declared.type).rpartition(".")[2])
    )
