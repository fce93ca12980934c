"""BatchNormalization with the statistics of a batch of one."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule

_FLOATS = (1, 10)  # ONNX Runtime has no InstanceNormalization of doubles


class BatchOfOneToInstanceNorm(Rule[Node]):
    """BatchNormalization(x, s, b, _, _) that trains, x of shape [1, C, ...] = InstanceNormalization(x, s, b).

    In training it normalizes each channel with the mean and the (biased) variance of x over the batch and all
    positions; of a batch of one these are the instance's own. Further outputs must not be read. Exporters write so what
    standardizes weights (NFNet); InstanceNormalization folds like any other operator, and TensorRT takes it. Training
    is told by further outputs in opset 9 to 13, by `training_mode` from 14 on. Reassociates.
    """

    roots = ("BatchNormalization",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        if facts.opset(node) < 9 or facts.is_inference(node):
            return NoMatch("it does not train, or is of an opset before 9", node)
        if any(t is not None and t.is_used for t in node.outputs[1:]):
            return NoMatch("a further output is read", node)
        x = node.input(0)
        if x is None or x.shape is None or len(x.shape) < 3 or x.shape[0] != 1:
            return NoMatch("its input is not a batch of one with positions", node)
        if x.dtype not in _FLOATS or any(not facts.same_type(x, t) for t in node.inputs[1:3]):
            return NoMatch("its dtypes are mixed or unknown", node)
        return node

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        attrs = {"epsilon": found.float_attr("epsilon", 1e-5)}
        made = edit.node("InstanceNormalization", found.inputs[:3], attrs, name=found.name)
        edit.forward(found.result, made.result)
