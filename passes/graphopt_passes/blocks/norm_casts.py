"""Normalizations of 16-bit data that an exporter wrote in float32, between two Casts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor, numpy_dtype
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt.targets import Target
from graphopt_passes.blocks.norm_affine import is_all
from graphopt_passes.blocks.terms import inner

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class NormBetweenCasts:
    """Cast(norm(Cast(x))), x of a 16-bit type, the norm in float32 without a scale and a bias of its own."""

    cast: Node
    norm: Node
    x: Tensor


class FoldCastsIntoNorm(Rule[NormBetweenCasts]):
    """Cast_T(norm(Cast_float32(x), 1, 0)) = norm(x, 1, 0) with stash_type 1, x of type T, float16 or bfloat16.

    norm is LayerNormalization or RMSNormalization, which compute in float32 by themselves and round to T before they
    scale. Where the scale is another than 1, it was applied before the rounding: that stays. So do Llama's exporters
    write it, the scale behind the Cast; another rule takes that in.

    Opsets: LayerNormalization 17 on, RMSNormalization 23 on. Exactness: reassociates. Source: ONNX operators
    LayerNormalization, RMSNormalization (stash_type).
    """

    roots = ("Cast",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> NormBetweenCasts | NoMatch:
        norm = inner(node.input(0), facts, "LayerNormalization", "RMSNormalization")
        wide = facts.producer(norm.input(0), "Cast") if norm is not None else None
        x = wide.input(0) if wide is not None else None
        if norm is None or wide is None or x is None:
            return NoMatch("it is no Cast of a normalization of a Cast", node)
        if x.dtype not in _HALVES or wide.result.dtype != TensorProto.FLOAT or node.result.dtype != x.dtype:
            return NoMatch("the Casts do not lead from a 16-bit type to float32 and back", node)
        is_lacking = norm.op == "RMSNormalization" and x.dtype == TensorProto.BFLOAT16
        if is_lacking and facts.target is not Target.TENSORRT:
            return Refused("ONNX Runtime has no kernel for an RMSNormalization of bfloat16", norm)
        if len(norm.outputs) != 1 or norm.int_attr("stash_type", 1) != TensorProto.FLOAT:
            return NoMatch("the normalization does not compute in float32, or has further outputs", norm)
        bias = norm.input(2)
        if not is_all(norm.input(1), 1.0, facts) or not (bias is None or is_all(bias, 0.0, facts)):
            return NoMatch("the normalization scales or shifts before the result is rounded", norm)
        if not facts.visible(x, node.owner):
            return NoMatch("the data is of another graph", node)
        return NormBetweenCasts(node, norm, x)

    def rewrite(self, found: NormBetweenCasts, edit: Rewriter) -> None:
        norm, x = found.norm, found.x
        scale = norm.inputs[1]
        assert scale is not None
        assert scale.constant is not None
        assert x.dtype is not None
        ones = edit.constant(np.ones(scale.constant.shape, numpy_dtype(x.dtype)), scale.name)
        edit.replace(found.cast, edit.like(norm, [x, ones]))
