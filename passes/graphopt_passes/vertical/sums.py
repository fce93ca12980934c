"""Products and transposed convolutions of one tensor that meet in an Add: one of the summed weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Constant, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt_passes.common.folding import Folded, copies_much, exact_values, fold, may_round, peak, sum_of_shifts
from graphopt_passes.vertical.branches import sum_terms
from graphopt_passes.vertical.compose import matrix_of
from graphopt_passes.vertical.fold_after import fold_bias
from graphopt_passes.vertical.linear import ConvTransposeLinear, GemmLinear, Linear, MatMulLinear, linear_at
from graphopt_passes.vertical.transposed import TransposedHull, transposed_hull


@dataclass(frozen=True)
class Summed:
    """A sum, `parts` of which are linear operators of one tensor; `others` are its other terms."""

    total: Node
    parts: tuple[Linear, ...]
    others: tuple[Tensor, ...]

    @property
    def bias(self) -> Array | None:
        """The sum of the biases, [C]; None where no part has one. Raises RewriteRefusedError."""
        biases = [part.bias_values() for part in self.parts if part.bias is not None]
        return sum_of_shifts(self.parts[0].weights.dtype, *biases) if biases else None

    def weight(self, shape: tuple[int, ...], axis: int, compute: Callable[[], Array], edit: Rewriter) -> Tensor:
        """The summed weight, its outputs on `axis`, once its type surely holds it. Raises RewriteRefusedError."""
        first = self.parts[0]
        top = sum(peak(part.weights) * abs(part.node.float_attr("alpha", 1.0)) for part in self.parts)
        folded = Folded(first.weights.dtype, shape, compute)
        return edit.constant(fold(folded, channel_axis=axis, bounds=(1.0, top)), first.weight.name)

    def finish(self, made: Node, edit: Rewriter) -> None:
        """Adds the other terms to what was made, and puts it in the place of the sum."""
        for other in self.others:
            made = edit.node("Add", [made.result, other])
        edit.replace(self.total, made)


class _MergeSum(Rule[Summed]):
    """Σ Wⱼ·x = (Σ Wⱼ)·x."""

    roots = ("Add",)
    exactness = Exactness.REASSOCIATES
    needs_finite = True
    producers: tuple[str, ...]

    def match(self, node: Node, facts: Facts) -> Summed | NoMatch:
        if facts.opset(node) < 7:
            return NoMatch("before opset 7 a sum broadcasts in its own way", node)
        terms = sum_terms(node, facts)
        if any(map(may_round, terms)):
            return NoMatch("it adds a constant that is large enough to round the other terms, which may be meant", node)
        views = {t: v for t in terms if (v := self._view(t, facts)) is not None}
        for first in views.values():
            found = [t for t, v in views.items() if v is first or self.fits(first, v)]
            if len(found) > 1:
                parts = tuple(views[t] for t in found)
                if any(copies_much(p.weight) for p in parts):
                    return Refused("a weight is shared with other nodes and would be stored twice", node)
                others = tuple(t for t in terms if t not in found)
                return self.complete(Summed(node, parts, others))
        return NoMatch(f"no two of its terms are {self.producers[0]}s of one tensor with weights that fit", node)

    def _view(self, term: Tensor, facts: Facts) -> Linear | None:
        node = facts.sole_producer(term, *self.producers)
        return linear_at(node, facts) if node is not None else None

    def fits(self, a: Linear, b: Linear) -> bool:
        """Whether both read one tensor and their weights can be added."""
        return a.data is b.data and a.weights.dtype == b.weights.dtype

    def complete(self, found: Summed) -> Summed | NoMatch:
        """What was found, unless it does not pay."""
        return found


class MergeParallelProducts(_MergeSum):
    """x·A + x·B = x·(A + B), and Gemm(x, A, a) + Gemm(x, B, b) = Gemm(x, A + B, a + b); any number of terms.

    A and B are constants of one shape, [..., I, C], or left of x; a and b are [C]. alpha and beta go into the numbers.
    A MatMul beside a Gemm joins it. Other terms of the sum stay.

    Opsets: 7 on. Exactness: reassociates. Source: ONNX operators MatMul, Gemm; distributivity.
    """

    producers = ("MatMul", "Gemm")

    def fits(self, a: Linear, b: Linear) -> bool:
        if not super().fits(a, b):
            return False
        if isinstance(a, MatMulLinear) and isinstance(b, MatMulLinear):
            return a.from_right == b.from_right and a.weights.shape == b.weights.shape
        matrices = matrix_of(a) is not None and matrix_of(b) is not None
        return matrices and (a.channels, a.in_channels) == (b.channels, b.in_channels)

    def rewrite(self, found: Summed, edit: Rewriter) -> None:
        first, parts = found.parts[0], found.parts
        gemm = next((p for p in parts if isinstance(p, GemmLinear)), None)
        if gemm is None:
            weights = [p.weights for p in parts]
            weight = found.weight(weights[0].shape, first.weight_axis, lambda: _sum_of(weights), edit)
            return found.finish(first.rebuild(edit, first.data, weight, None), edit)
        weight = found.weight((first.in_channels, first.channels), 1, lambda: _summed_matrices(parts), edit)
        values = found.bias
        bias = None if values is None else edit.constant(fold_bias(gemm, values), f"{weight.name}.bias")
        attrs = {"alpha": 1.0, "beta": 1.0, "transB": 0}
        return found.finish(edit.like(gemm.node, [gemm.data, weight, bias], **attrs), edit)


def _sum_of(weights: Sequence[Constant]) -> Array:
    return np.asarray(sum(map(exact_values, weights)))


def _summed_matrices(parts: Sequence[Linear]) -> Array:
    matrices = [matrix_of(part) for part in parts]
    return np.asarray(sum(matrix() for matrix in matrices if matrix is not None))


class MergeParallelConvTransposes(_MergeSum):
    """Σ ConvTranspose(x, Wⱼ, bⱼ) = ConvTranspose(x, Σ Wⱼ, Σ bⱼ), where that multiplies no more than the branches did.

    Wⱼ is [I, C/group, *kernelⱼ], padded with zeros to the hull of all kernels; strides, dilations and groups are equal,
    and so are the outputs' sizes. Other terms of the sum stay.

    Opsets: 7 on. Exactness: reassociates. Source: ONNX operator ConvTranspose; Ding et al. 2021, arXiv 2103.13425.
    """

    producers = ("ConvTranspose",)

    def fits(self, a: Linear, b: Linear) -> bool:
        return super().fits(a, b) and a.weights.shape[:2] == b.weights.shape[:2] and _hull((a, b)) is not None

    def complete(self, found: Summed) -> Summed | NoMatch:
        hull = _hull(found.parts)
        if hull is None:
            return NoMatch("the windows of its terms have no common one", found.total)
        if math.prod(hull.kernel) > sum(math.prod(p.weights.shape[2:]) for p in found.parts):
            return NoMatch("the common kernel is larger than the branches'", found.total)
        return found

    def rewrite(self, found: Summed, edit: Rewriter) -> None:
        first, hull = found.parts[0], _hull(found.parts)
        assert hull is not None
        assert isinstance(first, ConvTransposeLinear)
        kernels = [p.weights for p in found.parts]
        shape = (*kernels[0].shape[:2], *hull.kernel)

        def total() -> Array:
            summed = np.zeros(shape)
            for kernel, starts in zip(kernels, hull.starts, strict=True):
                taps = tuple(slice(s, s + k) for s, k in zip(starts, kernel.shape[2:], strict=True))
                place = (slice(None), slice(None), *taps)
                summed[place] += exact_values(kernel)
            return summed

        weight, values = found.weight(shape, first.weight_axis, total, edit), found.bias
        bias = None if values is None else edit.constant(fold_bias(first, values), f"{weight.name}.bias")
        inputs = [first.data, weight, bias]
        geometry = {
            "kernel_shape": hull.kernel,
            "dilations": hull.dilations,
            "pads": hull.pads,
            "output_padding": hull.output_padding,
            "auto_pad": None,
        }
        made = edit.like(first.node, inputs, **geometry)
        found.finish(made, edit)


def _hull(parts: Sequence[Linear]) -> TransposedHull | None:
    return transposed_hull([(p.node, p.weights.shape[2:]) for p in parts])
