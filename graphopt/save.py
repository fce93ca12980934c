"""Saving: whole or not at all, one weight in memory at a time.

A model whose weights fit is one file. Its initializers are written one after the other behind the rest of the graph,
computed only then, so that no second copy of the weights is made. Weights that were external, and all large ones where
they pass protobuf's 2 GiB, go to one data file beside the model: unchanged ones from file to file.

Source: ONNX external data, IR.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import _get_all_tensors

from graphopt.collector import few_collections
from graphopt.data_file import DataFile
from graphopt.errors import SaveError
from graphopt.external import locate, printable
from graphopt.files import replacing
from graphopt.graph import (
    ArrayConstant,
    Constant,
    FileConstant,
    LazyConstant,
    Model,
    ProtoConstant,
    Tensor,
    bits_of,
    export_model,
)
from graphopt.wire import Advance, Initializer, message_size, write_message

# protobuf cannot hold more than 2 GiB in one message; beyond this, weights go to a file of their own
INLINE_BYTES = (1 << 31) - (1 << 24)
# Smaller weights stay in the model when others leave it, as onnx's own writer has it.
LEAST_OUTSIDE = 1 << 10

# told how many bytes of how many were written
Progress = Callable[[int, int], None]


def to_proto(model: Model) -> ModelProto:
    """The model as one ModelProto, external weights included. Raises SaveError above protobuf's 2 GiB."""
    if sum(constant.nbytes for constant in constants(model)) > INLINE_BYTES:
        raise SaveError(
            "the weights pass protobuf's 2 GiB, so the model cannot be one object; save it to a path instead."
        )
    proto = export_model(model)
    for tensor in _external_tensors(proto):
        onnx.external_data_helper.load_external_data_for_tensor(tensor, str(model.folder))
        tensor.ClearField("data_location")
        del tensor.external_data[:]
    return proto


def constants(model: Model) -> Iterator[Constant]:
    """All values that the model holds: initializers, defaults of inputs, and what Constant nodes make."""
    for graph in model.graphs():
        yield from (t.constant for t in graph.initializers if t.constant is not None)
        yield from graph.defaults.values()
        made = (n.output(0) for n in graph.nodes if n.op == "Constant")
        yield from (t.constant for t in made if t is not None and t.constant is not None)


def inline_bytes(model: Model) -> int:
    """Bytes of the values that are in the model's file, or will be computed: all but those in external files."""
    return sum(constant.nbytes for constant in constants(model) if not _is_external(constant))


def save(
    model: Model, path: str | os.PathLike[str], *, keep_weights: bool = False, progress: Progress | None = None
) -> None:
    """Writes the model, whole or not at all: into a temporary file of the same folder, then moved in place.

    Weights that were external, and all large ones beyond 2 GiB, go to `<name>.data` beside it; with `keep_weights`
    external ones that nothing changed stay where they are. `progress` is told how many bytes of weights of how many
    were written.

    Raises SaveError; an older file is then still there. Also where `keep_weights` asks for another folder than the
    input's, and where `path` is a file that the input's weights are in.
    """
    path = Path(path)
    files = _files(model)
    if files and keep_weights and path.parent.resolve() != _folder(model):
        raise SaveError("weights can stay where they are only when the output is in the input's folder; save it there.")
    if path.resolve() in files:
        raise SaveError(f"'{printable(str(path))}' holds weights of the input; name another file.")
    with few_collections(), replacing(path) as temporary:
        content = _Content(model, bool(files))
        moved = content.tensors_to_move(keep_weights)
        if moved:
            data_path = _free_name(path, files)
            with replacing(data_path) as data:
                content.write_data(moved, data, data_path.name, progress)
                content.write_model(temporary, None)
                if data_path.exists():
                    path.unlink(missing_ok=True)  # a model must never be seen with the data of another
        else:
            content.write_model(temporary, progress)


def _is_external(constant: Constant) -> bool:
    return isinstance(constant, ProtoConstant) and constant.is_external


def _external_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    return (tensor for tensor in _get_all_tensors(proto) if tensor.data_location == TensorProto.EXTERNAL)


def _folder(model: Model) -> Path | None:
    return model.folder.resolve() if model.folder is not None else None


def _files(model: Model) -> set[Path]:
    """The files that the input's weights are in."""
    one_of_each = {_location(tensor): tensor for tensor in model.external}
    return {locate(tensor, model.folder).path for tensor in one_of_each.values()}


def _free_name(path: Path, files: set[Path]) -> Path:
    """`<name>.data`, or with a number where the input's weights are in that file."""
    names = (
        path.with_name(f"{path.name}{number}.data") for number in ("", *(f".{n}" for n in range(1, len(files) + 1)))
    )
    return next(name for name in names if name.resolve() not in files)


@dataclass
class _Content:
    """What a file will hold: the graph without its initializers, the initializers, and what is still to be placed."""

    model: Model
    has_files: bool
    # of the main graph: all of the TensorProto, or all but the values, which are the constant's
    initializers: list[tuple[TensorProto, Constant | None]] = field(default_factory=list)
    # weights that will lie in the data file, by the location that stands for it until then
    computed: dict[str, Constant] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._is_crowded = inline_bytes(self.model) > INLINE_BYTES
        self._thin = export_model(self.model, self._write)

    def tensors_to_move(self, keep: bool) -> list[TensorProto]:
        """The tensors whose values go to the data file, in the order of the model."""
        if not self.has_files and not self.computed:
            return []
        heads = [head for head, _ in self.initializers if head.data_location == TensorProto.EXTERNAL]
        tensors = [*_external_tensors(self._thin), *heads]
        return [t for t in tensors if _location(t) in self.computed] if keep else tensors

    def write_data(self, tensors: list[TensorProto], path: Path, name: str, progress: Progress | None) -> None:
        """Writes the values of `tensors` to `path` and notes in them that they lie in the file called `name`."""
        folder = self.model.folder
        jobs = []
        for tensor in tensors:
            constant = self.computed.get(_location(tensor)) or ProtoConstant(tensor, folder)
            place = None if _location(tensor) in self.computed else locate(tensor, folder)
            length = constant.nbytes if place is None or place.length is None else place.length
            jobs.append((tensor, constant, place, length))
        advance = _counter(sum(length for *_, length in jobs), progress)
        with path.open("wb") as file:
            data = DataFile(file, advance)
            for tensor, constant, place, length in jobs:
                offset = data.append(constant) if place is None else data.copy(place, length)
                _set_place(tensor, name, offset, length)

    def write_model(self, path: Path, progress: Progress | None) -> None:
        """Writes the model's own file; `progress` is told of the weights in it."""
        initializers = [Initializer(head, constant) for head, constant in self.initializers]
        if message_size(self._thin, initializers) > onnx.checker.MAXIMUM_PROTOBUF:
            raise SaveError("the model without its weights passes protobuf's 2 GiB, so that no file can hold it.")
        with path.open("wb") as file:
            values = sum(constant.nbytes for _, constant in self.initializers if constant is not None)
            write_message(self._thin, initializers, file, _counter(values, progress))

    def _write(self, tensor: Tensor, constant: Constant) -> TensorProto | None:
        """What the exporter asks for each initializer; those of the main graph are kept apart."""
        head, values = self._initializer(tensor.name, constant)
        if tensor.graph is not self.model.graph:
            return head if values is None else constant.to_proto(tensor.name)
        self.initializers.append((head, values))
        return None

    def _initializer(self, name: str, constant: Constant) -> tuple[TensorProto, Constant | None]:
        if _is_external(constant):
            head = TensorProto()
            head.CopyFrom(constant.stored_proto(name))  # the place will be another one
            return head, None
        if self._goes_out(constant):
            location = f"computed {len(self.computed)}"
            self.computed[location] = constant
            head = constant.head(name) if isinstance(constant, FileConstant) else _head(name, constant)
            head.data_location = TensorProto.EXTERNAL
            head.external_data.add(key="location", value=location)
            return head, None
        if isinstance(constant, FileConstant):
            return constant.head(name), constant
        if isinstance(constant, LazyConstant | ArrayConstant) and bits_of(constant.dtype) is not None:
            return _head(name, constant), constant
        return constant.to_proto(name), None

    def _goes_out(self, constant: Constant) -> bool:
        if constant.nbytes < LEAST_OUTSIDE or bits_of(constant.dtype) is None:
            return False
        return self._is_crowded or (self.has_files and isinstance(constant, LazyConstant | ArrayConstant))


def _head(name: str, constant: Constant) -> TensorProto:
    return TensorProto(name=name, data_type=constant.dtype, dims=constant.shape)


def _location(tensor: TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _set_place(tensor: TensorProto, name: str, offset: int, length: int) -> None:
    del tensor.external_data[:]
    for key, value in (("location", name), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _counter(total: int, progress: Progress | None) -> Advance:
    """Adds up the bytes that were written, for `progress`."""
    written = 0

    def advance(count: int) -> None:
        nonlocal written
        written += count
        if progress is not None:
            progress(written, total)

    return advance
