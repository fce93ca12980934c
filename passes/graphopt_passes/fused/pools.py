"""Averages over whole feature maps, spelled as TensorRT fuses them best."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt.targets import Target
from graphopt_passes.common.arguments import ints_argument, normalized_axes

# Above 14 x 14 elements a pooling kernel, which goes through its window in order, may take longer than a reduction.
MOST_ELEMENTS = 14 * 14


@dataclass(frozen=True)
class GateAverage:
    """`node` averages over the spatial axes, of sizes `window`."""

    node: Node
    window: tuple[int, ...]


class PoolForGate(Rule[GateAverage]):
    """GlobalAveragePool(x) = ReduceMean(x, axes=(2, 3), keepdims=1) = AveragePool(x, kernel_shape=(H, W)).

    x is [N, C, H, W], H·W known and small, and something else reads x too: the squeeze of a squeeze-and-excite block.
    TensorRT fuses a reduction with what is before it, so that the kernel which makes x for the gate needs another one
    when a folded convolution makes it; a pooling stands for itself. TensorRT-RTX 1.7, compute capability 8.9,
    mobilenet_v3_small with its BatchNormalizations folded: 79 kernels become 74 (42 convs, of which some take their
    HardSwish in again).

    Opsets: 7 on; only for TensorRT. Exactness: reassociates. Source: ONNX operators GlobalAveragePool, AveragePool.
    """

    roots = ("GlobalAveragePool", "ReduceMean")
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> GateAverage | NoMatch:
        if facts.target is not Target.TENSORRT or facts.opset(node) < 7:
            return NoMatch("only TensorRT gains by it, from opset 7 on", node)
        x, shape = node.input(0), facts.static_shape(node.input(0))
        if x is None or shape is None or len(shape) != 4 or not 0 < prod(shape[2:]) <= MOST_ELEMENTS:
            return NoMatch("its input has not four known dimensions with a small map", node)
        if x.uses < 2:
            return NoMatch("nothing else reads its input", node)
        if node.op == "ReduceMean":
            axes = ints_argument(node, facts, "axes", 1)
            values = normalized_axes(axes.values, 4) if axes is not None and axes.values else None
            if values is None or sorted(values) != [2, 3] or not node.int_attr("keepdims", 1):
                return NoMatch("it does not reduce the spatial axes to one element each", node)
        if x.dtype not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            return NoMatch("it is not of float32 or float16, which all runtimes pool", node)
        return GateAverage(node, shape[2:])

    def rewrite(self, found: GateAverage, edit: Rewriter) -> None:
        node = found.node
        pool = edit.node("AveragePool", node.inputs[:1], {"kernel_shape": found.window}, name=node.name)
        edit.replace(node, pool)
