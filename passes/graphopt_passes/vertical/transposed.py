"""Where the kernels of transposed convolutions lie, and the smallest one that holds several.

Per spatial axis, element i of the input meets tap k at output i·s + k·d − p⁻, and an input of length L gives
s·(L − 1) + extent + output padding − p⁻ − p⁺ elements, extent = d·(k − 1) + 1 (ONNX operator ConvTranspose).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.graph import Node


@dataclass(frozen=True)
class TransposedHull:
    """A kernel into which others fit, each from its `starts` (taps) on, with the pads that keep the output."""

    kernel: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    output_padding: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of one transposed convolution."""

    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    extra: int

    @property
    def extent(self) -> int:
        return self.dilation * (self.kernel - 1) + 1


def transposed_hull(convs: Sequence[tuple[Node, tuple[int, ...]]]) -> TransposedHull | None:
    """The hull of ConvTransposes with these kernels whose outputs are of equal size; None where there is none."""
    views = [_axes(node, kernel) for node, kernel in convs]
    known = [v for v in views if v is not None]
    groups = {node.int_attr("group", 1) for node, _ in convs}
    if len(known) != len(views) or len(groups) != 1 or len({len(v) for v in known}) != 1:
        return None
    axes = [_axis_hull([v[i] for v in known]) for i in range(len(known[0]))]
    found = [a for a in axes if a is not None]
    if len(found) != len(axes):
        return None
    hulls = [a for a, _ in found]
    return TransposedHull(
        tuple(a.kernel for a in hulls),
        tuple(a.dilation for a in hulls),
        (*(a.before for a in hulls), *(a.after for a in hulls)),
        tuple(a.extra for a in hulls),
        tuple(tuple(starts[j] for _, starts in found) for j in range(len(convs))),
    )


def _axes(node: Node, kernel: tuple[int, ...]) -> tuple[_Axis, ...] | None:
    """The axes of a ConvTranspose whose pads are explicit; None where they are not, or malformed."""
    rank = len(kernel)
    if node.str_attr("auto_pad", "NOTSET") not in ("NOTSET", "") or "output_shape" in node.attrs:
        return None
    strides, dilations = node.ints_attr("strides") or (1,) * rank, node.ints_attr("dilations") or (1,) * rank
    pads, extra = node.ints_attr("pads") or (0,) * 2 * rank, node.ints_attr("output_padding") or (0,) * rank
    if [len(strides), len(dilations), len(pads), len(extra)] != [rank, rank, 2 * rank, rank] or min(pads) < 0:
        return None
    return tuple(_Axis(*a) for a in zip(kernel, strides, dilations, pads[:rank], pads[rank:], extra, strict=True))


def _axis_hull(axes: Sequence[_Axis]) -> tuple[_Axis, tuple[int, ...]] | None:
    """The hull on one axis, and where each kernel starts in it: a pad larger by d starts one tap later."""
    stride, dilation = axes[0].stride, max(a.dilation for a in axes)
    slacks = {a.extent + a.extra - a.before - a.after for a in axes}
    if any(a.stride != stride or (a.dilation != dilation and a.kernel > 1) for a in axes) or len(slacks) != 1:
        return None
    before = max(a.before for a in axes)
    offsets = [before - a.before for a in axes]
    if any(o % dilation for o in offsets):
        return None
    extent = max(o + a.extent for o, a in zip(offsets, axes, strict=True))
    rest = extent - before - slacks.pop()
    after, extra = max(rest, 0), max(-rest, 0)
    if extra and extra >= max(stride, dilation):
        return None
    kernel = (extent - 1) // dilation + 1
    return _Axis(kernel, stride, dilation, before, after, extra), tuple(o // dilation for o in offsets)
