"""Convolution kernels as algebra: embedding a kernel into a larger one, a grouped one into a denser one.

A `Branch` is anything that is a convolution with constants of one tensor: a Conv, the tensor itself, a per-channel
affine operator, an average pool. Its kernel is [C, I/group, *kernel] in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.graph import Array, Node, Tensor
from graphopt_passes.vertical.geometry import Window


@dataclass(frozen=True)
class Branch:
    """A convolution of `data`. `node` computes it, None for the tensor itself. Values are read when called for."""

    node: Node | None
    data: Tensor
    out_channels: int
    in_channels: int
    group: int
    window: Window
    kernel: Callable[[], Array]
    bias: Callable[[], Array]

    @property
    def products(self) -> int:
        """Multiplications for one output position; none for what is no Conv."""
        if self.node is None or self.node.op != "Conv":
            return 0
        return products(self.out_channels, self.in_channels, self.group, self.window.kernel)


def products(out_channels: int, in_channels: int, group: int, kernel: tuple[int, ...]) -> int:
    """Multiplications of a convolution for one output position."""
    return out_channels * (in_channels // group) * math.prod(kernel)


@dataclass(frozen=True)
class Hull:
    """The smallest geometry into which all branches fit: each one's kernel starts at its `offsets`, in taps."""

    group: int
    window: Window
    offsets: tuple[tuple[int, ...], ...]


def common_hull(branches: Sequence[Branch]) -> Hull | None:
    """The hull of branches whose outputs are of equal shape for every input; None where there is none."""
    first = branches[0]
    channels = {(b.out_channels, b.in_channels) for b in branches}
    if len(channels) != 1 or any(b.window.strides != first.window.strides for b in branches):
        return None
    group = min(b.group for b in branches)
    if any(b.group % group for b in branches):
        return None
    axes = [_axis_hull([_Axis.of(b.window, i) for b in branches]) for i in range(len(first.window.kernel))]
    known = [a for a in axes if a is not None]
    if len(known) != len(axes):
        return None
    window = Window(
        tuple(a.kernel for a in known),
        first.window.strides,
        tuple(a.dilation for a in known),
        tuple(a.before for a in known),
        tuple(a.after for a in known),
    )
    return Hull(group, window, tuple(tuple(a.offsets[j] for a in known) for j in range(len(branches))))


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of a branch."""

    kernel: int
    dilation: int
    before: int
    after: int

    @classmethod
    def of(cls, window: Window, i: int) -> _Axis:
        return cls(window.kernel[i], window.dilations[i], window.before[i], window.after[i])

    @property
    def extent(self) -> int:
        return self.dilation * (self.kernel - 1) + 1


@dataclass(frozen=True)
class _AxisHull(_Axis):
    offsets: tuple[int, ...]


def _axis_hull(axes: list[_Axis]) -> _AxisHull | None:
    """The hull on one axis.

    Windows of a branch start at i·s − p⁻; so with pads P = max p⁻ each kernel starts P − p⁻ later. Output lengths are
    equal for every input length when p⁻ + p⁺ − extent is, and then the hull's end pad follows.
    """
    slack = {a.before + a.after - a.extent for a in axes}
    dilations = {a.dilation for a in axes if a.kernel > 1} or {1}
    if len(slack) != 1 or len(dilations) != 1:
        return None
    (dilation,) = dilations
    before = max(a.before for a in axes)
    starts = [before - a.before for a in axes]
    if any(s % dilation for s in starts):
        return None
    extent = max(s + a.extent for s, a in zip(starts, axes, strict=True))
    after = slack.pop() + extent - before
    if after < 0 or (extent - 1) % dilation:
        return None
    return _AxisHull((extent - 1) // dilation + 1, dilation, before, after, tuple(s // dilation for s in starts))


def summed_kernel(branches: Sequence[Branch], hull: Hull) -> Array:
    """The sum of the branches' kernels, each embedded in the hull: [C, I/hull.group, *hull.kernel]."""
    first = branches[0]
    total = np.zeros((first.out_channels, first.in_channels // hull.group, *hull.window.kernel))
    for branch, offsets in zip(branches, hull.offsets, strict=True):
        taps = tuple(slice(o, o + k) for o, k in zip(offsets, branch.window.kernel, strict=True))
        place = (slice(None), slice(None), *taps)
        total[place] += regrouped(branch.kernel(), branch.group, hull.group)
    return total


def regrouped(kernel: Array, group: int, denser: int) -> Array:
    """A kernel [C, I/group, ...] of `group` groups as one of `denser` groups, a divisor: [C, I/denser, ...]."""
    if group == denser:
        return kernel
    channels, width = kernel.shape[:2]
    parts = group // denser  # groups that share a new one
    result = np.zeros((channels, width * parts, *kernel.shape[2:]))
    rows = channels // group
    for g in range(group):
        column = (g % parts) * width
        result[g * rows : (g + 1) * rows, column : column + width] = kernel[g * rows : (g + 1) * rows]
    return result


def diagonal(scale: Array, kernel: tuple[int, ...]) -> Array:
    """The depthwise kernel [C, 1, *kernel] with scale[c] at every tap."""
    return np.asarray(np.broadcast_to(scale.reshape(-1, 1, *[1] * len(kernel)), (len(scale), 1, *kernel)))
