"""Transposes sink below operators that work element by element, until they meet another Transpose and cancel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Constant, LazyConstant, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import permutation
from graphopt_passes.common.pointwise import BROADCASTING, UNARY, is_pointwise
from graphopt_passes.common.types import takes_result_of
from graphopt_passes.layout.ahead import may_move
from graphopt_passes.layout.transposes import Perm, inverse


def transposed_input(tensor: Tensor | None, facts: Facts) -> tuple[Tensor, Perm] | None:
    """x and p where `tensor` is Transpose(x, p)."""
    made = facts.producer(tensor, "Transpose")
    source = made.input(0) if made is not None else None
    perm = permutation(made, facts) if made is not None else None
    return None if source is None or perm is None else (source, perm)


def pays(node: Node, transposes: set[Tensor], facts: Facts) -> bool:
    """Whether a Transpose behind `node` instead of those before it leaves no more of them.

    Either one of `transposes` is read by `node` alone and goes, or the one behind meets another Transpose.
    """
    if any(len(t.consumers) == 1 and not t.is_output and t.graph is node.graph for t in transposes):
        return True
    return facts.sole_consumer(node.output(0), "Transpose") is not None


@dataclass(frozen=True)
class Sinking:
    """`node` reads transposed tensors: `sources` are its inputs before the permutation `perm` (None: a constant)."""

    node: Node
    perm: Perm
    sources: tuple[Tensor | None, ...]


class SinkTransposeBelowPointwise(Rule[Sinking]):
    """f(Transpose(x, p), Transpose(y, p), c) = Transpose(f(x, y, c'), p) for f element by element.

    c is constant, or a constant dequantized with one scale for this node alone, of a rank not above that of p, and c'
    is c permuted back: c with ones in front up to p's rank, transposed by p's inverse. A scalar c, constant or not,
    stays. Where several inputs are not constant all are transposed by the same p. Fires where a Transpose before f
    goes, or where one follows f. Opset 8 on. Exact.
    """

    roots = tuple(sorted(UNARY | BROADCASTING))

    def match(self, node: Node, facts: Facts) -> Sinking | NoMatch:
        if not is_pointwise(node.op, facts.opset(node)) or len(node.outputs) != 1:
            return NoMatch("it is of an opset before broadcasting", node)
        inputs = node.inputs[:1] if node.op in UNARY else node.inputs
        found = [transposed_input(t, facts) for t in inputs]
        perms = {item[1] for item in found if item is not None}
        if len(perms) != 1:
            return NoMatch("its inputs are not transposed in one way", node)
        perm = next(iter(perms))
        sources: list[Tensor | None] = []
        for tensor, item in zip(inputs, found, strict=True):
            if item is not None:
                sources.append(item[0])
            elif tensor is not None and tensor.shape == ():
                sources.append(tensor)
            elif can_permute(tensor, len(perm), facts):
                sources.append(None)
            else:
                return NoMatch("an input is neither transposed nor constant", node)
        moved = {t for t, item in zip(inputs, found, strict=True) if item is not None and t is not None}
        for tensor in moved:
            mover = facts.producer(tensor, "Transpose")
            if mover is None or not takes_result_of(node, mover, tensor, facts):
                return NoMatch("a Transpose does not take the type that it makes", node)
        if not pays(node, moved, facts):
            return NoMatch("the Transpose before it has other readers", node)
        if len(moved) < 2 and not may_move(node, [t for t in sources if t is not None], facts):
            return NoMatch("the Transpose would meet no other, and stand in the way of no fusion", node)
        return Sinking(node, perm, (*sources, *node.inputs[len(sources) :]))

    def rewrite(self, found: Sinking, edit: Rewriter) -> None:
        node, perm = found.node, found.perm
        read = {i for i, t in enumerate(found.sources) if t is None and node.inputs[i] is not None}
        inputs = [permuted_back(node.inputs[i], perm, edit) if i in read else t for i, t in enumerate(found.sources)]
        place_behind(node, edit.like(node, inputs), perm, edit)


def place_behind(old: Node, made: Node, perm: Perm, edit: Rewriter) -> None:
    """Puts Transpose(`made`, `perm`) in the place of `old`; `made` alone when it would move nothing."""
    moves = perm != tuple(range(len(perm)))
    edit.replace(old, edit.node("Transpose", [made.result], {"perm": perm}) if moves else made)


def can_permute(tensor: Tensor | None, rank: int, facts: Facts) -> bool:
    """Whether `permuted_back` takes the tensor: a constant, or one that is dequantized for one reader."""
    if tensor is not None and tensor.constant is None:
        tensor = _dequantized(tensor, facts)
    return tensor is not None and tensor.constant is not None and len(tensor.constant.shape) <= rank


def _dequantized(tensor: Tensor, facts: Facts) -> Tensor | None:
    """The constant that is dequantized to `tensor`, with one scale for all of it; None when it is not that."""
    made = facts.sole_producer(tensor, "DequantizeLinear")
    if made is None or any(not facts.is_constant(t) for t in made.inputs if t is not None):
        return None
    scale = facts.constant(made.input(1))
    return made.input(0) if scale is not None and scale.shape == () else None


def permuted_back(tensor: Tensor | None, perm: Perm, edit: Rewriter) -> Tensor:
    """A constant that broadcasts with x as `tensor` does with Transpose(x, `perm`); see `can_permute`."""
    assert tensor is not None
    if tensor.constant is None:
        made = tensor.producer
        assert made is not None
        values = permuted_back(made.input(0), perm, edit)
        return edit.like(made, [values, *made.inputs[1:]]).result
    constant = tensor.constant
    if constant.size == 1:
        return tensor
    shape = (1,) * (len(perm) - len(constant.shape)) + constant.shape
    back = inverse(perm)
    dims = tuple(shape[b] for b in back)
    return edit.constant(LazyConstant(constant.dtype, dims, _Permuted(constant, shape, back)), tensor.name)


@dataclass(frozen=True)
class _Permuted:
    """A constant's values, given another shape and transposed, when they are asked for."""

    constant: Constant
    shape: tuple[int, ...]
    perm: Perm

    def __call__(self) -> Array:
        return np.ascontiguousarray(self.constant.array().reshape(self.shape).transpose(self.perm))
