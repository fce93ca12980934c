"""Files: reading a model with all that it says, checking it, and writing it whole or not at all.

Weights stay where they are: external data is mapped when a rewrite reads it, and copied file to file on saving.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto

from graphopt.errors import ModelError, SaveError
from graphopt.external import locate, printable
from graphopt.graph import Model, ProtoConstant, bits_of, export_model
from graphopt.inference import skeleton

# protobuf cannot hold more than 2 GiB in one message; beyond this, weights go to a file of their own
INLINE_BYTES = (1 << 31) - (1 << 24)


def read_proto(path: Path) -> ModelProto:
    """The ModelProto in a file, external data not loaded."""
    name = printable(str(path))
    if not path.exists():
        raise ModelError(f"there is no file '{name}'; check the path.")
    if path.is_dir():
        raise ModelError(f"'{name}' is a folder; name the .onnx file in it.")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except (DecodeError, UnicodeDecodeError):
        raise ModelError(f"'{name}' is no ONNX model, or it was cut off; export it again.") from None
    except OSError as error:
        raise ModelError(f"'{name}' cannot be read: {error.strerror}.") from None
    except Exception as error:  # text formats are parsed by the file's ending, each with errors of its own
        raise ModelError(f"'{name}' is no ONNX model: {first_sentence(error)}.") from None
    if not proto.HasField("graph"):
        raise ModelError(f"'{name}' holds no graph, so it is no ONNX model; export it again.")
    return proto


def check_model(model: Model) -> ModelProto:
    """Checks the sizes of all weights and, without them, the model by the ONNX checker; returns what it checked.

    Raises ModelError for a model that is not valid, UnsafeModelError when it reaches out of its folder.
    """
    for graph in model.graphs():
        constants = [t.constant for t in graph.initializers]
        for constant in (*constants, *graph.defaults.values()):
            if isinstance(constant, ProtoConstant):
                _check_tensor(constant)
    proto = skeleton(model)
    check(proto)
    return proto


def _check_tensor(constant: ProtoConstant) -> None:
    """Whether the data of a weight is as long as its shape says; the values are not read."""
    proto = constant.proto
    name = printable(proto.name)
    if any(d < 0 for d in constant.shape):
        raise ModelError(f"tensor '{name}' has a negative dimension; export the model again.")
    if proto.data_type == TensorProto.UNDEFINED:
        raise ModelError(f"tensor '{name}' has no data type; export the model again.")
    bits = bits_of(constant.dtype)
    if constant.is_external:
        place = locate(proto, constant.folder)
        found = place.length if place.length is not None else place.path.stat().st_size - place.offset
    elif proto.HasField("raw_data"):
        found = len(proto.raw_data)
    else:
        return
    if bits is not None and found < constant.nbytes:
        raise ModelError(
            f"tensor '{name}' holds {found} bytes where its shape needs {constant.nbytes}; export the model again."
        )


def check(proto: ModelProto) -> None:
    """Runs the ONNX checker. Raises ModelError with its first sentence, or for an opset that onnx does not know yet."""
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise ModelError(f"the model uses opset {opset.version}, but the newest known is {newest}; update onnx.")
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # checker.ValidationError, and plain errors of the C++ side
        raise ModelError(f"the model is not valid ONNX: {first_sentence(error)}.") from None


def strict_problem(model: Model) -> str | None:
    """What onnx's strict check, shape inference included, says against the model; None when it is sound."""
    try:
        onnx.checker.check_model(skeleton(model), full_check=True)
    except Exception as error:  # checker.ValidationError, InferenceError, and plain errors of the C++ side
        return f"the result is not valid ONNX: {first_sentence(error)}"
    return None


def first_sentence(error: BaseException) -> str:
    """The first line of an error's text, printable and without its full stop."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    return printable(lines[0].strip().rstrip("."), 300)


def to_proto(model: Model) -> ModelProto:
    """The model as one ModelProto, external weights included. Raises SaveError above protobuf's 2 GiB."""
    if weight_bytes(model) > INLINE_BYTES:
        raise SaveError(
            "the weights pass protobuf's 2 GiB, so the model cannot be one object; save it to a path instead."
        )
    proto = export_model(model)
    for tensor in _tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(model.folder))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    return proto


def weight_bytes(model: Model) -> int:
    """Bytes of all initializers."""
    return sum(t.constant.nbytes for g in model.graphs() for t in g.initializers if t.constant is not None)


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    from onnx.external_data_helper import _get_all_tensors

    yield from _get_all_tensors(proto)


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Writes the model, whole or not at all: into a temporary file of the same folder, then moved in place.

    Weights beyond 2 GiB go to `<name>.data` beside it. Raises SaveError; an older file is then still there.
    """
    write_atomically(Path(path), to_proto(model).SerializeToString())


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `content` to `path` so that a reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def check_place(path: Path) -> None:
    """Raises SaveError when a file could not be put at `path`: asked before long work, so that it is not in vain."""
    with _temporary(path):
        pass


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and moves it in place when the block ends well, else removes it.

    Raises SaveError where the folder is missing, not writable or full.
    """
    with _temporary(path) as temporary:
        yield temporary
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """An empty file beside `path` that is gone when the block ends; trouble with the file system is a SaveError."""
    name = printable(str(path))
    if path.is_dir():
        raise SaveError(f"'{name}' is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise SaveError(f"the folder of '{name}' does not exist; make it first.")
    temporary: Path | None = None
    try:
        handle, text = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(text)
        yield temporary
    except OSError as error:
        raise SaveError(f"'{name}' cannot be written: {error.strerror or error}; nothing was written.") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
