"""What a Loop's body claims of its inputs' shapes: believed only where it holds in every iteration.

Files say that a carried tensor is [2, 3] when it grows by a row each time. A claimed size is proven by induction: the
tensor that enters the loop has it, and with all proven sizes taken as given the body's result has it too.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto

from graphopt.elements import forget_shapes
from graphopt.graph import Graph, Model, Node, Shape, Tensor

# Inputs of a body before those that are carried: the iteration's number and the condition (ONNX, operator Loop).
FIRST_CARRIED = 2
# How onnx's inference names the dimensions that it does not know.
MADE_UP = "unk__"


def unproven_claims(model: Model) -> dict[Tensor, Shape | None]:
    """Inputs of Loop bodies whose noted shapes claim too much, and what of these may still be claimed.

    A name of a dimension is never claimed: it may be another number in each iteration.
    """
    found = {}
    for graph in model.graphs():
        for node in graph.nodes:
            if node.op == "Loop":
                found.update(_unproven(node))
    return found


def _unproven(loop: Node) -> dict[Tensor, Shape | None]:
    found: dict[Tensor, Shape | None] = {}
    for body in loop.subgraphs():
        entering = loop.inputs[FIRST_CARRIED:]
        carried, leaving = body.inputs[FIRST_CARRIED:], body.outputs[FIRST_CARRIED - 1 :]
        for inside, before, after in zip(carried, entering, leaving, strict=False):
            kept = _kept(inside.shape, before.shape if before is not None else None, after.shape)
            if kept != inside.shape:
                found[inside] = kept
    return found


def _kept(claim: Shape | None, before: Shape | None, after: Shape | None) -> Shape | None:
    """The part of a claim that the tensor that enters and the body's result both bear out."""
    if claim is None or before is None or after is None or not len(claim) == len(before) == len(after):
        return None
    dims = zip(claim, before, after, strict=True)
    return tuple(c if _is_made_up(c) or (isinstance(c, int) and c == b == a) else None for c, b, a in dims)


def _is_made_up(dim: int | str | None) -> bool:
    """Whether inference named the dimension itself: that claims nothing."""
    return isinstance(dim, str) and dim.startswith(MADE_UP)


def forget_names(body: GraphProto) -> None:
    """Drops the dimensions' names that a Loop's body claims of its inputs, and all it claims of sequences' elements.

    No name would be believed, and one that looks as if inference had made it up would not be told from those.
    """
    forget_shapes(info for info in body.input if not info.type.HasField("tensor_type"))
    for info in body.input:
        for dim in info.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")


def withdraw(claims: Mapping[Tensor, Shape | None], proto: GraphProto) -> None:
    """Writes the weaker claims into the bodies of `proto`, and forgets what was noted in these bodies."""
    by_name = {t.name: shape for t, shape in claims.items()}
    for body in {t.graph: None for t in claims}:
        _forget_shapes(body)
    _rewrite(by_name, proto)


def _rewrite(claims: Mapping[str, Shape | None], graph: GraphProto) -> None:
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                for info in body.input:
                    if info.name in claims and info.type.HasField("tensor_type"):
                        _set_shape(info.type.tensor_type, claims[info.name])
                _rewrite(claims, body)


def _set_shape(tensor_type: object, shape: Shape | None) -> None:
    tensor_type.ClearField("shape")  # type: ignore[attr-defined]
    if shape is not None:
        tensor_type.shape.SetInParent()  # type: ignore[attr-defined]
        for dim in shape:
            added = tensor_type.shape.dim.add()  # type: ignore[attr-defined]
            if isinstance(dim, int):
                added.dim_value = dim


def _forget_shapes(body: Graph) -> None:
    """Takes back the shapes of all that the body, and bodies in it, compute: they may rest on a false claim."""
    for graph in (body, *body.bodies()):
        for tensor in (*graph.inputs, *(t for n in graph.nodes for t in n.outputs if t is not None)):
            if tensor.constant is None:
                tensor.shape = None
