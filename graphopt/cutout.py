"""Cutting a change out of its graph: what was there before and what is there now, as two small models.

Both models have the same inputs and, in the same order, the outputs that the change claims to be equal. Nodes upstream
of the change may be taken in as context, so that a rule that relied on what made its inputs is judged fairly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from graphopt.change import Change
from graphopt.graph import Model, Node, Tensor, bits_of, export_bodies, export_function, node_proto, value_info
from graphopt.pieces import bodies_of

Inputs = tuple[Tensor | None, ...]


# A tensor of more bytes than this is not computed to check one rewrite.
MOST_BYTES = 1 << 28
# So many nodes make a shape out of constants alone, at most; a longer computation counts as any other context.
MOST_OF_A_SHAPE = 64
# Nor are weights of more bytes than this put into a small model.
MOST_WEIGHT_BYTES = 1 << 30


class CannotCutError(Exception):
    """The change cannot stand alone: a type at its boundary is unknown, or a tensor in it is too large."""


@dataclass(frozen=True)
class Cutout:
    """A change as two models; `nodes` counts both, context included."""

    before: ModelProto
    after: ModelProto
    nodes: int
    is_whole: bool  # whether everything upstream is in it, so that more context cannot be had


def cut_out(change: Change, model: Model, context: int) -> Cutout:
    """The change with up to `context` upstream nodes (the nearest first) in both models.

    Shapes that follow from constants alone are computed in both, however far that is: drawn at random they would not
    fit, or would broadcast a tensor to gigabytes.
    Raises CannotCutError where a boundary tensor has no known dtype or rank, or a tensor is too large.
    """
    before = {node: node.inputs for node in change.consumed} | change.rewired
    after = {node: node.inputs for node in (*change.made, *change.rewired)}
    made_after = {t for node in after for t in node.outputs}
    # what nothing makes any more is not compared when nothing reads it either
    equal = [(old, new) for old, new in change.replaced.items() if new.is_used or _is_there(new, made_after)]
    equal += [(t, t) for node in change.rewired for t in node.outputs if t is not None and t.is_used]
    wanted_before, wanted_after = [old for old, _ in equal], [new for _, new in equal]
    # an output that is replaced may be one of a node that stays
    shared, is_whole = _context(before, after, [*wanted_before, *wanted_after], context)
    shared += _known_shapes([*before.values(), *after.values()], {*shared, *before, *after}, shared)
    _check_size([*shared, *before, *after])
    made = {t for node in before for t in node.outputs}
    if not all(_is_there(old, made) and _is_there(new, made_after) for old, new in equal):
        raise CannotCutError("it replaces a tensor that nothing makes any more")  # it would be drawn at random
    first = _assemble(model, [*shared, *before], before, wanted_before)
    second = _assemble(model, [*shared, *after], after, wanted_after)
    boundary = _inputs_of(first, second)
    return Cutout(
        _model(model, first, boundary, wanted_before),
        _model(model, second, boundary, wanted_after),
        len(first.nodes) + len(second.nodes),
        is_whole,
    )


def _is_there(tensor: Tensor, made: set[Tensor | None]) -> bool:
    known = tensor.producer is not None or tensor.constant is not None or tensor.is_input
    return known or tensor in made


def _check_size(nodes: Iterable[Node]) -> None:
    weights: dict[Tensor, int] = {}
    for node in nodes:
        for tensor in (*node.inputs, *node.outputs):
            if tensor is None or tensor.shape is None:
                continue
            if tensor.constant is not None:
                weights[tensor] = tensor.constant.nbytes
                continue
            elements = math.prod(dim for dim in tensor.shape if isinstance(dim, int))
            if elements * (bits_of(tensor.dtype or 0) or 8) > 8 * MOST_BYTES:
                raise CannotCutError(f"'{tensor.name}' is too large to be computed for it")
    if sum(weights.values()) > MOST_WEIGHT_BYTES:
        raise CannotCutError(f"its weights take {sum(weights.values()):,} bytes")


def _context(
    before: dict[Node, Inputs], after: dict[Node, Inputs], wanted: Sequence[Tensor], most: int
) -> tuple[list[Node], bool]:
    """Upstream nodes, breadth first; those that make a wanted tensor are always in. And whether that was all."""
    own = before.keys() | after.keys()
    needed = [t.producer for t in wanted if t.producer is not None and t.producer not in own]
    found: dict[Node, None] = dict.fromkeys(needed)
    level = [*needed, *(p for inputs in (*before.values(), *after.values()) for p in _producers(inputs))]
    while level:
        following: list[Node] = []
        for node in level:
            if node in own or (node in found and node not in needed):
                continue
            if node not in found:
                if len(found) >= most + len(needed):
                    return list(found), False
                found[node] = None
            following += _producers(_reads(node))
        level = [n for n in dict.fromkeys(following) if n not in found]
    return list(found), True


def _known_shapes(read: Iterable[Inputs], there: set[Node], shared: Sequence[Node]) -> list[Node]:
    """Nodes upstream of those that are there, which make the integer vectors that these read from constants alone."""
    found: dict[Node, None] = {}
    for inputs in (*read, *(tuple(_reads(node)) for node in shared)):
        for maker in _producers(inputs):
            if maker not in there and maker not in found:
                found.update(dict.fromkeys(_shape_computation(maker, there)))
    return list(found)


def _shape_computation(node: Node, there: set[Node]) -> list[Node]:
    """The node and all upstream of it, where they make integer vectors and scalars of constants; nothing elsewhere."""
    found: dict[Node, None] = {}
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if each in found or each in there:
            continue
        is_fed = any(t is not None and t.producer is None and t.constant is None for t in each.inputs)
        if len(found) == MOST_OF_A_SHAPE or is_fed or each.bodies or not all(map(_is_shape, each.outputs)):
            return []
        found[each] = None
        waiting += _producers(each.inputs)
    return list(found)


def _is_shape(tensor: Tensor | None) -> bool:
    return tensor is None or (tensor.dtype == TensorProto.INT64 and tensor.shape is not None and len(tensor.shape) <= 1)


def _producers(tensors: Iterable[Tensor | None]) -> list[Node]:
    return [t.producer for t in tensors if t is not None and t.producer is not None and t.constant is None]


def _reads(node: Node) -> list[Tensor | None]:
    """What a node reads, bodies included."""
    tensors = list(node.inputs)
    for body in node.subgraphs():
        tensors += body.outputs
        for inner in body.nodes:
            tensors += _reads(inner)
    return tensors


@dataclass(frozen=True)
class _Side:
    """One of the two models while it is put together."""

    nodes: list[NodeProto]
    constants: dict[Tensor, None]
    open: dict[Tensor, None]  # what it reads and does not make


def _assemble(model: Model, nodes: list[Node], inputs: dict[Node, Inputs], wanted: Sequence[Tensor]) -> _Side:
    made = {t for node in nodes for t in _all_outputs(node)}
    constants: dict[Tensor, None] = {}
    unmade: dict[Tensor, None] = {}
    for node in nodes:
        for tensor in (*inputs.get(node, node.inputs), *_reads(node)[len(node.inputs) :]):
            if tensor is None or tensor in made:
                continue
            (constants if tensor.constant is not None else unmade)[tensor] = None
    for tensor in wanted:
        if tensor not in made:
            (constants if tensor.constant is not None else unmade)[tensor] = None
    return _Side([_proto(n, inputs.get(n)) for n in _sorted(nodes, inputs)], constants, unmade)


def _all_outputs(node: Node) -> list[Tensor]:
    """What a node and the nodes of its bodies make, body inputs included."""
    tensors = [t for t in node.outputs if t is not None]
    for body in node.subgraphs():
        tensors += [*body.inputs, *body.initializers]
        for inner in body.nodes:
            tensors += _all_outputs(inner)
    return tensors


def _proto(node: Node, inputs: Inputs | None) -> NodeProto:
    proto = node_proto(node, export_bodies(node)) if node.bodies else node_proto(node)
    if inputs is not None and inputs is not node.inputs:
        copy = NodeProto()
        copy.CopyFrom(proto)
        del copy.input[:]
        copy.input.extend(t.name if t is not None else "" for t in inputs)
        return copy
    return proto


def _sorted(nodes: list[Node], inputs: dict[Node, Inputs]) -> list[Node]:
    """Topological order: a cutout is small, so depth first will do."""
    maker = {t: node for node in nodes for t in node.outputs if t is not None}
    order: dict[Node, None] = {}
    stack = [(node, False) for node in reversed(nodes)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            order[node] = None
        elif node not in order:
            stack.append((node, True))
            read = (*inputs.get(node, node.inputs), *_reads(node)[len(node.inputs) :])
            stack += [(maker[t], False) for t in read if t is not None and t in maker and maker[t] not in order]
    return list(order)


def _inputs_of(first: _Side, second: _Side) -> list[Tensor]:
    return list({**first.open, **second.open})


def _model(model: Model, side: _Side, boundary: list[Tensor], wanted: Sequence[Tensor]) -> ModelProto:
    """The side as a model. Its outputs are named `out0`, `out1`, ... so that both sides agree."""
    graph = GraphProto(name="cutout")
    for tensor in boundary:
        info = value_info(tensor)
        if info is None or tensor.shape is None:
            raise CannotCutError(f"the type of '{tensor.name}' is unknown")
        graph.input.append(info)
    for tensor in side.constants:
        assert tensor.constant is not None
        graph.initializer.append(tensor.constant.to_proto(tensor.name))
    graph.node.extend(side.nodes)
    for index, tensor in enumerate(wanted):
        graph.node.append(helper.make_node("Identity", [tensor.name], [f"out{index}"]))
        if tensor.dtype is None:
            raise CannotCutError(f"the type of '{tensor.name}' is unknown")
        graph.output.append(helper.make_tensor_value_info(f"out{index}", tensor.dtype, None))
    imports = [helper.make_opsetid(domain, version) for domain, version in model.opsets.items()]
    result = helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version)
    result.functions.extend(_functions(model, side.nodes))
    return result


def _functions(model: Model, nodes: Iterable[NodeProto]) -> list[FunctionProto]:
    """The functions that the nodes call, as they are now, and those that these call."""
    by_name = {(f.proto.domain, f.proto.name): f for f in model.functions.values()}
    found: dict[tuple[str, str], FunctionProto] = {}
    waiting = [nodes] if by_name else []
    while waiting:
        for node in waiting.pop():
            key = (node.domain, node.op_type)
            if key in by_name and key not in found:
                found[key] = export_function(model, by_name[key])
                waiting.append(found[key].node)
            waiting += [body.node for body in bodies_of(node)]
    return list(found.values())
