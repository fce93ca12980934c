"""Outputs of a conv or product of which only some channels are read: the others are not computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Constant, LazyConstant, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.common.cutting import cut
from graphopt_passes.common.folding import copies_much
from graphopt_passes.concats.segments import END, Segment, cut_of, length

# A tensor with more readers is left alone: all of them would have to be cuts.
MOST_READERS = 64


@dataclass(frozen=True)
class Cuts:
    """Positions [low, high) of `axis` are all that is read of `maker`'s result; `parts` are the tensors read there."""

    maker: Node
    axis: int
    low: int
    high: int
    parts: tuple[tuple[Tensor, Segment], ...]


class DropDeadChannels(Rule[Cuts]):
    """Slice(Conv(x, W, b), [l, h) of the channels) = Conv(x, W[l:h], b[l:h]); the same for MatMul's and Gemm's columns.

    All that reads the result are Slices (step 1) and Splits along the axis of outputs, of which some positions at the
    front or the back are not read; parts that are read are cut out of the smaller result. W is constant: [O, C, *k] of
    a Conv of group 1, [K, N] of a MatMul, [K, N] or [N, K] (transB) of a Gemm with a bias of one row, or none.

    Opsets: all (Gemm 7 on). Exactness: reassociates.
    """

    roots = ("Conv", "MatMul", "Gemm")
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> Cuts | NoMatch:
        result = node.output(0)
        rank = facts.rank(result)
        if result is None or rank is None or result.is_output or not 0 < len(result.consumers) <= MOST_READERS:
            return NoMatch("its result is read by many, or is an output", node)
        axis = 1 if node.op == "Conv" else rank - 1
        width = _width(node, facts)
        if width is None or length(result, axis) != width:
            return NoMatch("its weight is not constant, is shared, or it has groups", node)
        parts = _parts(result, axis, facts)
        if parts is None:
            return NoMatch("something else than Slices and Splits of its outputs reads it", node)
        ranges = [(int(str(p.start)), width if p.stop == END else int(str(p.stop))) for _, p in parts]
        low, high = min((r[0] for r in ranges), default=0), max((r[1] for r in ranges), default=0)
        if not 0 <= low < high or high - low >= width:
            return NoMatch("all of its outputs are read", node)
        return Cuts(node, axis, low, high, tuple(parts))

    def rewrite(self, found: Cuts, edit: Rewriter) -> None:
        made = _narrowed(found, edit)
        facts = Facts(edit.model)
        for tensor, part in found.parts:
            assert isinstance(part.start, int)
            stop = part.stop if isinstance(part.stop, int) else found.high
            if (part.start, stop) == (found.low, found.high) and facts.can_forward(tensor, made.result):
                edit.forward(tensor, made.result)
            else:
                piece = cut(made.result, found.axis, part.start - found.low, stop - found.low, edit)
                edit.forward(tensor, piece.result)


def _width(node: Node, facts: Facts) -> int | None:
    """The number of outputs of a conv or product whose weight can be cut."""
    weight = node.input(1)
    constant = facts.constant(weight)
    if weight is None or constant is None or copies_much(weight):
        return None
    rank = len(constant.shape)
    if node.op == "Conv":
        return constant.shape[0] if rank > 2 and node.int_attr("group", 1) == 1 and _bias_fits(node, facts) else None
    if rank != 2 or (node.op == "Gemm" and not _bias_fits(node, facts)):
        return None
    return constant.shape[0 if _is_turned(node) else 1]


def _bias_fits(node: Node, facts: Facts) -> bool:
    """Whether the bias is absent or a constant with one row."""
    bias = node.input(2)
    constant = facts.constant(bias)
    if bias is None:
        return True
    return constant is not None and constant.size == (constant.shape[-1] if constant.shape else 1)


def _is_turned(node: Node) -> bool:
    return node.op == "Gemm" and node.int_attr("transB", 0) == 1


def _parts(result: Tensor, axis: int, facts: Facts) -> list[tuple[Tensor, Segment]] | None:
    """What is read of `result`, when that is parts along `axis` with known borders."""
    found = []
    for reader in result.consumers:
        if reader.op not in ("Slice", "Split") or reader.graph is not result.graph:
            return None
        for tensor in reader.outputs:
            if tensor is None or not tensor.is_used:
                continue
            part = cut_of(tensor, axis, facts)
            if part is None or part.source is not result or not part.is_known:
                return None
            found.append((tensor, part))
    return found


def _narrowed(found: Cuts, edit: Rewriter) -> Node:
    """The conv or product with the outputs from low to high only."""
    node, low, high = found.maker, found.low, found.high
    inputs = list(node.inputs)
    weight = inputs[1]
    assert weight is not None
    inputs[1] = _part(weight, 0 if node.op == "Conv" or _is_turned(node) else 1, low, high, edit)
    bias = node.input(2)
    if bias is not None and bias.constant is not None and bias.constant.size > 1:
        inputs[2] = _part(bias, len(bias.constant.shape) - 1, low, high, edit)
    return edit.like(node, inputs)


def _part(tensor: Tensor, axis: int, low: int, high: int, edit: Rewriter) -> Tensor:
    constant = tensor.constant
    assert constant is not None
    return edit.constant(_sliced(constant, axis, low, high), tensor.name)


def _sliced(constant: Constant, axis: int, low: int, high: int) -> LazyConstant:
    shape = (*constant.shape[:axis], high - low, *constant.shape[axis + 1 :])
    index = (*(slice(None),) * axis, slice(low, high))
    return LazyConstant(constant.dtype, shape, lambda: np.ascontiguousarray(constant.array()[index]))
