"""Scaled dot-product attention that an exporter wrote as two MatMuls around a Softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Dim, Node, Shape, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt.targets import Target
from graphopt_passes.blocks.activations import needs_opset
from graphopt_passes.blocks.masks import Masks, built_mask, masks_of
from graphopt_passes.blocks.repeated_heads import shared_heads
from graphopt_passes.blocks.terms import inner, with_scalar
from graphopt_passes.common.arguments import permutation
from graphopt_passes.common.folding import FLOATS
from graphopt_passes.common.shapes import broadcasts_into

# A score may be masked by a learned bias and by a padding mask.
_MOST_MASKS = 2


@dataclass(frozen=True)
class Scores:
    """scale · q·kᵀ + Σ masks, or masked where `allowed` is false. `key_order` is the transpose that makes `key` k."""

    q: Tensor
    key: Tensor
    key_order: tuple[int, ...]
    scale: float
    masks: tuple[Tensor, ...]
    allowed: Tensor | None


@dataclass(frozen=True)
class AttentionCore:
    """softmax(scores) · v; `key` and `value` before their heads were repeated."""

    last: Node
    scores: Scores
    masks: Masks
    key: Tensor
    value: Tensor


class RecognizeAttention(Rule[AttentionCore]):
    """Softmax(c·Q·Kᵀ + M)·V = Attention(Q, K, V, M, scale=c).

    Q is [B, H, S, D], K [B, G, L, D], V [B, G, L, E], G a divisor of H whose heads an Expand repeats; M broadcasts to
    [B, H, S, L] and has L columns. Scalars beside Q, K and their product make c > 0. A mask may also be
    Where(allowed, scores, −∞). K is transposed in its last two axes, whatever else the same Transpose does.
    For TensorRT only in 16-bit types, with D = E from 16 to 256 in steps of 8. A query that −∞ keeps from every key has
    no softmax: NaN before, 0 from ONNX Runtime's Attention.

    Opsets: 23 on. Exactness: reassociates. Source: ONNX operator Attention; Vaswani et al. 2017, arXiv 1706.03762;
    grouped queries: Ainslie et al. 2023, arXiv 2305.13245.
    """

    roots = ("MatMul",)
    exactness = Exactness.REASSOCIATES
    needs_finite = True

    def match(self, node: Node, facts: Facts) -> AttentionCore | NoMatch:
        softmax = inner(node.input(0), facts, "Softmax")
        if softmax is None or not is_last_axis(softmax, facts):
            return NoMatch("its left operand is no Softmax over the last axis", node)
        scores = scores_of(softmax.input(0), facts)
        v = node.input(1)
        if scores is None or v is None:
            return NoMatch("the Softmax is not of a scaled and masked product with a transpose", softmax)
        if any(t.shape is None or len(t.shape) != 4 for t in (scores.q, scores.key, v)):
            return NoMatch("not all of query, key and value are known to have rank 4", node)
        if scores.q.dtype not in FLOATS or scores.q.dtype == TensorProto.DOUBLE or scores.scale <= 0:
            return NoMatch("the type is not known, or the scale not positive", node)
        problem = _target_problem(scores, v, facts)
        if problem is not None:
            return Refused(problem, node)
        problem = _shape_problem(scores, v)
        if problem is not None:
            return Refused(f"{problem}; fixed input shapes may tell", node)
        key, value = _ungrouped(scores, v, facts)
        masks = masks_of(scores.masks if scores.allowed is None else (scores.allowed,), facts)
        core = AttentionCore(node, scores, masks, key, value)
        return needs_opset(node, facts, "Attention", 23, "softmax(QKᵀ)V") or core

    def rewrite(self, found: AttentionCore, edit: Rewriter) -> None:
        scores, key = found.scores, found.key
        if key is scores.key and scores.key_order != (0, 1, 2, 3):
            key = edit.node("Transpose", [key], {"perm": scores.key_order}).result
        assert scores.q.shape is not None
        mask = built_mask(found.masks, scores.q.shape[2], edit)
        attention = edit.node(
            "Attention", [scores.q, key, found.value, mask], {"scale": scores.scale}, name=found.last.name
        )
        edit.replace(found.last, attention)


def is_last_axis(softmax: Node, facts: Facts) -> bool:
    """Whether a Softmax of rank 4 works along its last axis alone."""
    rank = facts.rank(softmax.input(0))
    axis = softmax.int_attr("axis", -1 if facts.opset(softmax) >= 13 else 1)
    return rank == 4 and axis in (-1, 3)


def scores_of(tensor: Tensor | None, facts: Facts) -> Scores | None:
    """The scores as scale · q·kᵀ and what masks them."""
    masks: list[Tensor] = []
    allowed: Tensor | None = None
    where = inner(tensor, facts, "Where")
    if where is not None:
        if facts.scalar(where.input(2)) != -math.inf:
            return None
        allowed, tensor = where.input(0), where.input(1)
    while len(masks) <= _MOST_MASKS:
        scores, scale = _unscaled(tensor, facts)
        product = inner(scores, facts, "MatMul")
        if product is not None:
            found = _product(product, scale, facts)
            alone = allowed is None or not masks  # a bias beside a truth value would need both as numbers
            return Scores(*found, tuple(masks), allowed) if found is not None and alone else None
        total = inner(tensor, facts, "Add")
        if total is None or len(total.inputs) != 2:
            return None
        tensor, mask = _split_mask(total, facts)
        if mask is None:
            return None
        masks.append(mask)
    return None


def _split_mask(total: Node, facts: Facts) -> tuple[Tensor | None, Tensor | None]:
    """The scores and the mask of a sum: the scores lead to a MatMul through scalars or another sum."""
    for i in (0, 1):
        scores, _ = _unscaled(total.input(i), facts)
        if inner(scores, facts, "MatMul") is not None:
            return total.input(i), total.input(1 - i)
    for i in (0, 1):
        if inner(total.input(i), facts, "Add") is not None:
            return total.input(i), total.input(1 - i)
    return None, None


def _unscaled(tensor: Tensor | None, facts: Facts) -> tuple[Tensor | None, float]:
    """x and c of `tensor` = c·x, through products with scalars."""
    scale = 1.0
    for _ in range(3):
        node = inner(tensor, facts, "Mul", "Div")
        beside = with_scalar(node, facts) if node is not None else None
        if node is None or beside is None:
            break
        data, value, first = beside
        if node.op == "Div" and (first or value == 0):
            break
        tensor, scale = data, scale * value if node.op == "Mul" else scale / value
    return tensor, scale


def _product(product: Node, scale: float, facts: Facts) -> tuple[Tensor, Tensor, tuple[int, ...], float] | None:
    """q, k before its transpose, the order that makes k of it, and the whole scale, of MatMul(q, kᵀ)."""
    q, q_scale = _unscaled(product.input(0), facts)
    transposed, k_scale = _unscaled(product.input(1), facts)
    transpose = inner(transposed, facts, "Transpose")
    if transpose is None or q is None:
        return None
    order = permutation(transpose, facts)
    key, inner_scale = _unscaled(transpose.input(0), facts)
    if order is None or len(order) != 4 or key is None:
        return None
    back = (order[0], order[1], order[3], order[2])
    return q, key, back, scale * q_scale * k_scale * inner_scale


def _target_problem(scores: Scores, v: Tensor, facts: Facts) -> str | None:
    """Why TensorRT has no kernel for this attention: it takes the operator apart for none, and then does not build.

    Tried on TensorRT-RTX 1.7 for compute capability 8.9: 16-bit types, D = E from 16 to 256 in steps of 8; truth
    masks take more kernels than the arithmetic.
    """
    if facts.target is not Target.TENSORRT:
        return None
    if scores.q.dtype not in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        return "TensorRT has no attention kernel for float32; in float16 or bfloat16 this is one Attention"
    assert scores.q.shape is not None
    assert v.shape is not None
    width, other = scores.q.shape[3], v.shape[3]
    if not isinstance(width, int) or width != other or width % 8 or not 16 <= width <= 256:
        return "TensorRT has no attention kernel for heads of this width"
    return "TensorRT takes more kernels for a mask of truth values" if scores.allowed is not None else None


def _shape_problem(scores: Scores, v: Tensor) -> str | None:
    """What keeps the shapes from being surely those of an Attention."""
    q, key = scores.q.shape, scores.key.shape
    assert q is not None
    assert key is not None
    assert v.shape is not None
    k = tuple(key[i] for i in scores.key_order)
    if not all(_equal(q[i], k[i]) and _equal(q[i], v.shape[i]) for i in (0, 1)):
        return "batch and heads of query, key and value are not surely equal"
    full: Shape = (q[0], q[1], q[2], k[2])
    for mask in (*scores.masks, *([scores.allowed] if scores.allowed is not None else [])):
        if not broadcasts_into(mask.shape, full):
            return "a mask may enlarge the scores"
        if not mask.shape or not _equal(mask.shape[-1], k[2]):
            return "a mask has not one column a key"
    return None


def _equal(a: Dim, b: Dim) -> bool:
    return a is not None and a == b


def _ungrouped(scores: Scores, v: Tensor, facts: Facts) -> tuple[Tensor, Tensor]:
    """Key and value before an Expand repeated their heads, where it did so to both alike; else as they are."""
    if scores.key_order == (0, 1, 2, 3):
        key, value = shared_heads(scores.key, facts), shared_heads(v, facts)
        if key is not None and value is not None and key[1] == value[1]:
            return key[0], value[0]
    return scores.key, v
