"""Sibling convolutions with kernels of different size: the smaller ones grow, with zeros, to the largest.

TASO (Jia et al., SOSP 2019) has this as "enlarge conv kernel".
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Array, Node
from graphopt.rewrite import Rewriter
from graphopt_passes.siblings.branches import Piece
from graphopt_passes.siblings.channels import concatenate
from graphopt_passes.siblings.conv_form import ConvForm, conv_bias, conv_form
from graphopt_passes.siblings.convs import ConvRule, known_weights, output_dtype
from graphopt_passes.siblings.rule import AdjacentRule, Siblings
from graphopt_passes.siblings.weights import Weight, join_biases, join_weights

# Of a longer run of neighbours only this many are looked at, and merged at a time.
MOST_NEIGHBOURS = 32


@dataclass(frozen=True)
class Placement:
    """Where a small kernel lies in a large one: `starts[i]` zeros come before it on spatial axis i."""

    starts: tuple[int, ...]


def placement(small: ConvForm, large: ConvForm) -> Placement | None:
    """Where `small`'s kernel lies in `large`'s so that both convs compute at the same places; None when it cannot.

    Output position p reads x[p·stride - pad + i·dilation], so a kernel placed `start` taps further in must have a pad
    smaller by start·dilation; the taps after it answer for the pad at the end, which keeps the output's size equal.
    """
    if isinstance(small.pads, str) or isinstance(large.pads, str):
        return None
    starts = []
    spatial = len(large.kernel)
    for i, (k, size, dilation) in enumerate(zip(small.kernel, large.kernel, large.dilations, strict=True)):
        if k > 1 and small.dilations[i] != dilation:
            return None
        before = large.pads[i] - small.pads[i]
        after = large.pads[spatial + i] - small.pads[spatial + i]
        start, off = divmod(before, dilation)
        if off or start < 0 or start + k > size or after != (size - k - start) * dilation:
            return None
        starts.append(start)
    return Placement(tuple(starts))


def enlarged(array: Array, weight: Weight, place: Placement, kernel: tuple[int, ...]) -> Array:
    """The kernel [O, C, *small] in one of [O, C, *kernel], zeros (quantized: zero points) around it."""
    zero: Array = np.zeros(1, array.dtype) if weight.zero is None else weight.zero.array().reshape(-1)
    shape = (*array.shape[:2], *kernel)
    large = np.empty(shape, array.dtype)
    large[...] = zero.astype(array.dtype).reshape((-1,) + (1,) * (len(shape) - 1))
    taps = tuple(slice(s, s + n) for s, n in zip(place.starts, array.shape[2:], strict=True))
    place_of_taps = (slice(None), slice(None), *taps)
    large[place_of_taps] = array
    return large


class EnlargeRule(ConvRule):
    """Siblings whose forms differ in kernel, pads and dilations only."""

    needs_finite = True

    apart = "no sibling has its strides, group and types"

    def form(self, node: Node, facts: Facts) -> Hashable | None:
        form = conv_form(node, facts)
        if form is None or form.group != 1 or isinstance(form.pads, str):
            return None
        return replace(form, kernel=(), pads=(), dilations=())

    def choose(self, pieces: tuple[Piece, ...], facts: Facts) -> tuple[Piece, ...] | str:
        chosen = super().choose(pieces, facts)
        problem = chosen if isinstance(chosen, str) else _misfit(pieces, facts)
        return problem if problem is not None else pieces

    def join(self, found: Siblings, edit: Rewriter) -> Node:
        facts, heads = found.facts, found.heads
        base = max(heads, key=lambda n: _taps(_form(n, facts)))
        large = _form(base, facts)
        weights = known_weights(heads, facts)
        places = {id(w): placement(_form(n, facts), large) for w, n in zip(weights, heads, strict=True)}

        def adapt(array: Array, weight: Weight) -> Array:
            place = places[id(weight)]
            assert place is not None
            return enlarged(array, weight, place, large.kernel)

        widths = [w.width for w in weights]
        shape = (sum(widths), weights[0].shape[1], *large.kernel)
        weight = join_weights(weights, edit, concatenate, shape, adapt)
        biases = [conv_bias(c, facts) for c in heads]
        bias = join_biases(biases, widths, output_dtype(base), edit, concatenate)
        return edit.like(base, [base.inputs[0], weight, bias])


def _form(conv: Node, facts: Facts) -> ConvForm:
    form = conv_form(conv, facts)
    assert form is not None
    return form


def _taps(form: ConvForm) -> int:
    return math.prod(form.kernel)


def _misfit(pieces: Sequence[Piece], facts: Facts) -> str | None:
    """Why the kernels of the pieces cannot be enlarged to one size; None when they can."""
    forms = [_form(b.head, facts) for p in pieces for b in p.branches]
    if len({f.kernel for f in forms}) < 2:
        return "its siblings have kernels of one size, or none that computes at the same places"
    return None if _fit(forms) else "the smaller kernels do not compute at the same places as the largest"


def _longest_fit(piece: Piece, facts: Facts) -> Piece:
    """The longest run of neighbours in a Concat whose kernels all fit into the largest of them."""
    forms = [_form(b.head, facts) for b in piece.branches]
    best = (0, 1)
    for start in range(min(len(forms), MOST_NEIGHBOURS)):
        end = start + 1
        while end < min(len(forms), start + MOST_NEIGHBOURS) and _fit(forms[start : end + 1]):
            end += 1
        if end - start > best[1] - best[0]:
            best = (start, end)
    return Piece(piece.branches[best[0] : best[1]], piece.concat)


def _fit(forms: list[ConvForm]) -> bool:
    large = max(forms, key=_taps)
    return all(placement(f, large) is not None for f in forms)


class EnlargeAdjacentConvs(AdjacentRule, EnlargeRule):
    """Concat(f(Conv(x, W1)), f(Conv(x, W2)), ...) = f(Conv(x, [pad(W1); W2; ...])) for kernels of different size.

    W_i is [O_i, C, *kernel_i]; the smaller kernels get zeros around them so that they compute at the same places:
    equal strides, dilations (a kernel of one tap has none), and pads that differ by the zeros added ("same" geometry).
    The siblings' results meet side by side in one Concat, behind equal operators f, so that no Split is left.

    Opsets: all. Exactness: reassociates (zeros times x are added: equal for finite x).
    """

    def fitting(self, piece: Piece, facts: Facts) -> Piece | str:
        longest = _longest_fit(piece, facts)
        return _misfit([longest], facts) or longest


class EnlargeSiblingConvs(EnlargeRule):
    """f(Conv(x, W1)), f(Conv(x, W2)), ... = Split(f(Conv(x, [pad(W1); W2; ...]))) for kernels of different size.

    Conditions as for `EnlargeAdjacentConvs`; the results may go anywhere. Opsets: all. Exactness: reassociates.
    """
