"""What nothing reads: nodes, and optional outputs."""

from __future__ import annotations

from functools import lru_cache

from onnx import defs

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import ANY, NoMatch, Refused, Rule


class EraseUnreadNode(Rule[Node]):
    """A node none of whose outputs is read, by a node of its graph, by a body inside it or as an output, goes.

    ONNX operators have no other effect than their outputs. What only it read goes with it. Any opset. Exact.
    """

    roots = (ANY,)

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        if any(t is not None and t.is_used for t in node.outputs):
            return NoMatch("its outputs are read", node)
        if not node.outputs:
            return NoMatch("it has no outputs: it may act on something else", node)
        return node

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        edit.erase(found)


class DropUnreadOutputs(Rule[tuple[Node, int]]):
    """An optional last output that nothing reads becomes absent: Dropout's mask, MaxPool's indices, LSTM's states.

    Only where the operator's schema calls the output optional. Not for BatchNormalization, whose number of outputs says
    whether it trains (before opset 14) or follows from it (since), nor for the present states of an Attention with past
    ones: it has both or neither. Exact.
    """

    roots = (ANY,)

    def match(self, node: Node, facts: Facts) -> tuple[Node, int] | NoMatch:
        last = len(node.outputs) - 1
        if last < 1:
            return NoMatch("it has one output", node)
        tensor = node.outputs[last]
        if tensor is not None and tensor.is_used:
            return NoMatch("its last output is read", node)
        if node.op == "BatchNormalization":
            return NoMatch("its number of outputs goes with training or inference", node)
        if _is_present_state(node, last):
            return NoMatch("past and present states go together", node)
        if _may_ask_for_negative_pads(node):
            return Refused("ONNX Runtime takes negative automatic pads only of a MaxPool that gives indices", node)
        if not _is_optional(node.op, facts.opset(node), last):
            return NoMatch("its last output is not optional", node)
        return node, last

    def rewrite(self, found: tuple[Node, int], edit: Rewriter) -> None:
        edit.drop_output(*found)


def _is_present_state(node: Node, index: int) -> bool:
    """Whether output `index` is a present key or value, of an Attention that is given a past one."""
    has_past = node.input(4) is not None or node.input(5) is not None
    return node.op == "Attention" and has_past and index in (1, 2)


def _may_ask_for_negative_pads(node: Node) -> bool:
    """Whether automatic pads of a MaxPool may be negative: a stride is larger than the kernel."""
    if node.op != "MaxPool" or not node.str_attr("auto_pad", "NOTSET").startswith("SAME"):
        return False
    kernel, strides = node.ints_attr("kernel_shape") or (), node.ints_attr("strides") or ()
    return any(stride > size for size, stride in zip(kernel, strides, strict=False))


@lru_cache(maxsize=4096)
def _is_optional(op: str, opset: int, index: int) -> bool:
    """Whether the standard operator's schema calls output `index` optional."""
    if "::" in op or not defs.has(op) or opset < 1:
        return False
    try:
        outputs = defs.get_schema(op, opset, "").outputs
    except defs.SchemaError:
        return False
    return index < len(outputs) and outputs[index].option == defs.OpSchema.FormalParameterOption.Optional
