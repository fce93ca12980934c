"""Engine facts: what TensorRT made of a graph, read from its own listing of the finished engine.

The listing is what TensorRT logs at verbose severity when it has built with detailed profiling verbosity, and what
its engine inspector gives in the one-line format; the first needs no GPU. One line a layer:

    Name: N, LayerType: T, Inputs: [ { Name: .., Dimensions: [..], .. Datatype: .. }, ..], Constants: [..],
    Outputs: [..], TacticName: .., StreamId: 0, Metadata: ..

For one model, TensorRT version and compute capability the facts are the same on every build.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any

from graphopt.errors import EngineError
from graphopt.external import printable
from graphopt.tensorrt.record import Record

SYNC_TYPES = frozenset({"signal", "wait"})  # one stream tells another, or waits for it

_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<type>[^,]*), Inputs: (?P<rest>\[.*)$")
_LIST = r"\[ ?(?P<{}>(?:\{{.*?\}} ?)?)\]"  # ends with the `}}]` of its last tensor
_LISTS = re.compile(
    rf"^{_LIST.format('inputs')}(?:, Constants: {_LIST.format('constants')})?"
    rf", Outputs: {_LIST.format('outputs')}(?:, |$)"
)
_TENSOR = re.compile(r"\{ Name: (?P<name>.*?)(?:, Location: \w+)?, Dimensions: \[(?P<dims>[-\d, ]*)\](?P<rest>[^{}]*)")
_DATATYPE = re.compile(r"(?:^|, )(?:Datatype|Format/Datatype): (?P<dtype>[^,}]+)")
_BITS = {
    "double": 64, "int64": 64, "float": 32, "fp32": 32, "int32": 32, "half": 16, "fp16": 16, "bfloat16": 16, "bf16": 16,
    "int8": 8, "uint8": 8, "bool": 8, "fp8": 8, "float8": 8, "e8m0": 8, "int4": 4, "fp4": 4,
}  # fmt: skip


@dataclass(frozen=True)
class TensorFacts:
    """A tensor that a layer reads or writes; a negative dimension is known at run time only."""

    name: str
    dims: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int | None:
        """Its size in bytes, None while a dimension or the type's width is unknown."""
        bits = _BITS.get(self.dtype.lower())
        if bits is None or any(dim < 0 for dim in self.dims):
            return None
        return (prod(self.dims) * bits + 7) // 8


@dataclass(frozen=True)
class LayerFacts:
    """One layer of an engine: `type` is TensorRT's own word (`correlation`, `gemm`, `kgen`, `signal`, ...)."""

    name: str
    type: str
    inputs: tuple[TensorFacts, ...]
    constants: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]

    @property
    def is_sync(self) -> bool:
        """Whether it synchronises streams and launches nothing."""
        return self.type in SYNC_TYPES

    @property
    def is_kernel(self) -> bool:
        """Whether it does work; that is every layer but the synchronisation ones.

        With dynamic shapes or control flow this counts a few that the host does (`shape_call`, `cjmp`) and that cost
        no less than a launch.
        """
        return self.type not in SYNC_TYPES


@dataclass(frozen=True)
class EngineFacts:
    """The layers of an engine in order, and its memory in bytes (None: TensorRT did not say)."""

    layers: tuple[LayerFacts, ...]
    activation_bytes: int | None
    weights_bytes: int | None

    @property
    def kernels(self) -> int:
        """How many layers do work: the measure of how much the engine has to launch."""
        return sum(layer.is_kernel for layer in self.layers)

    @property
    def sync_layers(self) -> int:
        """How many layers only synchronise streams."""
        return sum(layer.is_sync for layer in self.layers)

    @cached_property
    def types(self) -> Mapping[str, int]:
        """How many layers there are of each type, the most frequent first."""
        return dict(Counter(layer.type for layer in self.layers).most_common())

    @property
    def moved_bytes(self) -> int | None:
        """Activations that the kernels read and write, in bytes; None when one of them has no known size."""
        tensors = [t for layer in self.layers if layer.is_kernel for t in (*layer.inputs, *layer.outputs)]
        sizes = [tensor.bytes for tensor in tensors]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the totals first, then the layers."""
        return {
            "kernels": self.kernels,
            "sync_layers": self.sync_layers,
            "activation_bytes": self.activation_bytes,
            "weights_bytes": self.weights_bytes,
            "moved_bytes": self.moved_bytes,
            "types": dict(self.types),
            "layers": [asdict(layer) for layer in self.layers],
        }


def engine_facts(record: Record) -> EngineFacts:
    """The facts in the record of a build. Raises EngineError when TensorRT listed no layers in the form known here."""
    if record.listing is None:
        raise EngineError("TensorRT gave no list of the engine's layers; the engine itself is built and can be used.")
    return EngineFacts(parse_layers(record.listing), record.activation_bytes, record.weights_bytes)


def parse_layers(listing: str) -> tuple[LayerFacts, ...]:
    """The layers of TensorRT's listing. Raises EngineError on a layer line that is not of the form known here."""
    layers = []
    for line in listing.partition("Layers:\n")[2].split("\n"):
        if not line.startswith("Name: "):
            break  # the blank line before the input and output tensors
        layers.append(_layer(line))
    return tuple(layers)


def _layer(line: str) -> LayerFacts:
    head = _LAYER.match(line)
    lists = _LISTS.match(head["rest"]) if head else None
    if head is None or lists is None:
        raise EngineError(f"TensorRT lists a layer in a form that is not known here: {printable(line)}")
    return LayerFacts(
        head["name"], head["type"], _tensors(lists["inputs"]), _tensors(lists["constants"]), _tensors(lists["outputs"])
    )


def _tensors(text: str | None) -> tuple[TensorFacts, ...]:
    found = []
    for match in _TENSOR.finditer(text or ""):
        dtype = _DATATYPE.search(match["rest"])
        dims = tuple(int(dim) for dim in match["dims"].split(",") if dim.strip())
        found.append(TensorFacts(match["name"], dims, dtype["dtype"].strip() if dtype else "unknown"))
    return tuple(found)
