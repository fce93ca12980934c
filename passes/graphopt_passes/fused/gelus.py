"""GELUs of a product and its bias as one operator of ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt.targets import Target
from graphopt_passes.blocks.activations import RecognizeGelu
from graphopt_passes.blocks.terms import read_only_by
from graphopt_passes.fused.biases import DOMAIN, Biased, biased_product, is_own

# ONNX Runtime's operators for GELU and its approximation by tanh, both with a bias.
OPERATORS = {"none": "BiasGelu", "tanh": "FastGelu"}


@dataclass(frozen=True)
class GeluOfBiased:
    """`last` = Gelu(x) of a biased product, exact or approximate (`form`)."""

    last: Node
    product: Biased
    form: str


class FuseBiasGelu(Rule[GeluOfBiased]):
    """Gelu(x·W + b) = com.microsoft::BiasGelu(x·W, b), with approximate="tanh" FastGelu(x·W, b).

    W is a constant [K, N], b a constant [N], all float32. The GELU is the operator or its arithmetic; nothing else
    reads x·W + b.

    Opsets: all; only for ONNX Runtime. Exactness: reassociates. Source: ONNX Runtime, docs/ContribOperators.md.
    """

    roots = ("Gelu", "Mul", "Div")
    exactness = Exactness.REASSOCIATES
    arithmetic = RecognizeGelu()

    def match(self, node: Node, facts: Facts) -> GeluOfBiased | NoMatch:
        if facts.target is not Target.ONNXRUNTIME or not is_own(node, facts):
            return NoMatch("only ONNX Runtime has BiasGelu, outside of functions", node)
        if node.op == "Gelu":
            x, form = node.input(0), node.str_attr("approximate", "none")
            readers = {node}
        else:
            found = self.arithmetic.find(node, facts)
            if found is None:
                return NoMatch("it ends no GELU", node)
            x, form = found.x, str(found.attrs["approximate"])
            readers = _readers(x, node)
        product = biased_product(x, facts)
        if product is None or x is None or x.dtype != TensorProto.FLOAT or form not in OPERATORS:
            return NoMatch("it is not of a product plus a constant, float32", node)
        if not read_only_by(x, readers):
            return NoMatch("something else reads its input", node)
        return GeluOfBiased(node, product, form)

    def rewrite(self, found: GeluOfBiased, edit: Rewriter) -> None:
        edit.add_import(DOMAIN, 1)
        inputs = [found.product.data, found.product.bias]
        edit.replace(found.last, edit.node(OPERATORS[found.form], inputs, domain=DOMAIN, name=found.last.name))


def _readers(x: Tensor, last: Node) -> set[Node]:
    """The nodes of the arithmetic that leads from `x` to `last` which read `x`."""
    found, stack = set(), [last]
    while stack:
        node = stack.pop()
        if x in node.inputs:
            found.add(node)
        stack += [t.producer for t in node.inputs if t is not None and t is not x and t.producer is not None]
    return found
