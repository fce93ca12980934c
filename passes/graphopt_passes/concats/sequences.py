"""Sequences whose length is known at compile time: Split and Concat say the same without a sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import axis_of
from graphopt_passes.common.cutting import divide
from graphopt_passes.concats.coalesce import put_tensor
from graphopt_passes.concats.segments import length

# Longer sequences stay.
MOST_PARTS = 256


@dataclass(frozen=True)
class Joined:
    """A ConcatFromSequence and the tensors of its sequence."""

    node: Node
    tensors: tuple[Tensor, ...]


class ConcatFromTensors(Rule[Joined]):
    """ConcatFromSequence(SequenceConstruct(a, b, ...); axis) = Concat(a, b, ...; axis).

    With `new_axis` 1 each tensor gets that axis by an Unsqueeze first. The sequence may have other readers.
    Opset 11 on. Exact.
    """

    roots = ("ConcatFromSequence",)

    def match(self, node: Node, facts: Facts) -> Joined | NoMatch:
        maker = facts.producer(node.input(0), "SequenceConstruct")
        tensors = [t for t in maker.inputs if t is not None] if maker is not None else []
        if maker is None or not tensors or len(tensors) != len(maker.inputs) or "axis" not in node.attrs:
            return NoMatch("its sequence is not made of tensors at one place", node)
        if any(not facts.visible(t, node.owner) for t in tensors):
            return NoMatch("a tensor is not seen here", node)
        if node.int_attr("new_axis", 0) and facts.opset(node) < 13:
            return NoMatch("before opset 13 the axes of Unsqueeze are no input", node)
        return Joined(node, tuple(tensors))

    def rewrite(self, found: Joined, edit: Rewriter) -> None:
        axis, tensors = found.node.int_attr("axis", 0), list(found.tensors)
        if found.node.int_attr("new_axis", 0):
            axes = edit.constant(np.array([axis], np.int64), f"{found.node.label}.axes")
            tensors = [edit.node("Unsqueeze", [t, axes]).result for t in tensors]
        edit.replace(found.node, edit.node("Concat", tensors, {"axis": axis}, name=found.node.name))


@dataclass(frozen=True)
class Element:
    """A SequenceAt, and the tensor that it takes."""

    node: Node
    tensor: Tensor


class SequenceAtOfTensors(Rule[Element]):
    """SequenceAt(SequenceConstruct(a, b, ...), 1) = b, for a constant index, negative ones counted from the end.

    Opset 11 on. Exact.
    """

    roots = ("SequenceAt",)

    def match(self, node: Node, facts: Facts) -> Element | NoMatch:
        maker = facts.producer(node.input(0), "SequenceConstruct")
        index = facts.scalar(node.input(1))
        if maker is None or not isinstance(index, int):
            return NoMatch("its sequence is not made of tensors at one place, or its index is not known", node)
        if not -len(maker.inputs) <= index < len(maker.inputs):
            return NoMatch("its index is out of range", node)
        tensor = maker.inputs[index]
        if tensor is None or not facts.visible(tensor, node.owner):
            return NoMatch("the tensor is not seen here", node)
        return Element(node, tensor)

    def rewrite(self, found: Element, edit: Rewriter) -> None:
        put_tensor(found.node, found.tensor, edit)


@dataclass(frozen=True)
class Taken:
    """A SplitToSequence along `axis` into `count` parts, and the SequenceAts that read it, with their indices.

    `sizes` are the sizes of the parts; None where `split` gives them at run time.
    """

    node: Node
    axis: int
    count: int
    sizes: tuple[int, ...] | None
    readers: tuple[tuple[Node, int], ...]
    squeezes: bool


class SplitInsteadOfSequence(Rule[Taken]):
    """SequenceAt(SplitToSequence(x, s), i) = Split(x, s)[i], when all that reads the sequence takes one known part.

    s is a list of sizes (of known length, its values may be known at run time only, opset 13 on), one size for all
    parts but a smaller last one, or left out: then parts have size 1 and lose the axis where `keepdims` is 0. Without
    a list the size of the axis is a known number. Opset 11 on. Exact.
    """

    roots = ("SplitToSequence",)

    def match(self, node: Node, facts: Facts) -> Taken | NoMatch:
        sequence, data = node.output(0), node.input(0)
        rank = facts.rank(data)
        axis = axis_of(node, rank, 0) if rank is not None else node.int_attr("axis", 0)
        if sequence is None or data is None or axis is None or sequence.is_output or not sequence.consumers:
            return NoMatch("its axis is not known, or the sequence is an output", node)
        sizes = _sizes(node, axis, facts)
        count = len(sizes) if sizes is not None else _run_time_count(node, facts)
        if count is None or not 0 < count <= MOST_PARTS:
            return NoMatch("the number of parts is not known", node)
        readers = []
        for reader in sequence.consumers:
            index = facts.scalar(reader.input(1)) if reader.op == "SequenceAt" else None
            if reader.graph is not node.graph or not isinstance(index, int) or not -count <= index < count:
                return NoMatch("something else than SequenceAt with a known index reads it", node)
            readers.append((reader, index % count))
        squeezes = node.input(1) is None and node.int_attr("keepdims", 1) == 0
        if squeezes and facts.opset(node) < 13:
            return NoMatch("before opset 13 the axes of Squeeze are no input", node)
        return Taken(node, axis, count, sizes, tuple(readers), squeezes)

    def rewrite(self, found: Taken, edit: Rewriter) -> None:
        node, data = found.node, found.node.inputs[0]
        assert data is not None
        if found.sizes is not None:
            made = divide(data, found.sizes, found.axis, edit)
        else:
            made = edit.node("Split", node.inputs[:2], {"axis": found.axis}, outputs=found.count)
        axes = edit.constant(np.array([found.axis], np.int64), f"{node.label}.axes") if found.squeezes else None
        for reader, index in found.readers:
            part = made.outputs[index]
            assert part is not None
            if axes is not None:
                part = edit.node("Squeeze", [part, axes]).result
            put_tensor(reader, part, edit)


def _sizes(node: Node, axis: int, facts: Facts) -> tuple[int, ...] | None:
    """The sizes of the parts when they are known at compile time."""
    size, split = length(node.input(0), axis), node.input(1)
    if split is None:
        return (1,) * size if size is not None and size <= MOST_PARTS else None
    given = facts.ints(split)
    if given is None:
        return None
    if facts.rank(split) == 1:
        return given
    step = given[0]
    if size is None or step < 1 or -(-size // step) > MOST_PARTS:
        return None
    whole, rest = divmod(size, step)
    return (*((step,) * whole), *((rest,) if rest else ()))


def _run_time_count(node: Node, facts: Facts) -> int | None:
    """The number of parts when their sizes are a list of known length that the run time gives."""
    shape = facts.static_shape(node.input(1))
    split = node.input(1)
    if split is None or split.dtype != TensorProto.INT64 or facts.opset(node) < 13:  # Split takes no int32
        return None
    return shape[0] if shape is not None and len(shape) == 1 else None
