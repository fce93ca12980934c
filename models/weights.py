"""Weights for graphs that come without them, drawn by seed: the same on every machine, sane in every layer.

Two kinds of graph need them. The graphs inside the onnx wheel spell each weight as a ConstantOfShape, so that only
its shape is known: `draw_by_role` looks at what reads it. The graphs in `models/graphs` carry the statistics of the
weights that they once had: `draw_by_statistics` draws from those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]

STATISTICS = "weights"  # the metadata entry: {tensor: [mean, std, least, greatest, twin]}, equal tensors share a twin
PASS_ON = ("Reshape", "Unsqueeze")  # a weight behind these has the role of what reads their output
LINEAR = ("BatchNormalization", "Mul", "Add", "Sum", "Concat")  # what may stand between a kernel and its ReLU
FIRST_IR_WITH_PLAIN_INITIALIZERS = 4  # before it, every initializer had to be a graph input as well


def generator(seed: int, name: str) -> np.random.Generator:
    """A generator of a tensor's own, so that its numbers do not depend on what else the model holds."""
    return np.random.default_rng([seed, crc32(name.encode())])


# --- graphs with statistics -------------------------------------------------------------------------------------


def draw_by_statistics(model: ModelProto, seed: int = 0) -> None:
    """Fills the tensors that the metadata entry names, in place, and removes the entry.

    Values are normal with the entry's mean and standard deviation, clipped to its least and greatest value, in the
    tensor's own dtype. Raises ValueError when the model has no such entry.
    """
    entry = next((entry for entry in model.metadata_props if entry.key == STATISTICS), None)
    if entry is None:
        raise ValueError(f"The model has no metadata entry {STATISTICS!r} to draw weights from.")
    wanted = json.loads(entry.value)
    model.metadata_props.remove(entry)
    for name, tensor in _tensors(model.graph):
        if name in wanted:
            mean, spread, least, greatest, twin = wanted[name]
            normal = generator(seed, twin).standard_normal(tuple(tensor.dims), dtype=np.float32)
            values = np.clip(normal * np.float32(spread) + np.float32(mean), least, greatest)
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.raw_data = values.astype(dtype).tobytes()


def _tensors(graph: GraphProto, prefix: str = "") -> Iterator[tuple[str, TensorProto]]:
    """Every tensor of a graph and its bodies with its key: a name, `i:output:attribute`, or `i/body/key`."""
    yield from ((prefix + tensor.name, tensor) for tensor in graph.initializer)
    for index, node in enumerate(graph.node):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield f"{prefix}{index}:{node.output[0] if node.output else ''}:{attribute.name}", attribute.t
            elif attribute.type == AttributeProto.GRAPH:
                yield from _tensors(attribute.g, f"{prefix}{index}/{attribute.name}/")


# --- graphs that know shapes only -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Role:
    """What reads a weight, at which input, whether that ends a residual branch, whether a ReLU halves the result."""

    node: NodeProto
    slot: int
    ends_branch: bool
    rectified: bool


def draw_by_role(model: ModelProto, seed: int = 0) -> None:
    """Replaces every ConstantOfShape of known shape by a weight that suits its reader, in place.

    Float initializers are drawn anew too: half a trained network and half a random one do not go together. Kernels
    follow He et al. 2015 (arXiv 1502.01852): variance 2 / fan-in before a ReLU, else 1 / fan-in, which keeps the
    activations' size.
    Variances and scales are near 1, or fifty layers of them would blow up; the scale that ends a residual branch is
    small, so that sums of many branches stay bounded. Weights leave the graph's inputs, for which the IR version is
    raised to 4.
    """
    graph = model.graph
    known = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {name: tuple(t.dims) for name, t in known.items() if t.data_type == TensorProto.FLOAT}
    filled = [n for n in graph.node if n.op_type == "ConstantOfShape" and n.input[0] in known]
    shapes |= {n.output[0]: tuple(numpy_helper.to_array(known[n.input[0]]).tolist()) for n in filled}

    roles = _roles(graph)
    stale = {n.input[0] for n in filled} | shapes.keys()
    kept = [tensor for name, tensor in known.items() if name not in stale]
    drawn = [
        numpy_helper.from_array(_draw(role, shape, generator(seed, name)), name)
        for name, shape in shapes.items()
        if (role := roles.get(name)) is not None
    ]
    _replace(graph.initializer, [*kept, *drawn])
    _replace(graph.input, [value for value in graph.input if value.name not in known])
    gone = {id(n) for n in filled}
    _replace(graph.node, [node for node in graph.node if id(node) not in gone])
    model.ir_version = max(model.ir_version, FIRST_IR_WITH_PLAIN_INITIALIZERS)


def _replace(field: Any, items: list[Any]) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)


def _roles(graph: GraphProto) -> dict[str, Role]:
    """The role of each tensor that a node reads; readers that only reshape hand on their own output's role."""
    sums = {name for node in graph.node if node.op_type == "Sum" for name in node.input}
    rectified: set[str] = set()
    roles: dict[str, Role] = {}
    for node in reversed(graph.node):
        result = node.output[0]
        if node.op_type == "Relu" or (node.op_type in LINEAR and result in rectified):
            rectified.update(node.input)
        for slot, name in enumerate(node.input):
            if node.op_type in PASS_ON and slot == 0 and result in roles:
                roles[name] = roles[result]
            else:
                roles[name] = Role(node, slot, ends_branch=result in sums, rectified=result in rectified)
    return roles


def _draw(role: Role, shape: tuple[int, ...], draw: np.random.Generator) -> Array:
    values: Array
    match role.node.op_type, role.slot:
        case ("Conv", 1) | ("Gemm", 1):
            gain = 2.0 if role.rectified else 1.0
            values = draw.standard_normal(shape) * math.sqrt(gain / _fan_in(role.node, shape))
        case ("BatchNormalization", 1):
            values = draw.uniform(0.8, 1.2, shape) * (0.3 if role.ends_branch else 1.0)
        case ("BatchNormalization", 4) | ("Mul", _):
            values = draw.uniform(0.8, 1.2, shape)
        case _:
            values = draw.standard_normal(shape) * 0.1
    return values.astype(np.float32)


def _fan_in(node: NodeProto, shape: tuple[int, ...]) -> int:
    if node.op_type == "Gemm" and len(shape) == 2 and not _attribute(node, "transB"):
        return shape[0]
    return max(math.prod(shape[1:]), 1)


def _attribute(node: NodeProto, name: str) -> int:
    return next((int(onnx.helper.get_attribute_value(a)) for a in node.attribute if a.name == name), 0)
