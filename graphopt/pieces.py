"""Inference in linear time on graphs with thousands of bodies.

onnx's inference copies the types of all outer tensors for every body that it enters, which is quadratic in the number
of If nodes. Here such a graph is inferred in pieces, each a model of its own whose inputs are what it reads of the
pieces before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorShapeProto, ValueInfoProto, shape_inference

from graphopt.loop_claims import MADE_UP

# A graph with more nodes that have bodies is inferred in pieces.
MOST_HOLDERS = 256
# What a piece has at most.
PIECE_BODIES = 64
PIECE_NODES = 1024
# Where the numbers begin that dimensions get which onnx named in one piece.
NAMES_A_PIECE = 10**6


def infer(model: ModelProto, holders: int, *, strict: bool, data_prop: bool) -> ModelProto:
    """The model with the types that onnx infers; `holders` is the number of its nodes that have bodies.

    Raises what onnx raises: with `strict`, for types that contradict each other.
    """
    if holders <= MOST_HOLDERS or model.functions:
        return shape_inference.infer_shapes(model, check_type=strict, strict_mode=strict, data_prop=data_prop)
    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.value_info[:]
    known = {info.name: info for info in model.graph.input}
    claims = {info.name: info for info in model.graph.value_info}
    outputs = {info.name: info for info in model.graph.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for number, nodes in enumerate(_pieces(model.graph.node), 1):
        piece = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
        piece.graph.name = model.graph.name
        piece.graph.node.extend(nodes)
        read = _names_read(nodes)
        piece.graph.initializer.extend(weights[name] for name in read if name in weights)
        piece.graph.input.extend(known[name] for name in read if name in known)
        made = [name for node in nodes for name in node.output]
        piece.graph.value_info.extend(claims[name] for name in made if name in claims)
        piece.graph.output.extend(outputs[name] for name in made if name in outputs)
        found = shape_inference.infer_shapes(piece, check_type=strict, strict_mode=strict, data_prop=data_prop).graph
        _rename(found, number)
        infos = {info.name: info for info in (*found.value_info, *found.output)}
        known.update(infos)
        result.graph.value_info.extend(info for name, info in infos.items() if name not in outputs)
        result.graph.node.extend(found.node)
    for info in result.graph.output:
        info.CopyFrom(known.get(info.name, info))
    return result


def bodies_of(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that a node has as attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _pieces(nodes: Iterable[NodeProto]) -> Iterator[list[NodeProto]]:
    """The nodes in order, cut where a piece has enough."""
    piece: list[NodeProto] = []
    bodies = 0
    for node in nodes:
        piece.append(node)
        bodies += sum(1 for _ in bodies_of(node))
        if bodies >= PIECE_BODIES or len(piece) >= PIECE_NODES:
            yield piece
            piece, bodies = [], 0
    if piece:
        yield piece


def _names_read(nodes: list[NodeProto]) -> dict[str, None]:
    """What the nodes and their bodies read and the nodes do not make, each once; a body's own names may be among it."""
    read: dict[str, None] = {}
    stack = [nodes]
    while stack:
        for node in stack.pop():
            read.update(dict.fromkeys(node.input))
            for body in bodies_of(node):
                read.update(dict.fromkeys(o.name for o in body.output))
                stack.append(list(body.node))
    for node in nodes:
        for name in node.output:
            read.pop(name, None)
    return read


def _rename(graph: GraphProto, number: int) -> None:
    """Gives the dimensions that onnx named in this piece a name that no other piece gives."""
    for info in (*graph.value_info, *graph.output):
        for dim in _dims(info):
            made_up = dim.dim_param[len(MADE_UP) :] if dim.dim_param.startswith(MADE_UP) else ""
            if made_up.isdigit() and int(made_up) < NAMES_A_PIECE:
                dim.dim_param = f"{MADE_UP}{number * NAMES_A_PIECE + int(made_up)}"
    for node in graph.node:
        for body in bodies_of(node):
            _rename(body, number)


def _dims(info: ValueInfoProto) -> list[TensorShapeProto.Dimension]:
    return list(info.type.tensor_type.shape.dim) if info.type.HasField("tensor_type") else []
