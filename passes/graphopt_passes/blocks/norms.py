"""Normalizations that an exporter wrote as arithmetic: LayerNormalization, InstanceNormalization, RMSNormalization.

All have one core, (x − m) / √(v + ε); their scales and biases are taken in by `graphopt_passes.blocks.norm_affine`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.blocks.activations import lacks_type, needs_opset
from graphopt_passes.blocks.terms import inner, read_only_by, with_scalar
from graphopt_passes.common.arguments import ints_argument, normalized_axes

# Normalizations are computed in float32: a double would lose half of its digits.
NORM_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Core:
    """(x − mean(x)) / √(mean((x − mean(x))²) + ε) over the last axes from `axis` on; without the means if not centered.

    `sizes` are the normalized dimensions, None each where unknown.
    """

    last: Node
    x: Tensor
    axis: int
    rank: int
    epsilon: float
    centered: bool

    @property
    def sizes(self) -> tuple[int | None, ...]:
        assert self.x.shape is not None
        return tuple(d if isinstance(d, int) else None for d in self.x.shape[self.axis :])


def core_at(node: Node, facts: Facts) -> Core | None:
    """The normalization that ends at `node`, a Div or Mul, before any scale and bias."""
    if facts.opset(node) < 7 or len(node.inputs) != 2:
        return None
    pairs = [(node.inputs[0], square_root(node.inputs[1], facts))]
    if node.op == "Mul":
        pairs = [(node.inputs[i], inverse_root(node.inputs[1 - i], facts)) for i in (0, 1)]
    for numerator, radicand in pairs:
        if numerator is None or radicand is None:
            continue
        variance = with_scalar(radicand, facts)
        mean = inner(variance[0], facts, "ReduceMean") if variance is not None else None
        if variance is None or mean is None or variance[1] < 0:
            continue
        found = _of_square(node, numerator, mean, variance[1], facts)
        if found is not None:
            return found
    return None


def square_root(tensor: Tensor | None, facts: Facts) -> Node | None:
    """The Add under a square root."""
    node = inner(tensor, facts, "Sqrt", "Pow")
    if node is None:
        return None
    if node.op == "Pow":
        power = with_scalar(node, facts)
        if power is None or power[2] or power[1] != 0.5:
            return None
    return inner(node.input(0), facts, "Add")


def inverse_root(tensor: Tensor | None, facts: Facts) -> Node | None:
    """The Add under the inverse of a square root."""
    node = inner(tensor, facts, "Reciprocal", "Div", "Pow")
    if node is None:
        return None
    if node.op == "Reciprocal":
        return square_root(node.input(0), facts)
    beside = with_scalar(node, facts)
    if beside is None:
        return None
    data, value, first = beside
    if node.op == "Div":
        return square_root(data, facts) if first and value == 1.0 else None
    return inner(data, facts, "Add") if not first and value == -0.5 else None


def _of_square(node: Node, numerator: Tensor, mean: Node, epsilon: float, facts: Facts) -> Core | None:
    square = inner(mean.input(0), facts, "Pow", "Mul")
    if square is None:
        return None
    base = square.input(0)
    if square.op == "Mul" and square.input(1) is not base:
        return None
    if square.op == "Pow":
        power = with_scalar(square, facts)
        if power is None or power[2] or power[1] != 2.0:
            return None
    axis = trailing_axis(mean, facts)
    if base is None or axis is None or base.shape is None:
        return None
    rank = len(base.shape)
    if base is numerator or _same_difference(base, numerator, facts):
        x = _centered(base, numerator, axis, {node, square}, facts)
        if x is not None:
            return Core(node, x, axis, rank, epsilon, True)
    return Core(node, base, axis, rank, epsilon, False) if base is numerator else None


def _same_difference(a: Tensor, b: Tensor, facts: Facts) -> bool:
    """Whether two Subs have the same inputs: some exporters write x − mean(x) twice."""
    first, second = facts.producer(a, "Sub"), facts.producer(b, "Sub")
    return first is not None and second is not None and first.inputs == second.inputs


def _centered(base: Tensor, numerator: Tensor, axis: int, readers: set[Node], facts: Facts) -> Tensor | None:
    """x where `base` is x − mean(x) over the same axes and only the normalization reads it."""
    if not all(read_only_by(t, readers) for t in (base, numerator)):
        return None
    difference = facts.producer(base, "Sub")
    mean = facts.producer(difference.input(1), "ReduceMean") if difference is not None else None
    x = difference.input(0) if difference is not None else None
    if mean is None or x is None or mean.input(0) is not x or trailing_axis(mean, facts) != axis:
        return None
    subtractions = {n for n in (base.producer, numerator.producer) if n is not None}
    return x if read_only_by(mean.result, subtractions) else None


def trailing_axis(mean: Node, facts: Facts) -> int | None:
    """The first of the axes that a ReduceMean with keepdims takes the mean of, when they are the last ones."""
    rank = facts.rank(mean.input(0))
    axes = ints_argument(mean, facts, "axes", 1)
    if rank is None or axes is None or not axes.values or not mean.int_attr("keepdims", 1):
        return None
    places = normalized_axes(axes.values, rank)
    if places is None or sorted(places) != list(range(rank - len(places), rank)):
        return None
    return rank - len(places)


Found = TypeVar("Found")


class RecognizeNorm(Rule[Found]):
    """A core becomes an operator whose scale is 1."""

    roots: ClassVar[tuple[str, ...]] = ("Div", "Mul")
    exactness = Exactness.REASSOCIATES

    def find(self, node: Node, facts: Facts) -> Core | NoMatch:
        """The core that ends at `node`, of a type that the operator computes in."""
        core = core_at(node, facts)
        if core is None:
            return NoMatch("it is no (x − mean) / √(variance + ε) over the last axes", node)
        if core.x.dtype not in NORM_TYPES:
            return NoMatch("its type is not known, or wider than what normalizations compute in", node)
        return core

    def ones(self, core: Core, sizes: tuple[int | None, ...], edit: Rewriter) -> Tensor:
        """A scale of ones."""
        assert core.x.dtype is not None
        known = tuple(d for d in sizes if d is not None)
        return edit.constant(np.ones(known, numpy_dtype(core.x.dtype)), f"{core.last.label}.scale")


def is_spatial(core: Core) -> bool:
    """Whether the core normalizes images [N, C, H, W, ...] over all of their spatial axes, C known."""
    assert core.x.shape is not None
    return core.centered and core.rank >= 4 and core.axis == 2 and isinstance(core.x.shape[1], int)


class RecognizeLayerNorm(RecognizeNorm[Core]):
    """(x − μ) / √(σ² + ε) = LayerNormalization(x, 1), μ and σ² = mean((x − μ)²) over the last axes.

    x is [..., *D], the scale of ones [*D], D static. The root may be Sqrt or a power, the quotient a product with an
    inverse, the difference written once or twice.

    Opsets: 17 on. Exactness: reassociates. Source: ONNX operator LayerNormalization; Ba et al. 2016, arXiv 1607.06450.
    """

    def match(self, node: Node, facts: Facts) -> Core | NoMatch:
        core = self.find(node, facts)
        if isinstance(core, NoMatch):
            return core
        if not core.centered or is_spatial(core):
            return NoMatch("it is another normalization", node)
        if None in core.sizes:
            return NoMatch("the normalized sizes are not static", node)
        return needs_opset(node, facts, "LayerNormalization", 17, "a decomposed layer normalization") or core

    def rewrite(self, found: Core, edit: Rewriter) -> None:
        attrs = {"axis": found.axis - found.rank, "epsilon": found.epsilon}
        inputs = [found.x, self.ones(found, found.sizes, edit)]
        edit.replace(found.last, edit.node("LayerNormalization", inputs, attrs, name=found.last.name))


class RecognizeRmsNorm(RecognizeNorm[Core]):
    """x / √(mean(x²) + ε) = RMSNormalization(x, 1), the mean over the last axes.

    x is [..., *D], the scale of ones [*D], D static.

    Opsets: 23 on. Exactness: reassociates. Source: ONNX operator RMSNormalization; Zhang and Sennrich 2019,
    arXiv 1910.07467.
    """

    def match(self, node: Node, facts: Facts) -> Core | NoMatch:
        core = self.find(node, facts)
        if isinstance(core, NoMatch):
            return core
        if core.centered:
            return NoMatch("it is another normalization", node)
        if None in core.sizes:
            return NoMatch("the normalized sizes are not static", node)
        return needs_opset(node, facts, "RMSNormalization", 23, "a decomposed RMS normalization") or core

    def rewrite(self, found: Core, edit: Rewriter) -> None:
        attrs = {"axis": found.axis - found.rank, "epsilon": found.epsilon}
        inputs = [found.x, self.ones(found, found.sizes, edit)]
        edit.replace(found.last, edit.node("RMSNormalization", inputs, attrs, name=found.last.name))


class RecognizeInstanceNorm(RecognizeNorm[Core]):
    """(x − μ) / √(σ² + ε) = InstanceNormalization(x, 1, 0), μ and σ² over all spatial axes of x [N, C, H, W, ...].

    C is static. Of rank 3 the same arithmetic is taken for a layer normalization.

    Opsets: 7 on. Exactness: reassociates. Source: ONNX operator InstanceNormalization; Ulyanov et al. 2016,
    arXiv 1607.08022.
    """

    def match(self, node: Node, facts: Facts) -> Core | NoMatch:
        core = self.find(node, facts)
        if isinstance(core, NoMatch):
            return core
        if not is_spatial(core):
            return NoMatch("it is another normalization", node)
        return lacks_type(node, facts, "InstanceNormalization", core.x.dtype) or core

    def rewrite(self, found: Core, edit: Rewriter) -> None:
        assert found.x.shape is not None
        assert found.x.dtype is not None
        channels = found.x.shape[1]
        assert isinstance(channels, int)
        scale = self.ones(found, (channels,), edit)
        shift = edit.constant(np.zeros(channels, numpy_dtype(found.x.dtype)), f"{found.last.label}.bias")
        attrs = {"epsilon": found.epsilon}
        edit.replace(
            found.last, edit.node("InstanceNormalization", [found.x, scale, shift], attrs, name=found.last.name)
        )
