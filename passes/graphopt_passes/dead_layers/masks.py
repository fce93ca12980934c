"""The mask of a Dropout that drops nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Refused, Rule
from graphopt_passes.common.pure import is_inference_dropout

# a mask up to this many elements (one byte each) becomes an initializer, a larger one is computed
_STORED_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class Mask:
    """A Dropout whose mask is read, of an input of this static shape (None: only known at run time)."""

    dropout: Node
    mask: Tensor
    shape: tuple[int, ...] | None


class DropoutMaskIsTrue(Rule[Mask]):
    """The mask of a Dropout at inference is true all over, of the input's shape.

    Opset 12 on: before, the operator's text does not say what the mask is at inference, and runtimes differ. The mask
    becomes an initializer, or ConstantOfShape(Shape(x)) where the shape is dynamic or large. Exact.
    """

    roots = ("Dropout",)

    def match(self, node: Node, facts: Facts) -> Mask | NoMatch:
        mask = node.output(1)
        if mask is None or not mask.is_used:
            return NoMatch("nothing reads its mask", node)
        if not is_inference_dropout(node, facts):
            return NoMatch("it may drop elements at run time", node)
        if facts.opset(node) < 12:
            return Refused("before opset 12 runtimes differ in the mask at inference", node)
        if node.input(0) is None:
            return NoMatch("its input is left out", node)
        return Mask(node, mask, facts.static_shape(node.input(0)))

    def rewrite(self, found: Mask, edit: Rewriter) -> None:
        if found.shape is not None and np.prod(found.shape) <= _STORED_ELEMENTS and not found.mask.is_output:
            mask = edit.constant(np.ones(found.shape, np.bool_), f"{found.mask.name}.true")
        else:
            shape = edit.node("Shape", [found.dropout.input(0)]).result
            value = _scalar_true()
            mask = edit.node("ConstantOfShape", [shape], {"value": value}).result
        edit.forward(found.mask, mask)


def _scalar_true() -> object:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ones(1, np.bool_), "value")
