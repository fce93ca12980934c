"""Constants: tensor values that are known, read only by who asks for them.

A constant always knows its dtype, shape and size; its numbers stay where they are (in the model's protobuf, in an
external-data file, or not computed yet) until `array()` is called. Nothing here loads a weight on its own.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphopt.weight_file import Stretch

Array = npt.NDArray[Any]

# An array up to this many bytes is kept once it was read: guards ask for small ones again and again.
CACHED_BYTES = 1 << 16
# Of larger ones so many bytes are looked at before all are compared.
SAMPLE_BYTES = 1 << 10

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
    TensorProto.BFLOAT16: 16,
}
_FOUR_BITS = {"INT4", "UINT4", "FLOAT4E2M1"}
_TWO_BITS = {"INT2", "UINT2"}
for _name, _value in TensorProto.DataType.items():
    if _name.startswith("FLOAT8"):
        _BITS[int(_value)] = 8
    elif _name in _FOUR_BITS:
        _BITS[_value] = 4
    elif _name in _TWO_BITS:
        _BITS[_value] = 2


def bits_of(dtype: int) -> int | None:
    """Bits of one element of the ONNX data type `dtype`; None for strings and unknown types."""
    return _BITS.get(dtype)


def numpy_dtype(dtype: int) -> np.dtype[Any]:
    """The numpy dtype (ml_dtypes' for bfloat16, float8 and int4) of the ONNX data type `dtype`."""
    return helper.tensor_dtype_to_np_dtype(dtype)


def onnx_dtype(dtype: np.dtype[Any]) -> int:
    """The ONNX data type of a numpy dtype; object and text arrays are ONNX strings."""
    if dtype.kind in "OSU":
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def raw_bytes(constant: Constant) -> bytes | memoryview:
    """The values as ONNX stores them in `raw_data` and in files: packed, little-endian. Not for strings."""
    if sys.byteorder == "little" and (bits_of(constant.dtype) or 0) >= 8:
        return np.ascontiguousarray(constant.array()).reshape(-1).view(np.uint8).data
    return constant.to_proto("").raw_data


class Constant(ABC):
    """A tensor value that is known: `dtype` is an ONNX data type, `shape` static."""

    __slots__ = ("dtype", "shape")

    def __init__(self, dtype: int, shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.shape = shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the elements take when packed; strings count eight bytes an element."""
        return (self.size * (bits_of(self.dtype) or 64) + 7) // 8

    @abstractmethod
    def array(self) -> Array:
        """The values, of `shape`; not to be written to. May read a file or compute."""

    def to_proto(self, name: str) -> TensorProto:
        """The constant as a TensorProto called `name` that holds the values, wherever they lay."""
        proto = numpy_helper.from_array(np.asarray(self.array()), name)
        proto.data_type = self.dtype
        return proto

    def stored_proto(self, name: str) -> TensorProto:
        """As `to_proto`, but of values in another file it holds the place only."""
        return self.to_proto(name)


class ArrayConstant(Constant):
    """Values held in memory as a numpy array."""

    __slots__ = ("_array",)

    def __init__(self, array: Array) -> None:
        super().__init__(onnx_dtype(array.dtype), tuple(int(d) for d in array.shape))
        self._array = array

    def array(self) -> Array:
        return self._array


class ProtoConstant(Constant):
    """Values that stay in a TensorProto, or in the external-data file that it names.

    `folder` is the folder of the model file, to which external data is relative.
    """

    __slots__ = ("_cache", "folder", "proto")

    def __init__(self, proto: TensorProto, folder: Path | None = None) -> None:
        super().__init__(proto.data_type, tuple(proto.dims))
        self.proto = proto
        self.folder = folder
        self._cache: Array | None = None

    @property
    def is_external(self) -> bool:
        """Whether the values are in another file than the model's."""
        return self.proto.data_location == TensorProto.EXTERNAL

    def array(self) -> Array:
        if self._cache is not None:
            return self._cache
        array: Array = self._mapped() if self.is_external else numpy_helper.to_array(self.proto)
        if array.nbytes <= CACHED_BYTES:
            self._cache = array
        return array

    def _mapped(self) -> Array:
        """The external values as a read-only memory map: only the pages that are read are loaded."""
        from graphopt.external import locate

        if self.size == 0 or (bits_of(self.dtype) or 0) < 8:
            copy = TensorProto()
            copy.CopyFrom(self.proto)
            onnx.external_data_helper.load_external_data_for_tensor(copy, str(self.folder or Path()))
            return numpy_helper.to_array(copy)
        place = locate(self.proto, self.folder)
        if self.nbytes <= CACHED_BYTES:  # it will be kept, and maps are few
            values = np.fromfile(place.path, numpy_dtype(self.dtype), self.size, offset=place.offset)
            return values.reshape(self.shape)
        return np.memmap(place.path, dtype=numpy_dtype(self.dtype), mode="r", offset=place.offset, shape=self.shape)

    def stored_proto(self, name: str) -> TensorProto:
        if self.proto.name == name:
            return self.proto
        copy = TensorProto()
        copy.CopyFrom(self.proto)
        copy.name = name
        return copy

    def to_proto(self, name: str) -> TensorProto:
        return super().to_proto(name) if self.is_external else self.stored_proto(name)


class FileConstant(Constant):
    """Values that were left in the model's own file: `stretch` says where, `proto` says all but the values.

    Only for types of a whole number of bytes an element; the stretch is exactly as long as they need.
    """

    __slots__ = ("_cache", "proto", "stretch")

    def __init__(self, proto: TensorProto, stretch: Stretch) -> None:
        super().__init__(proto.data_type, tuple(proto.dims))
        self.proto = proto
        self.stretch = stretch
        self._cache: Array | None = None

    def array(self) -> Array:
        if self._cache is not None:
            return self._cache
        stored = numpy_dtype(self.dtype).newbyteorder("<")
        array = np.frombuffer(self.stretch.read(), stored).astype(numpy_dtype(self.dtype), copy=False)
        array = array.reshape(self.shape)
        array.flags.writeable = False
        if array.nbytes <= CACHED_BYTES:
            self._cache = array
        return array

    def sample(self) -> bytes:
        """Some of the bytes: constants that differ in them are not equal."""
        stretch = self.stretch
        return stretch.file.read(stretch.offset + stretch.length - SAMPLE_BYTES, SAMPLE_BYTES)

    def to_proto(self, name: str) -> TensorProto:
        proto = self.head(name)
        proto.raw_data = self.stretch.read()
        return proto

    def head(self, name: str) -> TensorProto:
        """The TensorProto called `name`, without the values."""
        proto = TensorProto()
        proto.CopyFrom(self.proto)
        proto.name = name
        return proto


class SparseConstant(Constant):
    """Values of a SparseTensorProto; dense only when asked for."""

    __slots__ = ("proto",)

    def __init__(self, proto: onnx.SparseTensorProto) -> None:
        super().__init__(proto.values.data_type, tuple(proto.dims))
        self.proto = proto

    def array(self) -> Array:
        values = numpy_helper.to_array(self.proto.values)
        indices = numpy_helper.to_array(self.proto.indices)
        dense = np.zeros(self.shape, values.dtype)
        if indices.ndim == 2:  # [NNZ, rank]: coordinates
            dense[tuple(indices.T)] = values
        else:  # [NNZ]: positions in the flattened tensor
            dense.reshape(-1)[indices] = values
        return dense


class LazyConstant(Constant):
    """Values that a rewrite derived from other constants, computed when they are needed and not before.

    `compute` returns an array of exactly `dtype` and `shape`. It may be called more than once, since a large result is
    not kept.
    """

    __slots__ = ("_cache", "_compute")

    def __init__(self, dtype: int, shape: tuple[int, ...], compute: Callable[[], Array]) -> None:
        super().__init__(dtype, shape)
        self._compute = compute
        self._cache: Array | None = None

    def array(self) -> Array:
        if self._cache is not None:
            return self._cache
        array = np.asarray(self._compute())
        if tuple(array.shape) != self.shape or onnx_dtype(array.dtype) != self.dtype:
            raise AssertionError(f"a lazy constant of {self.shape} computed {array.shape} {array.dtype}")
        if array.nbytes <= CACHED_BYTES:
            self._cache = array
        return array
