"""Whole attention blocks as one operator of ONNX Runtime: projections, division into heads, scores, and joining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Array, ArrayConstant, Constant, LazyConstant, Node, Shape, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt.targets import Target
from graphopt_passes.blocks.attention import Scores, is_last_axis, scores_of
from graphopt_passes.blocks.masks import Masks, added_mask, masks_of
from graphopt_passes.blocks.terms import inner
from graphopt_passes.common.arguments import permutation
from graphopt_passes.common.cutting import cut, divide
from graphopt_passes.common.dividing import joins_last_axes
from graphopt_passes.common.shapes import broadcasts_into
from graphopt_passes.fused.biases import DOMAIN, is_own
from graphopt_passes.fused.heads import SWAP, Heads, heads_of, rows_of


@dataclass(frozen=True)
class AttentionBlock:
    """softmax(scale · q·kᵀ + Σ masks)·v of heads in [B, S, h·d], and `last`, the Reshape that joins the heads again."""

    last: Node
    scale: float
    masks: Masks
    queries: int | str | None
    q: Heads
    k: Heads
    v: Heads

    @property
    def heads(self) -> tuple[Heads, Heads, Heads]:
        """Query, key and value."""
        return self.q, self.k, self.v


def attention_block(node: Node, facts: Facts) -> AttentionBlock | NoMatch:
    """The block that ends in the Reshape `node`, with as many and as wide heads in query, key and value."""
    if facts.target is not Target.ONNXRUNTIME or not is_own(node, facts):
        return NoMatch("only ONNX Runtime has this operator, outside of functions", node)
    transpose = inner(node.input(0), facts, "Transpose")
    if transpose is None or permutation(transpose, facts) != SWAP or not joins_last_axes(node, facts):
        return NoMatch("it joins no heads", node)
    product = inner(transpose.input(0), facts, "MatMul")
    softmax = inner(product.input(0), facts, "Softmax") if product is not None else None
    if product is None or softmax is None or not is_last_axis(softmax, facts):
        return NoMatch("no Softmax over the last axis times values leads to it", node)
    scores = scores_of(softmax.input(0), facts)
    if scores is None or scores.q.dtype != TensorProto.FLOAT or scores.scale <= 0:
        return NoMatch("the Softmax is not of a scaled and masked product in float32", softmax)
    key = {(0, 1, 2, 3): heads_of, SWAP: rows_of}.get(scores.key_order)
    q, v = heads_of(scores.q, facts), heads_of(product.input(1), facts)
    k = key(scores.key, facts) if key is not None else None
    if q is None or k is None or v is None or len({(h.heads, h.width) for h in (q, k, v)}) > 1:
        return NoMatch("query, key and value are no equal heads of tensors of rank 3", node)
    if not _share_batch((q, k, v)):
        return NoMatch("query, key and value have not surely one batch", node)
    masks = _masks(scores, (q, k), softmax, facts)
    if isinstance(masks, NoMatch):
        return masks
    return AttentionBlock(node, scores.scale, masks, _dim(scores.q.shape, 2), q, k, v)


def _share_batch(heads: Sequence[Heads]) -> bool:
    """Whether the tensors of all heads, of rank 3, are one, or surely have the same first dimension."""
    first, *others = (h.source for h in heads)
    batch = _dim(first.shape, 0)
    return all(s is first or (batch is not None and _dim(s.shape, 0) == batch) for s in others)


def _masks(scores: Scores, heads: tuple[Heads, Heads], softmax: Node, facts: Facts) -> Masks | NoMatch:
    """The masks, when their sum can be an `attention_bias`: [B or 1, h or 1, S, L], no truth values.

    B, h, S and L are those of query and key, `heads`: the scores may have been enlarged by a mask already.
    """
    if scores.allowed is not None:
        return Refused("its mask of truth values would have to become numbers", softmax)
    q, k = heads
    full: Shape = (_dim(q.source.shape, 0), q.heads, _dim(q.source.shape, 1), _dim(k.source.shape, 1))
    for tensor in scores.masks:
        if not broadcasts_into(tensor.shape, full):
            return Refused("a mask may enlarge the scores", softmax)
        if not tensor.shape or full[-1] is None or tensor.shape[-1] != full[-1]:
            return Refused("a mask has not surely one column a key", softmax)
    return masks_of(scores.masks, facts)


def _dim(shape: Shape | None, index: int) -> int | str | None:
    return shape[index] if shape is not None else None


def _bias(block: AttentionBlock, edit: Rewriter) -> Tensor | None:
    """The sum of the masks with four dimensions, a row for each query; None when there are none."""
    total = added_mask(block.masks, block.queries, edit)
    if total is None or total.shape is None or len(total.shape) == 4:
        return total
    missing = tuple(range(4 - len(total.shape)))
    if edit.graph.opset < 13:
        return edit.node("Unsqueeze", [total], {"axes": missing}).result
    return edit.node("Unsqueeze", [total, edit.constant(np.array(missing, np.int64), "axes")]).result


@dataclass(frozen=True)
class ProjectedAttention:
    """A block whose heads are columns of x·W + b; `columns` are those of query, key and value, in this order."""

    block: AttentionBlock
    x: Tensor
    weight: Constant
    bias: Constant | None
    name: str


class FuseAttention(Rule[ProjectedAttention]):
    """Reshape(Transpose(softmax(c·Q·Kᵀ + M)·V)) = com.microsoft::Attention(x, W, b, M, scale=c).

    x is [B, S, I], W a constant [I, N], b [N], zeros where absent; Q, K and V are [B, h, S, d], columns of x·W + b
    that only this block reads; the result is [B, S, h·d], float32. M is a sum of masks that broadcast to [B, h, S, S].

    Opsets: all; only for ONNX Runtime. Exactness: reassociates. Source: ONNX Runtime, docs/ContribOperators.md.
    """

    roots = ("Reshape",)
    exactness = Exactness.REASSOCIATES
    needs_finite = True

    def match(self, node: Node, facts: Facts) -> ProjectedAttention | NoMatch:
        block = attention_block(node, facts)
        if isinstance(block, NoMatch):
            return block
        source = block.q.source
        if any(h.source is not source for h in block.heads):
            return NoMatch("query, key and value are no columns of one tensor", node)
        if facts.sole_consumer(source, "Reshape", "Split") is None:
            return NoMatch("something else reads the tensor of query, key and value", node)
        product, bias = _projection(source, facts)
        if product is None:
            return NoMatch("the tensor is no product, or product plus a constant, that this block alone reads", node)
        x, weight = product.input(0), facts.constant(product.input(1))
        if x is None or facts.rank(x) != 3 or weight is None or len(weight.shape) != 2:
            return NoMatch("the product is not of a tensor of rank 3 with a constant matrix", node)
        if bias is not None and bias.shape != weight.shape[1:]:
            return NoMatch("the constant beside the product is not one number a column", node)
        return ProjectedAttention(block, x, weight, bias, product.inputs[1].name if product.inputs[1] else "")

    def rewrite(self, found: ProjectedAttention, edit: Rewriter) -> None:
        block = found.block
        weight = edit.constant(_columns(found.weight, block.heads), found.name)
        # zeros where there is none: ONNX Runtime's CPU kernel reads the bias without looking
        bias = found.bias or ArrayConstant(np.zeros(found.weight.shape[1:], np.float32))
        edit.add_import(DOMAIN, 1)
        attrs = {"num_heads": block.q.heads, "scale": block.scale}
        columns = edit.constant(_columns(bias, block.heads), f"{found.name}.bias")
        inputs = [found.x, weight, columns, None, None, _bias(block, edit)]
        edit.replace(block.last, edit.node("Attention", inputs, attrs, domain=DOMAIN, name=block.last.name))


def _projection(tensor: Tensor, facts: Facts) -> tuple[Node | None, Constant | None]:
    """The product that makes `tensor`, and the constant that is added to it, if any."""
    add = inner(tensor, facts, "Add")
    if add is None:
        return inner(tensor, facts, "MatMul"), None
    for product, constant in (add.inputs, add.inputs[::-1]):
        bias = facts.constant(constant)
        if bias is not None:
            return inner(product, facts, "MatMul"), bias
    return None, None


def _columns(constant: Constant, heads: Sequence[Heads]) -> Constant:
    """The columns of query, key and value side by side."""
    picked = np.concatenate([np.arange(h.start, h.stop) for h in heads])
    if np.array_equal(picked, np.arange(constant.shape[-1])):
        return constant

    def compute() -> Array:
        return np.ascontiguousarray(constant.array()[..., picked])

    return LazyConstant(constant.dtype, (*constant.shape[:-1], len(picked)), compute)


class FuseMultiHeadAttention(Rule[AttentionBlock]):
    """Reshape(Transpose(softmax(c·Q·Kᵀ + M)·V)) = com.microsoft::MultiHeadAttention(q, k, v, M, scale=c).

    Q, K and V are [B, h, S or L, d]: the heads of q [B, S, h·d], k and v [B, L, h·d], which are tensors of their own
    or columns of others, B surely the same; the result is [B, S, h·d], float32. M is a sum of masks that broadcast to
    [B, h, S, L].

    Opsets: all; only for ONNX Runtime. Exactness: reassociates. Source: ONNX Runtime, docs/ContribOperators.md.
    """

    roots = ("Reshape",)
    exactness = Exactness.REASSOCIATES
    needs_finite = True

    def match(self, node: Node, facts: Facts) -> AttentionBlock | NoMatch:
        return attention_block(node, facts)

    def rewrite(self, found: AttentionBlock, edit: Rewriter) -> None:
        edit.add_import(DOMAIN, 1)
        attrs = {"num_heads": found.q.heads, "scale": found.scale}
        inputs = [*_tensors(found.heads, edit), None, None, _bias(found, edit)]
        edit.replace(found.last, edit.node("MultiHeadAttention", inputs, attrs, domain=DOMAIN, name=found.last.name))


def _tensors(heads: Sequence[Heads], edit: Rewriter) -> list[Tensor]:
    """Query, key and value as [B, S, h·d]: as they stand, by one Split of a tensor that they tile, or by Slices."""
    found: dict[Heads, Tensor] = {h: h.whole for h in heads if h.whole is not None}
    for source in dict.fromkeys(h.source for h in heads if h not in found):
        parts = sorted((h for h in heads if h.source is source and h not in found), key=lambda h: h.start)
        ends = [0, *(h.stop for h in parts)]
        width = source.shape[-1] if source.shape is not None else None
        if [h.start for h in parts] == ends[:-1] and ends[-1] == width and len(parts) > 1:
            made = divide(source, [h.stop - h.start for h in parts], 2, edit).outputs
            found.update({h: t for h, t in zip(parts, made, strict=True) if t is not None})
        else:
            found.update({h: cut(source, 2, h.start, h.stop, edit).result for h in parts})
    return [found[h] for h in heads]
