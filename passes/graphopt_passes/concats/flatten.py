"""Concats of concats, and inputs that bring nothing."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt.targets import Target
from graphopt_passes.common.pointwise import BROADCASTING, UNARY
from graphopt_passes.concats.segments import concat_axis, length

# More inputs than this make a Concat that no runtime takes in one kernel.
MOST_INPUTS = 64
_READS_PARTS = UNARY | BROADCASTING | {"BatchNormalization", "Concat"}


@dataclass(frozen=True)
class Inputs:
    """A Concat and the inputs that give the same result."""

    concat: Node
    inputs: tuple[Tensor, ...]


def _put(found: Inputs, edit: Rewriter) -> None:
    edit.replace(found.concat, edit.like(found.concat, found.inputs))


class _Flatten(Rule[Inputs]):
    """Concat(..., Concat(a, b, axis), ..., axis) = Concat(..., a, b, ..., axis).

    The axes are the same once they are counted from the front. Which inner Concats are taken apart, subclasses say.
    """

    roots = ("Concat",)

    def dissolves(self, inner: Node, outer: Node, facts: Facts) -> bool:
        """Whether `inner`, which makes an input of `outer`, is to be taken apart there."""
        raise NotImplementedError

    def match(self, node: Node, facts: Facts) -> Inputs | NoMatch:
        axis = concat_axis(node, facts)
        if axis is None or None in node.inputs:
            return NoMatch("its axis is not known", node)
        outer = facts.sole_consumer(node.output(0), "Concat")
        if outer is not None and concat_axis(outer, facts) == axis and _fits(outer, node):
            return NoMatch("the Concat that reads it takes it apart", node)
        inputs = self._dissolved(node, axis, facts)
        if inputs == list(node.inputs):
            return NoMatch("no Concat on its axis feeds it alone", node)
        return Inputs(node, tuple(inputs))

    def _dissolved(self, outer: Node, axis: int, facts: Facts) -> list[Tensor]:
        """The inputs, Concats among them taken apart at any depth, up to `MOST_INPUTS`."""
        stack = [(t, outer) for t in reversed(outer.inputs) if t is not None]
        inputs: list[Tensor] = []
        while stack:
            tensor, reader = stack.pop()
            inner = facts.producer(tensor, "Concat")
            local = inner is not None and inner.graph is outer.graph and None not in inner.inputs
            room = len(inputs) + len(stack) + (len(inner.inputs) if inner is not None else 0) <= MOST_INPUTS
            if inner is None or not local or not room or concat_axis(inner, facts) != axis:
                inputs.append(tensor)
            elif self.dissolves(inner, reader, facts):
                stack += [(t, inner) for t in reversed(inner.inputs) if t is not None]
            else:
                inputs.append(tensor)
        return inputs

    def rewrite(self, found: Inputs, edit: Rewriter) -> None:
        _put(found, edit)


def _fits(outer: Node, inner: Node) -> bool:
    return len(outer.inputs) + len(inner.inputs) - 1 <= MOST_INPUTS


class FlattenConcats(_Flatten):
    """Concat(..., Concat(a, b, axis), ..., axis) = Concat(..., a, b, ..., axis), the inner one read by the outer alone.

    The axes are the same once they are counted from the front. Opset 1 on. Exact.
    """

    def dissolves(self, inner: Node, outer: Node, facts: Facts) -> bool:
        result = inner.result
        return not result.listings and len(result.consumers) == 1 and outer in result.consumers


class FlattenSharedConcats(_Flatten):
    """The same where other Concats and point-wise operators read the inner one too, for TensorRT.

    TensorRT reads the parts of a Concat within the point-wise kernel that follows, so that neither Concat is ever
    written as a whole: engines of DenseNet-121 move 180 MB in this form and 215 MB with nested Concats, their
    activations take 16.4 and 17.8 MB (TensorRT-RTX 1.7, SM89). Opset 1 on. Exact.
    """

    def dissolves(self, inner: Node, outer: Node, facts: Facts) -> bool:
        readers = inner.result.consumers
        if facts.target is not Target.TENSORRT or inner.result.listings or not 1 < len(readers) <= MOST_INPUTS:
            return False
        return all(r.op in _READS_PARTS for r in readers)


class DropEmptyParts(Rule[Inputs]):
    """Concat(a, e, b) = Concat(a, b), where e has no elements along the axis.

    Opset 1 on. Exact.
    """

    roots = ("Concat",)

    def match(self, node: Node, facts: Facts) -> Inputs | NoMatch:
        axis = concat_axis(node, facts)
        if axis is None or None in node.inputs:
            return NoMatch("its axis is not known", node)
        inputs = [t for t in node.inputs if t is not None]
        kept = [t for t in inputs if length(t, axis) != 0] or inputs[:1]
        if len(kept) == len(inputs):
            return NoMatch("no input is empty", node)
        return Inputs(node, tuple(kept))

    def rewrite(self, found: Inputs, edit: Rewriter) -> None:
        _put(found, edit)
