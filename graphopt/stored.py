"""Whether the data of each tensor that a model holds is what its type and shape say: no value is read for it.

Source: ONNX `onnx.proto`, TensorProto: which field holds the values of which type, and how many.
"""

from __future__ import annotations

from onnx import TensorProto

from graphopt.errors import ModelError, UnsafeModelError
from graphopt.external import locate, printable
from graphopt.graph import Model, ProtoConstant, SparseConstant, bits_of
from graphopt.save import constants

# the fields that hold one value, or part of one, an entry
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_PAIRS = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
# A dense copy of a sparse tensor that takes more than this is asked for by nobody but an attacker.
MOST_DENSE_BYTES = 1 << 40


def check_stored(model: Model) -> None:
    """Checks all initializers, defaults of inputs and Constant nodes, those of bodies and functions too.

    Raises ModelError for one that does not hold what its shape needs, UnsafeModelError when it reaches out of the
    model's folder, or stands for more than any machine holds.
    """
    for constant in constants(model):
        if isinstance(constant, ProtoConstant):
            _check_tensor(constant)
        elif isinstance(constant, SparseConstant) and constant.nbytes > MOST_DENSE_BYTES:
            raise UnsafeModelError(
                f"the sparse tensor '{printable(constant.proto.values.name)}' stands for {constant.nbytes:,} bytes, "
                "which no machine holds; export the model again."
            )


def _check_tensor(constant: ProtoConstant) -> None:
    proto = constant.proto
    name = printable(proto.name)
    if any(d < 0 for d in constant.shape):
        raise ModelError(f"tensor '{name}' has a negative dimension; export the model again.")
    if proto.data_type == TensorProto.UNDEFINED:
        raise ModelError(f"tensor '{name}' has no data type; export the model again.")
    if proto.data_type != TensorProto.STRING and bits_of(constant.dtype) is None:
        raise ModelError(f"tensor '{name}' is of the unknown data type {proto.data_type}; update onnx.")
    if proto.data_type == TensorProto.STRING:
        _check_texts(proto)
    if constant.is_external:
        place = locate(proto, constant.folder)
        found = place.length if place.length is not None else place.path.stat().st_size - place.offset
        fits = found >= constant.nbytes
    elif proto.HasField("raw_data"):
        found = len(proto.raw_data)
        fits = found == constant.nbytes or proto.data_type == TensorProto.STRING  # which the checker refuses better
    else:
        _check_count(constant)
        return
    if not fits:
        raise ModelError(
            f"tensor '{name}' holds {found} bytes where its shape needs {constant.nbytes}; export the model again."
        )


def _check_texts(proto: TensorProto) -> None:
    try:
        for text in proto.string_data:
            text.decode("utf-8")
    except UnicodeDecodeError:
        raise ModelError(
            f"tensor '{printable(proto.name)}' holds a text that is not in UTF-8; export the model again."
        ) from None


def _check_count(constant: ProtoConstant) -> None:
    """The typed fields; that it is the right field, and no other, is for the ONNX checker to say."""
    found = sum(len(getattr(constant.proto, field)) for field in _FIELDS)
    bits = bits_of(constant.dtype) or 64
    needed = constant.size * 2 if constant.dtype in _PAIRS else -(-constant.size * min(bits, 8) // 8)
    if found != needed:
        raise ModelError(
            f"tensor '{printable(constant.proto.name)}' holds {found} values where its shape needs {needed}; "
            "export the model again."
        )
