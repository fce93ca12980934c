"""Where external data lies: the only place that turns a tensor's `location` into a path on disk.

A model may name any file. One that leaves the model's own folder (absolute, `..`, or through a symbolic link) is
refused: reading it would put the content of a stranger's choice into a result. Source: ONNX external data, IR.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto

from graphopt.errors import ModelError, UnsafeModelError


@dataclass(frozen=True)
class Place:
    """A stretch of a file: `path`, first byte, number of bytes (None: to the file's end)."""

    path: Path
    offset: int
    length: int | None


def locate(tensor: TensorProto, folder: Path | None) -> Place:
    """Where the values of an external `tensor` lie, `folder` being the model's.

    Raises UnsafeModelError when the place is outside the folder, ModelError when it is no place at all.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name = printable(tensor.name)
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(f"tensor '{name}' has external data; give the model's path instead of the model in memory.")
    if not location:
        raise ModelError(f"tensor '{name}' has external data but names no file; export the model again.")
    root = folder.resolve()
    try:
        path = (root / location).resolve()
        is_there = path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that no system takes, a link to itself
        raise ModelError(
            f"tensor '{name}' names no file with '{printable(location)}'; export the model again."
        ) from None
    if Path(location).is_absolute() or not path.is_relative_to(root):
        raise UnsafeModelError(
            f"tensor '{name}' keeps its data outside the model's folder ('{printable(location)}'); "
            "move the file beside the model and save it again."
        )
    if not is_there:
        raise ModelError(
            f"the external data '{printable(location)}' of tensor '{name}' is missing; put it beside the model."
        )
    try:
        offset, length = int(entries.get("offset", 0)), entries.get("length")
        span = None if length is None else int(length)
    except ValueError:
        raise ModelError(
            f"tensor '{name}' has an offset or length that is no number; export the model again."
        ) from None
    if offset < 0 or (span is not None and span < 0) or offset + (span or 0) > path.stat().st_size:
        raise ModelError(f"the external data of tensor '{name}' ends before the tensor does; the file was cut off.")
    return Place(path, offset, span)


def printable(text: str | bytes, limit: int = 120) -> str:
    """`text` without control characters (a model's names must not write on the terminal), cut to `limit`.

    protobuf hands out strings that are not UTF-8 as bytes.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
