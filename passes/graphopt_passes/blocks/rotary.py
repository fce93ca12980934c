"""Rotary position embedding that an exporter wrote as products with cosines and sines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, RewriteRefusedError, Rule
from graphopt_passes.blocks.activations import needs_opset
from graphopt_passes.blocks.terms import inner
from graphopt_passes.common.arguments import axis_of, ints_argument, normalized_axes, permutation
from graphopt_passes.common.folding import FLOATS
from graphopt_passes.common.splits import split_axis, split_sizes

_LONGEST = 8  # operators between the angles and the cosine that multiplies
_POINTWISE = ("Cos", "Sin", "Cast", "Neg")


@dataclass(frozen=True)
class Repeated:
    """A tensor whose last axis holds the same numbers twice: `steps`, first to last, turn `half` into one half.

    `half` is None for a constant, whose halves are compared when it is read.
    """

    whole: Tensor
    half: Tensor | None
    steps: tuple[Node, ...]


@dataclass(frozen=True)
class Rotary:
    """x · cos + [−x₂, x₁] · sin, x = [x₁, x₂]."""

    last: Node
    data: Tensor
    cos: Repeated
    sin: Repeated


class RecognizeRotaryEmbedding(Rule[Rotary]):
    """x·[c, c] + [−x₂, x₁]·[s, s] = RotaryEmbedding(x, c, s), where x = [x₁, x₂] along the last axis.

    x is [B, H, S, D], D even; the tables [c, c] and [s, s] are [B, 1, S, D] and surely hold each number twice: both
    come of a Concat of a tensor with itself, or a Tile, through operators that keep the last axis, or are constants.

    Opsets: 23 on. Exactness: reassociates. Source: ONNX operator RotaryEmbedding; Su et al. 2021, arXiv 2104.09864.
    """

    roots = ("Add",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> Rotary | NoMatch:
        products = [inner(t, facts, "Mul") for t in node.inputs]
        first, second = (*products, None)[:2]
        if first is None or second is None or len(node.inputs) != 2:
            return NoMatch("it is no sum of two products", node)
        found = _rotated(first, second, facts) or _rotated(second, first, facts)
        if found is None:
            return NoMatch("no factor is another one with its halves exchanged and the second negated", node)
        data, cos, sin = found
        shape = data.shape
        if shape is None or len(shape) != 4 or data.dtype not in FLOATS or data.dtype == TensorProto.DOUBLE:
            return NoMatch("the data is not known to be of rank 4 and of floats that the operator takes", node)
        if any(t.shape is None or t.shape != (shape[0], 1, *shape[2:]) or None in t.shape for t in (cos, sin)):
            return Refused(
                "the cosines and sines are not one table for each batch element; fixed shapes may tell", node
            )
        cosines, sines = repeated(cos, facts), repeated(sin, facts)
        if cosines is None or sines is None:
            return NoMatch("the cosines and sines may differ between the halves", node)
        rotary = Rotary(node, data, cosines, sines)
        return needs_opset(node, facts, "RotaryEmbedding", 23, "x·cos + rotated(x)·sin") or rotary

    def rewrite(self, found: Rotary, edit: Rewriter) -> None:
        made: dict[Node, Tensor] = {}  # the two tables often come of the same angles
        tables = [_cache(each, made, edit) for each in (found.cos, found.sin)]
        edit.replace(found.last, edit.node("RotaryEmbedding", [found.data, *tables], name=found.last.name))


def _rotated(plain: Node, turned: Node, facts: Facts) -> tuple[Tensor, Tensor, Tensor] | None:
    """x, the cosines and the sines, where `plain` is x · cos and `turned` is [−x₂, x₁] · sin."""
    for i in (0, 1):
        halves, sin = facts.sole_producer(turned.input(i), "Concat"), turned.input(1 - i)
        data = _exchanged(halves, facts) if halves is not None else None
        if data is None or sin is None:
            continue
        for j in (0, 1):
            cos = plain.input(1 - j)
            if plain.input(j) is data and cos is not None:
                return data, cos, sin
    return None


def _exchanged(halves: Node, facts: Facts) -> Tensor | None:
    """x where `halves` is Concat(−x₂, x₁) along the last axis and x₁, x₂ are the halves of x."""
    if len(halves.inputs) != 2 or axis_of(halves, facts.rank(halves.result), 0) != 3 or facts.rank(halves.result) != 4:
        return None
    negated = facts.producer(halves.input(0), "Neg")
    split = facts.producer(negated.input(0), "Split") if negated is not None else None
    if negated is None or split is None or len(split.outputs) != 2 or split_axis(split, facts) != 3:
        return None
    sizes = split_sizes(split, 3, facts)
    is_order = split.output(1) is negated.input(0) and split.output(0) is halves.input(1)
    return split.input(0) if is_order and sizes is not None and sizes[0] == sizes[1] else None


def repeated(tensor: Tensor, facts: Facts) -> Repeated | None:
    """How the last axis of `tensor` comes to hold the same numbers twice; None when that is not sure."""
    if facts.is_constant(tensor):
        return Repeated(tensor, None, ())
    steps: list[Node] = []
    current, from_right = tensor, 1
    while len(steps) < _LONGEST:
        rank = facts.rank(current)
        node = current.producer
        if rank is None or node is None or node.graph is not tensor.graph:
            return None
        source = node.input(0)
        if source is None:
            return None
        if _doubles(node, rank - from_right, facts):
            return Repeated(tensor, source, tuple(reversed(steps)))
        before = _axis_before(node, rank - from_right, facts)
        source_rank = facts.rank(source)
        if before is None or source_rank is None:
            return None
        steps.append(node)
        current, from_right = source, source_rank - before
    return None


def _doubles(node: Node, axis: int, facts: Facts) -> bool:
    """Whether `node` puts its first input behind itself along `axis`, and does nothing else."""
    if node.op == "Concat":
        same = len(node.inputs) == 2 and node.input(0) is node.input(1)
        return same and axis_of(node, facts.rank(node.result), 0) == axis
    repeats = facts.ints(node.input(1)) if node.op == "Tile" and facts.opset(node) >= 6 else None
    return repeats is not None and all(r == (2 if i == axis else 1) for i, r in enumerate(repeats))


def _axis_before(node: Node, axis: int, facts: Facts) -> int | None:
    """The axis of the node's first input that is `axis` of its result, where the node leaves its elements in order."""
    if node.op in _POINTWISE:
        return axis
    if node.op == "Transpose":
        perm = permutation(node, facts)
        return perm[axis] if perm is not None else None
    rank, axes = facts.rank(node.result), ints_argument(node, facts, "axes", 1)
    if node.op != "Unsqueeze" or rank is None or axes is None or not axes.values:
        return None
    inserted = normalized_axes(axes.values, rank)
    if inserted is None or axis in inserted:
        return None
    return axis - sum(a < axis for a in inserted)


def _cache(table: Repeated, made: dict[Node, Tensor], edit: Rewriter) -> Tensor:
    """One half of a table [B, 1, S, D], as [B, S, D/2]; `made` has for each step what it makes of a half."""
    constant = table.whole.constant
    if table.half is None and constant is not None:
        values = constant.array()
        first, second = np.split(values, 2, axis=-1)
        if not np.array_equal(first, second):
            raise RewriteRefusedError("the cosines or sines differ between the halves")
        return edit.constant(np.ascontiguousarray(first[:, 0]), f"{table.whole.name}.half")
    current = table.half
    for step in table.steps:
        if step not in made:
            made[step] = edit.like(step, [current, *step.inputs[1:]]).result
        current = made[step]
    return edit.node("Squeeze", [current, edit.constant(np.array([1], np.int64), f"{table.whole.name}.axes")]).result
