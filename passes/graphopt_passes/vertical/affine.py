"""One view of BatchNormalization, Mul, Div, Add, Sub and Neg with constants: y = s·x + t, a number a channel each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Array, Constant, Node, Tensor
from graphopt.rule import NoMatch
from graphopt_passes.common.folding import exact_values

SCALE_OPS = ("Mul", "Div", "Neg")
SHIFT_OPS = ("Add", "Sub")
NORM_OPS = ("BatchNormalization",)
AFFINE_OPS = (*NORM_OPS, *SCALE_OPS, *SHIFT_OPS)

# BatchNormalization's default epsilon, as the float32 that an attribute holds
DEFAULT_EPSILON = float(np.float32(1e-5))


@dataclass(frozen=True)
class Channels:
    """Where channels lie: `count` of them on the axis `from_right` (0 is the last) of a tensor of that `rank`."""

    count: int
    from_right: int
    rank: int | None


@dataclass(frozen=True)
class Affine:
    """`node` computes s·x + t of `data`; `constants` hold its numbers, not read yet.

    `turned` tells c − x from x − c.
    """

    node: Node
    data: Tensor
    channels: Channels
    constants: tuple[Constant, ...]
    turned: bool = False

    @property
    def has_scale(self) -> bool:
        """Whether s is anything but 1."""
        return self.node.op not in SHIFT_OPS or self.turned

    @property
    def has_shift(self) -> bool:
        """Whether t is anything but 0."""
        return self.node.op in (*NORM_OPS, *SHIFT_OPS)

    def vectors(self) -> tuple[Array, Array]:
        """s and t as float64, [C] each."""
        values = [exact_values(c).reshape(-1) for c in self.constants]
        one, zero = np.ones(self.channels.count), np.zeros(self.channels.count)
        op = self.node.op
        with np.errstate(all="ignore"):
            if op == "BatchNormalization":
                gamma, beta, mean, variance = values
                scale = gamma / np.sqrt(variance + self.node.float_attr("epsilon", DEFAULT_EPSILON))
                return scale, beta - mean * scale
            if op == "Neg":
                return -one, zero
            if op == "Mul":
                return one * values[0], zero
            if op == "Div":
                return one / values[0], zero
            if op == "Add":
                return one, zero + values[0]
            return (-one, zero + values[0]) if self.turned else (one, zero - values[0])


def affine_at(node: Node, channels: Channels, facts: Facts) -> Affine | NoMatch:
    """The view of `node`, whose data has these channels, or why it is none."""
    if node.op == "Neg":
        return Affine(node, node.inputs[0], channels, ())  # type: ignore[arg-type]
    if node.op == "BatchNormalization":
        return _norm(node, channels, facts)
    return _binary(node, channels, facts)


def _norm(node: Node, channels: Channels, facts: Facts) -> Affine | NoMatch:
    data = node.input(0)
    if data is None or not facts.is_inference(node):
        return NoMatch("it normalizes with the batch's own statistics", node)
    if channels.rank is None or channels.from_right != channels.rank - 2:
        return NoMatch("it normalizes along another axis than the output channels'", node)
    if facts.opset(node) < 9 and node.int_attr("spatial", 1) != 1:
        return NoMatch("it has statistics for every position (spatial is 0)", node)
    constants = [facts.constant(t) for t in node.inputs[1:5]]
    known = [c for c in constants if c is not None and c.shape == (channels.count,)]
    if len(known) != 4:
        return NoMatch("its scale, bias or statistics are computed or can be overridden", node)
    return Affine(node, data, channels, tuple(known))


def _binary(node: Node, channels: Channels, facts: Facts) -> Affine | NoMatch:
    first, second = node.input(0), node.input(1)
    if first is None or second is None or facts.is_constant(first) == facts.is_constant(second):
        return NoMatch("not one of its inputs is constant", node)
    turned = facts.is_constant(first)
    data, constant = (second, first.constant) if turned else (first, second.constant)
    assert constant is not None
    if turned and node.op == "Div":
        return NoMatch("it divides a constant by the data, which is no scale", node)
    if constant.dtype not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE):
        return NoMatch("its constant is no float", node)
    shape = _aligned(node, constant.shape, turned, channels, facts)
    if shape is None or not _is_per_channel(shape, channels):
        return NoMatch("its constant is not one number a channel", node)
    return Affine(node, data, channels, (constant,), turned and node.op == "Sub")


def _aligned(
    node: Node, shape: tuple[int, ...], turned: bool, channels: Channels, facts: Facts
) -> tuple[int, ...] | None:
    """The constant's shape as it meets the data, aligned at the last axis; None where it cannot be told.

    Before opset 7 only the second input is broadcast, when `broadcast` is 1, from `axis` on.
    """
    if facts.opset(node) >= 7:
        return shape
    if not node.int_attr("broadcast", 0):
        return shape if channels.rank == len(shape) else None
    if turned or channels.rank is None:
        return None
    if "axis" not in node.attrs:
        return shape
    behind = channels.rank - node.int_attr("axis", 0) - len(shape)
    return (*shape, *[1] * behind) if behind >= 0 and node.int_attr("axis", 0) >= 0 else None


def _is_per_channel(shape: tuple[int, ...], channels: Channels) -> bool:
    """Whether a constant of `shape` gives a number a channel, or one for all, and does not enlarge the data."""
    rank = channels.rank if channels.rank is not None else channels.from_right + 1
    if len(shape) > rank:
        return False
    last = len(shape) - 1
    return all(d in (1, channels.count) if last - i == channels.from_right else d == 1 for i, d in enumerate(shape))
