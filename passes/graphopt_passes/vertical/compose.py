"""Two linear operators in a row become one, where that multiplies no more than the two did."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt_passes.common.folding import (
    MOST_COPIED_BYTES,
    Folded,
    exact_values,
    fold,
    moved_shift,
    peak,
    sum_of_shifts,
)
from graphopt_passes.vertical.fold_after import fold_bias
from graphopt_passes.vertical.geometry import Window, is_pointwise, window
from graphopt_passes.vertical.linear import ConvLinear, GemmLinear, Linear, MatMulLinear, linear_at, linear_behind

Matrix = Callable[[], Array]  # [I, C] in float64


@dataclass(frozen=True)
class Composed:
    """`second` reads what `first` makes; `pads` are those of the one Conv that computes both, None for products."""

    first: Linear
    second: Linear
    pads: tuple[int, ...] | None = None

    @property
    def problem(self) -> str | None:
        """Why one operator in the place of both would not win."""
        weights = (self.first.weights, self.second.weights)
        size = self.second.channels * self.first.in_channels * self.taps
        if size > sum(w.size for w in weights):
            return "one weight in the place of both would be larger than they are together"
        shared = any(t.sole_consumer is None for t in (self.first.weight, self.second.weight))
        if shared and size * weights[0].nbytes // weights[0].size > MOST_COPIED_BYTES:
            return "its weight is shared with other nodes and would be stored twice"
        return None

    @property
    def taps(self) -> int:
        """Positions of the composed kernel."""
        if self.pads is None:
            return 1
        return math.prod(self.first.weights.shape[2:]) * math.prod(self.second.weights.shape[2:])

    def bias(self, edit: Rewriter) -> Tensor | None:
        """W₂·b₁ + b₂, None where there is neither."""
        first, second = self.first, self.second
        if first.bias is None and second.bias is None:
            return None
        values = second.bias_values()
        if first.bias is not None:
            shift = moved_shift(first.weights.dtype, first.bias_values())
            moved = second.response(exact_values(second.weights), shift)
            values = sum_of_shifts(second.weights.dtype, values, moved)
        return edit.constant(fold_bias(second, values), f"{second.weight.name}.bias")

    def weight(self, shape: tuple[int, ...], product: Folded, edit: Rewriter) -> Tensor:
        """`product` as a constant that its type surely holds."""
        top = peak(self.first.weights) * peak(self.second.weights) * max(self.first.weights.shape[0], shape[0])
        return edit.constant(fold(product, channel_axis=0, bounds=(1.0, top)), self.second.weight.name)


class ComposeConvs(Rule[Composed]):
    """Conv(Conv(x, W₁, b₁), W₂, b₂) = Conv(x, W, W₂·b₁ + b₂), one of the two kernels 1×1 of stride 1, both of group 1.

    W₁ is [M, I, *k₁], W₂ [C, M, *k₂], W[c, i, ·] = Σ_m W₂[c, m, ·]·W₁[m, i, ·]. A bias b₁ does not cross pads of the
    second Conv. Only where W is no larger than W₁ and W₂ together.

    Opsets: all. Exactness: reassociates. Source: Ding et al. 2021, Diverse Branch Block, arXiv 2103.13425, section 3.1.
    """

    roots = ("Conv",)
    exactness = Exactness.REASSOCIATES
    needs_finite = True

    def match(self, node: Node, facts: Facts) -> Composed | NoMatch:
        second, first = linear_at(node, facts), linear_behind(node.input(0), facts)
        if not isinstance(second, ConvLinear) or not isinstance(first, ConvLinear):
            return NoMatch("it is no Conv of constant weights behind another that it reads alone", node)
        if first.node.op != "Conv" or first.group != 1 or second.group != 1 or first.channels != second.in_channels:
            return NoMatch("one of both is grouped or transposed", node)
        windows = [window(c.node, c.weights.shape[2:]) for c in (first, second)]
        if windows[0] is None or windows[1] is None:
            return NoMatch("its pads are automatic", node)
        pads = self._pads(first, second, windows[0], windows[1])
        if isinstance(pads, NoMatch):
            return pads
        found = Composed(first, second, pads)
        return found if found.problem is None else Refused(found.problem, node)

    def _pads(self, first: ConvLinear, second: ConvLinear, one: Window, two: Window) -> tuple[int, ...] | NoMatch:
        """The pads of the composed Conv."""
        if is_pointwise(first.node):
            if any(two.pads) and first.bias is not None:
                return NoMatch("the first bias would have to cross the second Conv's zero padding", second.node)
            return tuple(a + b for a, b in zip(one.pads, two.pads, strict=True))
        if is_pointwise(second.node) and not any(two.pads):
            return one.pads
        return NoMatch("neither kernel is 1x1 of stride 1 without pads", second.node)

    def rewrite(self, found: Composed, edit: Rewriter) -> None:
        first, second = found.first, found.second
        kept = second if is_pointwise(first.node) else first  # whose kernel and stride stay
        a, b = first.weights, second.weights
        shape = (second.channels, first.in_channels, *kept.weights.shape[2:])

        def product() -> Array:
            left = exact_values(b).reshape(second.channels, first.channels, -1)
            right = exact_values(a).reshape(first.channels, first.in_channels, -1)
            return np.asarray(np.einsum("cmk,mil->cikl", left, right, optimize=True).reshape(shape))

        weight = found.weight(shape, Folded(b.dtype, shape, product), edit)
        inputs = [first.data, weight, found.bias(edit)]
        made = edit.like(kept.node, inputs, pads=found.pads, auto_pad=None, kernel_shape=shape[2:])
        edit.replace(second.last, made)


class ComposeProducts(Rule[Composed]):
    """(x·W₁ + b₁)·W₂ + b₂ = x·(W₁·W₂) + (b₁·W₂ + b₂) for Gemm and MatMul; W₁ is [I, M], W₂ [M, C].

    Only where W₁·W₂ is no larger than both together: I·C ≤ I·M + M·C.

    Opsets: 7 on. Exactness: reassociates. Source: ONNX operators MatMul, Gemm.
    """

    roots = ("Gemm", "MatMul", "Add")
    exactness = Exactness.REASSOCIATES
    needs_finite = True

    def match(self, node: Node, facts: Facts) -> Composed | NoMatch:
        second = linear_at(node, facts)
        first = linear_behind(second.data, facts) if second is not None else None
        if second is None or first is None or matrix_of(first) is None or matrix_of(second) is None:
            return NoMatch("it is no product with a constant matrix behind another that it reads alone", node)
        if second.opset < 7 or first.channels != second.in_channels:
            return NoMatch("before opset 7 a product broadcasts in its own way", node)
        if first.bias is not None and not second.can_add_bias:
            return NoMatch("a MatMul has no bias to take the first one", node)
        found = Composed(first, second)
        return found if found.problem is None else Refused(found.problem, node)

    def rewrite(self, found: Composed, edit: Rewriter) -> None:
        first, second = found.first, found.second
        shape = (first.in_channels, second.channels)

        def product() -> Array:
            left, right = matrix_of(first), matrix_of(second)
            assert left is not None
            assert right is not None
            return np.asarray(left() @ right())

        weight = found.weight(shape, Folded(second.weights.dtype, shape, product), edit)
        bias = found.bias(edit)
        if isinstance(second, GemmLinear):
            attrs = {"alpha": 1.0, "beta": 1.0, "transB": 0}
            edit.replace(second.last, edit.like(second.node, [first.data, weight, bias], **attrs))
        else:
            edit.replace(second.last, second.rebuild(edit, first.data, weight, bias))


def matrix_of(linear: Linear) -> Matrix | None:
    """Computes the matrix [I, C] by which `linear` multiplies from the right; None for other forms, such as xᵀ·W."""
    if len(linear.weights.shape) != 2 or linear.data_from_right != 0:
        return None
    if isinstance(linear, GemmLinear):
        alpha = linear.node.float_attr("alpha", 1.0)
        if _is_transposed(linear):
            return lambda: alpha * exact_values(linear.weights).T
        return lambda: alpha * exact_values(linear.weights)
    if isinstance(linear, MatMulLinear) and linear.from_right == 0:
        return lambda: exact_values(linear.weights)
    return None


def _is_transposed(linear: Linear) -> bool:
    return isinstance(linear, GemmLinear) and linear.node.int_attr("transB", 0) == 1
