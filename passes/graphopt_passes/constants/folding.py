"""Putting a constant in the place of a computed tensor."""

from __future__ import annotations

from onnx import TensorProto

from graphopt.graph import Constant, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt_passes.dead_layers.leftovers import is_in_function

ANY_TYPE_SINCE = 9
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})


def settle(tensor: Tensor, constant: Constant, edit: Rewriter) -> None:
    """Makes all that reads `tensor` read `constant`, which has its value.

    A graph output must be made by a node, so there a Constant node takes over the name; else it is an initializer.
    """
    if not tensor.is_output:
        edit.forward(tensor, edit.constant(constant, f"{tensor.name}.folded"))
        return
    node = edit.node("Constant", [], {"value": constant.to_proto("")})
    node.result.constant = constant
    node.result.dtype, node.result.shape = constant.dtype, constant.shape
    edit.forward(tensor, node.result)


def can_settle(tensor: Tensor, dtype: int) -> bool:
    """Whether a constant may stand for `tensor`: before opset 9 a Constant node makes floats only (Constant-1).

    A graph output is made by such a node, and so is every constant of a function, which has no initializers.
    """
    if tensor.graph.opset >= ANY_TYPE_SINCE or dtype in FLOATS:
        return True
    return not tensor.is_output and not is_in_function(tensor.graph)


def used_outputs(node: Node) -> list[Tensor]:
    """The outputs that something reads."""
    return [t for t in node.outputs if t is not None and t.is_used]
