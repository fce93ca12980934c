"""Layer normalization as TensorFlow's `batch_normalization` writes it: x·r + (β − μ·r)."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch
from graphopt_passes.blocks.activations import needs_opset
from graphopt_passes.blocks.norms import NORM_TYPES, Core, RecognizeNorm, inverse_root, square_root, trailing_axis
from graphopt_passes.blocks.terms import inner, read_only_by, with_scalar


@dataclass(frozen=True)
class Moments:
    """x·r + (β − μ·r), r = γ / √(σ² + ε), `gamma` None where r has no factor."""

    core: Core
    gamma: Tensor | None
    beta: Tensor


class RecognizeMoments(RecognizeNorm[Moments]):
    """x·r + (β − μ·r) = LayerNormalization(x, 1)·γ + β, r = γ / √(σ² + ε); μ and σ² over the last axes.

    x is [..., *D], D static; γ and β broadcast to x. A following rule takes γ and β into the operator.

    Opsets: 17 on. Exactness: reassociates. Source: ONNX operator LayerNormalization; TensorFlow's
    `tf.nn.batch_normalization`.
    """

    roots = ("Add",)

    def match(self, node: Node, facts: Facts) -> Moments | NoMatch:
        for first, second in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
            product, rest = inner(first, facts, "Mul"), inner(second, facts, "Sub")
            if product is None or rest is None or facts.opset(node) < 7:
                continue
            found = _moments(node, product, rest, facts)
            if found is not None:
                if None in found.core.sizes:
                    return NoMatch("the normalized sizes are not static", node)
                return needs_opset(node, facts, "LayerNormalization", 17, "a decomposed layer normalization") or found
        return NoMatch("it is no x·r + (β − μ·r)", node)

    def rewrite(self, found: Moments, edit: Rewriter) -> None:
        core = found.core
        attrs = {"axis": core.axis - core.rank, "epsilon": core.epsilon}
        made = edit.node("LayerNormalization", [core.x, self.ones(core, core.sizes, edit)], attrs, name=core.last.name)
        if found.gamma is not None:
            made = edit.node("Mul", [made.result, found.gamma])
        edit.replace(core.last, edit.node("Add", [made.result, found.beta]))


def _moments(node: Node, product: Node, rest: Node, facts: Facts) -> Moments | None:
    shifted = inner(rest.input(1), facts, "Mul")
    beta = rest.input(0)
    if shifted is None or beta is None:
        return None
    for i in (0, 1):
        ratio, x = product.input(i), product.input(1 - i)
        for j in (0, 1):
            if shifted.input(j) is not ratio or ratio is None or x is None:
                continue
            mean = facts.producer(shifted.input(1 - j), "ReduceMean")
            if mean is None or mean.input(0) is not x or not read_only_by(ratio, (product, shifted)):
                continue
            found = _ratio(ratio, facts)
            core = _core(node, x, mean, found[0], shifted, facts) if found is not None else None
            if core is not None and found is not None:
                return Moments(core, found[1], beta)
    return None


def _ratio(ratio: Tensor, facts: Facts) -> tuple[Node, Tensor | None] | None:
    """The Add under the root in r = γ / √(σ² + ε), and γ; also where r is γ · (1 / √...)."""
    node = ratio.producer
    if node is None or node.graph is not ratio.graph:
        return None
    if node.op == "Mul" and len(node.inputs) == 2:
        for i in (0, 1):
            radicand = inverse_root(node.input(i), facts)
            if radicand is not None:
                return radicand, node.inputs[1 - i]
    if node.op == "Reciprocal":
        radicand = square_root(node.input(0), facts)
        return (radicand, None) if radicand is not None else None
    if node.op == "Div":
        radicand = square_root(node.input(1), facts)
        beside = with_scalar(node, facts)
        plain = beside is not None and beside[2] and beside[1] == 1.0
        return (radicand, None if plain else node.inputs[0]) if radicand is not None else None
    return None


def _core(node: Node, x: Tensor, mean: Node, radicand: Node, shifted: Node, facts: Facts) -> Core | None:
    """The core when the radicand is mean((x − mean)²) + ε over the same trailing axes."""
    variance = with_scalar(radicand, facts)
    outer = inner(variance[0], facts, "ReduceMean") if variance is not None else None
    axis = trailing_axis(mean, facts)
    if variance is None or outer is None or axis is None or trailing_axis(outer, facts) != axis or variance[1] < 0:
        return None
    square = inner(outer.input(0), facts, "Mul", "Pow")
    if square is None:
        return None
    power = with_scalar(square, facts)
    if square.op == "Pow" and (power is None or power[2] or power[1] != 2.0):
        return None
    if square.op == "Mul" and square.input(0) is not square.input(1):
        return None
    difference = inner(square.input(0), facts, "Sub")
    if difference is None or {difference.input(0), difference.input(1)} != {x, mean.result}:
        return None
    if not read_only_by(mean.result, (difference, shifted)) or x.shape is None:
        return None
    return Core(node, x, axis, len(x.shape), variance[1], True) if x.dtype in NORM_TYPES else None
