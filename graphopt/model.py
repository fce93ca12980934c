"""Files: reading a model with all that it says, checking it, and writing it whole or not at all.

Weights stay where they are: external data is mapped when a rewrite reads it, and copied file to file on saving. How
that is done is in `graphopt.save` and `graphopt.files`.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from graphopt.errors import ModelError
from graphopt.external import printable
from graphopt.files import check_place, replacing, write_atomically
from graphopt.flaws import check_tolerantly
from graphopt.graph import Model
from graphopt.inference import skeleton
from graphopt.pieces import infer
from graphopt.save import save, to_proto
from graphopt.stored import check_stored

LARGEST_FILE = onnx.checker.MAXIMUM_PROTOBUF  # bytes

__all__ = [
    "check",
    "check_model",
    "check_place",
    "first_sentence",
    "read_proto",
    "replacing",
    "save",
    "strict_problem",
    "to_proto",
    "tolerant_problem",
    "write_atomically",
]


def read_proto(path: Path) -> ModelProto:
    """The ModelProto in a file, external data not loaded."""
    name = printable(str(path))
    if not path.exists():
        raise ModelError(f"there is no file '{name}'; check the path.")
    if path.is_dir():
        raise ModelError(f"'{name}' is a folder; name the .onnx file in it.")
    if path.stat().st_size > LARGEST_FILE:
        raise ModelError(
            f"'{name}' is larger than 2 GiB, which protobuf does not read; export the model with external data."
        )
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
    check_stored(model)
    try:
        proto = skeleton(model)
    except UnicodeDecodeError:
        raise ModelError("a text in the model is not in UTF-8; export the model again.") from None
    model.tolerated = check(proto)
    return proto


def check(proto: ModelProto) -> list[str]:
    """Runs the ONNX checker; returns what it rejects and is tolerated, see `graphopt.flaws`.

    Raises ModelError with its first sentence, or for an opset that onnx does not know yet.
    """
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            raise ModelError(f"the model uses opset {opset.version}, but the newest known is {newest}; update onnx.")
    try:
        return check_tolerantly(proto)
    except Exception as error:  # checker.ValidationError, and plain errors of the C++ side
        raise ModelError(f"the model is not valid ONNX: {first_sentence(error)}.") from None


def strict_problem(model: Model) -> str | None:
    """What onnx's strict check, shape inference included, says against the model; None when it is sound."""
    try:
        proto = skeleton(model)
        onnx.checker.check_model(proto)
        infer(proto, len(model.graph.holders), strict=True, data_prop=False)
    except Exception as error:  # checker.ValidationError, InferenceError, and plain errors of the C++ side
        return f"the result is not valid ONNX: {first_sentence(error)}"
    return None


def tolerant_problem(model: Model) -> str | None:
    """What the checker says against the model, flaws apart that are tolerated; None when it is sound."""
    try:
        check(skeleton(model))
    except ModelError as error:
        return str(error)
    return None


def first_sentence(error: BaseException) -> str:
    """The first line of an error's text, printable and without its full stop."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    return printable(lines[0].strip().rstrip("."), 300)
