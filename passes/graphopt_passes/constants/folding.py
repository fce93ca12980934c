"""Putting a constant in the place of a computed tensor."""

from __future__ import annotations

from onnx import TensorProto

from graphopt.graph import Constant, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt_passes.dead_layers.leftovers import is_in_function

ANY_TYPE_SINCE = 9
_STEPS = 4  # which input of a Slice has them
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


def problem_of_settling(tensor: Tensor, constant: Constant) -> str | None:
    """Why `constant` may not stand for `tensor`; None when it may.

    Before opset 9 a Constant node makes floats only (Constant-1). A graph output is made by such a node, and so is
    every constant of a function, which has no initializers. And what a reader refuses, which fails at run time, in a
    branch perhaps that is never taken, would fail when the model is loaded.
    """
    if any(_is_refused(node, index, constant) for node in tensor.consumers for index in _places(tensor, node)):
        return "a reader refuses what it is"
    if tensor.graph.opset >= ANY_TYPE_SINCE or constant.dtype in FLOATS:
        return None
    if tensor.is_output or is_in_function(tensor.graph):
        return "before opset 9 no Constant node makes an output of integers"
    return None


def _places(tensor: Tensor, node: Node) -> list[int]:
    return [index for index, each in enumerate(node.inputs) if each is tensor]


def _is_refused(node: Node, index: int, constant: Constant) -> bool:
    """Negative sizes of a ConstantOfShape, steps of 0 of a Slice: runtimes check these of constants while they load."""
    if (node.op, index) == ("ConstantOfShape", 0):
        return bool((constant.array() < 0).any())
    return (node.op, index) == ("Slice", _STEPS) and bool((constant.array() == 0).any())


def used_outputs(node: Node) -> list[Tensor]:
    """The outputs that something reads."""
    return [t for t in node.outputs if t is not None and t.is_used]
