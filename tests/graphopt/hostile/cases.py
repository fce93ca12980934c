"""What a hostile model is: a name, a function that writes it, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, TensorProto, helper

Write = Callable[[Path], ModelProto]

HUGE = 1 << 62


@dataclass(frozen=True)
class Case:
    """`write` gives the model, and may put other files into the folder that it is given.

    `says` is a pattern of the sentence that refuses it, None where the model is right and must come out right.
    """

    write: Write
    says: str | None


class Cases(dict[str, Case]):
    """Cases by the names of the functions that write them."""

    def add(self, says: str | None) -> Callable[[Write], Write]:
        """A decorator."""

        def note(write: Write) -> Write:
            self[write.__name__.replace("_", " ").strip()] = Case(write, says)
            return write

        return note


def weight(dims: list[int], name: str = "w", dtype: int = TensorProto.FLOAT, **fields: Any) -> TensorProto:
    """A TensorProto exactly as told, whether its fields agree or not."""
    return TensorProto(name=name, data_type=dtype, dims=dims, **fields)


def outside(location: str, dims: list[int] | None = None, **entries: str) -> TensorProto:
    """A weight in another file."""
    tensor = weight(dims or [1, 4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def adding(tensor: TensorProto) -> ModelProto:
    """y = x + w, w being `tensor`."""
    proto = graph("g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }")
    proto.graph.initializer.append(tensor)
    return proto


def graph(text: str, functions: str = "", domains: str = "", opset: int = 17) -> ModelProto:
    """The model of a graph in `onnx.parser` syntax."""
    from tests.support.models import model

    return model(text, opset=opset, functions=functions, domains=domains)


def with_nodes(*nodes: Any, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",)) -> ModelProto:
    """A model of float[4] inputs and outputs."""
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in names] for names in (inputs, outputs)
    ]
    made = helper.make_graph(list(nodes), "g", *infos)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
