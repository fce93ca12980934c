"""Reshapes sink below operators that work element by element, to meet the reshape that follows."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Array, Constant, LazyConstant, Node, Shape, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.pointwise import BROADCASTING, UNARY, is_pointwise
from graphopt_passes.common.shapes import broadcasts_into
from graphopt_passes.common.types import takes_result_of
from graphopt_passes.layout.reshapes import RESHAPES


@dataclass(frozen=True)
class Floating:
    """`node` may work on `source`, and `reshape` come after it; `shapes` gives constants another shape, by input."""

    node: Node
    reshape: Node
    source: Tensor
    index: int
    shapes: dict[int, tuple[int, ...]]


class SinkReshapeBelowPointwise(Rule[Floating]):
    """f(reshape(x), c) = reshape(f(x, c')) for f element by element, where another reshape follows f.

    c is a scalar, or a constant that broadcasts into the reshaped x and has a form c' for x: as large as x, or the
    reshape only adds and drops dimensions of 1. Both reshapes and f are read by the next alone. Opset 8 on. Exact.
    """

    roots = tuple(sorted((UNARY | BROADCASTING) - {"PRelu"}))

    def match(self, node: Node, facts: Facts) -> Floating | NoMatch:
        if not is_pointwise(node.op, facts.opset(node)) or len(node.outputs) != 1:
            return NoMatch("it is of an opset before broadcasting", node)
        if facts.sole_consumer(node.output(0), *RESHAPES) is None:
            return NoMatch("no reshape follows", node)
        inputs = node.inputs[:1] if node.op in UNARY else node.inputs
        computed = [i for i, t in enumerate(inputs) if t is not None and t.constant is None and t.shape != ()]
        if len(computed) != 1:
            return NoMatch("it has several inputs, none constant", node)
        index = computed[0]
        reshape = facts.sole_producer(inputs[index], *RESHAPES)
        source = reshape.input(0) if reshape is not None else None
        if reshape is None or source is None:
            return NoMatch("no reshape that feeds it alone is before it", node)
        if not takes_result_of(node, reshape, source, facts):
            return NoMatch("the reshape does not take the type that it makes", node)
        shapes: dict[int, tuple[int, ...]] = {}
        for i, tensor in enumerate(inputs):
            if i == index or tensor is None or tensor.shape == ():
                continue
            shape = _reshaped(tensor.constant, reshape.result.shape, source.shape)
            if shape is None:
                return NoMatch("its constant has no form for the shape before", node)
            shapes[i] = shape
        return Floating(node, reshape, source, index, shapes)

    def rewrite(self, found: Floating, edit: Rewriter) -> None:
        inputs = list(found.node.inputs)
        inputs[found.index] = found.source
        for i, shape in found.shapes.items():
            tensor = inputs[i]
            assert tensor is not None
            assert tensor.constant is not None
            constant = LazyConstant(tensor.constant.dtype, shape, _Reshaped(tensor.constant, shape))
            inputs[i] = edit.constant(constant, tensor.name)
        made = edit.like(found.node, inputs)
        edit.replace(found.node, edit.like(found.reshape, [made.result, *found.reshape.inputs[1:]]))


@dataclass(frozen=True)
class _Reshaped:
    constant: Constant
    shape: tuple[int, ...]

    def __call__(self) -> Array:
        return self.constant.array().reshape(self.shape)


def _reshaped(constant: Constant | None, after: Shape | None, before: Shape | None) -> tuple[int, ...] | None:
    """The shape in which `constant`, which broadcasts into `after`, broadcasts into `before` the same way."""
    if constant is None or after is None or before is None or not broadcasts_into(constant.shape, after):
        return None
    if constant.size == 1:
        return ()
    if constant.shape == after and all(isinstance(d, int) for d in before):
        return tuple(d for d in before if isinstance(d, int))
    full = (1,) * (len(after) - len(constant.shape)) + constant.shape
    moved = [(c, d) for c, d in zip(full, after, strict=True) if d != 1]
    if [d for _, d in moved] != [d for d in before if d != 1] or any(d is None for d in before):
        return None
    rest = iter(c for c, _ in moved)
    return tuple(1 if d == 1 else next(rest) for d in before)
