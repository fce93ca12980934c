"""A residual, a bias and the normalization of their sum as one operator of ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt.targets import Target
from graphopt_passes.fused.biases import DOMAIN, biased_product, is_own


@dataclass(frozen=True)
class SkipNorm:
    """`norm` of `total` = `data` + `skip` (+ `bias`, one number a column)."""

    norm: Node
    total: Node
    data: Tensor
    skip: Tensor
    bias: Tensor | None


class FuseSkipNorm(Rule[SkipNorm]):
    """LayerNormalization(s), s = x + r: com.microsoft::SkipLayerNormalization(x, r, γ, β), whose fourth output is s.

    x and r are [B, S, H], float32; γ and β constants [H]; the mean is over the last axis. Where x is a product plus a
    bias b [H] that nothing else reads, b becomes the operator's bias. ONNX Runtime does the first itself, except where
    the sum has other readers.

    Opsets: 17 on; only for ONNX Runtime. Exactness: reassociates. Source: ONNX Runtime, docs/ContribOperators.md.
    """

    roots = ("LayerNormalization",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> SkipNorm | NoMatch:
        if facts.target is not Target.ONNXRUNTIME or not is_own(node, facts):
            return NoMatch("only ONNX Runtime has SkipLayerNormalization, outside of functions", node)
        total = facts.producer(node.input(0), "Add")
        if total is None or len(node.outputs) != 1 or total.graph is not node.graph:
            return NoMatch("it does not normalize a sum, or more than its result is read", node)
        shape = total.result.shape
        if node.result.dtype != TensorProto.FLOAT or shape is None or len(shape) != 3 or not isinstance(shape[2], int):
            return NoMatch("the sum is not of float32, of rank 3 and known width", node)
        if node.int_attr("axis", -1) not in (-1, 2) or node.int_attr("stash_type", 1) != 1:
            return NoMatch("it does not normalize along the last axis alone, in float32", node)
        weights = [facts.constant(t) for t in node.inputs[1:]]
        if not weights or any(w is None or w.shape != (shape[2],) for w in weights):
            return NoMatch("its scale or shift is not constant, or not one number a column", node)
        data, skip = total.inputs
        if data is None or skip is None or skip.constant is not None or not facts.same_shape(data, skip):
            return NoMatch("the summands are not two tensors that surely have one shape", node)
        for x, r in ((data, skip), (skip, data)):
            biased = biased_product(x, facts)
            if biased is not None and x.sole_consumer is total:
                return SkipNorm(node, total, biased.data, r, biased.bias)
        return SkipNorm(node, total, data, skip, None)

    def rewrite(self, found: SkipNorm, edit: Rewriter) -> None:
        norm, total = found.norm, found.total
        edit.add_import(DOMAIN, 1)
        attrs = {"epsilon": norm.float_attr("epsilon", 1e-5)}
        inputs = [found.data, found.skip, norm.input(1), norm.input(2), found.bias]
        is_read = total.result.sole_consumer is not norm
        made = edit.node(
            "SkipLayerNormalization", inputs, attrs, outputs=4 if is_read else 1, domain=DOMAIN, name=norm.name
        )
        edit.replace_each([norm, None, None, total] if is_read else [norm], made)
        if is_read:
            edit.drop_output(made, 1)
            edit.drop_output(made, 2)
