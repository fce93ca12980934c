"""Group normalization that an exporter wrote as a normalization between two Reshapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt.targets import Target
from graphopt_passes.blocks.activations import needs_opset
from graphopt_passes.blocks.terms import inner


@dataclass(frozen=True)
class GroupedNorm:
    """Reshape(normalize(Reshape(x, [N, groups, ...])), shape of x); x is [N, channels, ...]."""

    last: Node
    norm: Node
    x: Tensor
    groups: int
    channels: int


class RecognizeGroupNorm(Rule[GroupedNorm]):
    """Reshape(InstanceNormalization(Reshape(x, [N, G, −1]), 1, 0), shape(x)) = GroupNormalization(x, 1, 0, G groups).

    x is [N, C, ...], C static and a multiple of G; the inner normalization may be a LayerNormalization over all axes
    behind G. Its scale is 1 and its bias 0: those of the channels follow behind.

    For TensorRT alone: the standard defines GroupNormalization with the variance E[x²] − E[x]², which cancels, and may
    be negative, where x is far from 0 beside its deviation. ONNX Runtime's CPU computes that; TensorRT has a kernel.

    Opsets: 21 on (before, GroupNormalization scales groups, not channels). Exactness: reassociates. Source: ONNX
    operator GroupNormalization; Wu and He 2018, arXiv 1803.08494.
    """

    roots = ("Reshape",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> GroupedNorm | NoMatch:
        norm = inner(node.input(0), facts, "InstanceNormalization", "LayerNormalization")
        split = inner(norm.input(0), facts, "Reshape") if norm is not None else None
        x = split.input(0) if split is not None else None
        if norm is None or split is None or x is None or x.shape is None or len(x.shape) < 3:
            return NoMatch("it is no normalization between two Reshapes", node)
        channels, groups = x.shape[1], _groups(split, x, facts)
        if not isinstance(channels, int) or groups is None or channels % groups:
            return NoMatch("the Reshape does not surely divide the channels into groups", split)
        if not _restores(node, x, facts):
            return NoMatch("the second Reshape does not surely restore the shape", node)
        if not _covers(norm, facts) or not _is_plain(norm, facts):
            return NoMatch("the normalization does not cover each group, or scales it", norm)
        if x.dtype not in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16):
            return NoMatch("its type is not known, or wider than what normalizations compute in", node)
        if facts.target is not Target.TENSORRT:
            return Refused("the standard's definition of GroupNormalization, which runtimes execute, cancels", node)
        refusal = needs_opset(node, facts, "GroupNormalization", 21, "a normalization between two Reshapes")
        return refusal or GroupedNorm(node, norm, x, groups, channels)

    def rewrite(self, found: GroupedNorm, edit: Rewriter) -> None:
        assert found.x.dtype is not None
        kind, label = numpy_dtype(found.x.dtype), found.norm.label
        scale = edit.constant(np.ones(found.channels, kind), f"{label}.scale")
        shift = edit.constant(np.zeros(found.channels, kind), f"{label}.bias")
        attrs = {"num_groups": found.groups, "epsilon": found.norm.float_attr("epsilon", float(np.float32(1e-5)))}
        edit.replace(found.last, edit.node("GroupNormalization", [found.x, scale, shift], attrs, name=found.norm.name))


def _groups(split: Node, x: Tensor, facts: Facts) -> int | None:
    """G where the Reshape keeps the first dimension and makes the second one G."""
    target = facts.ints(split.input(1))
    if target is None or len(target) < 3 or target[1] < 1 or x.shape is None:
        return None
    keeps_batch = target[0] == x.shape[0] or (target[0] == 0 and not split.int_attr("allowzero", 0))
    return target[1] if keeps_batch and target[0] >= 0 else None


def _restores(node: Node, x: Tensor, facts: Facts) -> bool:
    shape = facts.producer(node.input(1), "Shape")
    if shape is not None and shape.input(0) is x and not {"start", "end"} & set(shape.attrs):
        return True
    return facts.same_shape(node.output(0), x)


def _covers(norm: Node, facts: Facts) -> bool:
    rank = facts.rank(norm.input(0))
    if norm.op == "InstanceNormalization":
        return True
    axis = norm.int_attr("axis", -1)
    return rank is not None and (axis + rank if axis < 0 else axis) == 2 and len(norm.outputs) == 1


def _is_plain(norm: Node, facts: Facts) -> bool:
    """Whether the scale is 1 and the bias 0 or absent."""
    scale = facts.value(norm.input(1))
    shift = np.zeros(1) if norm.input(2) is None else facts.value(norm.input(2))
    return scale is not None and shift is not None and bool((scale == 1).all()) and bool((shift == 0).all())
