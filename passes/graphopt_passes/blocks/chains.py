"""Blocks: a Conv, ConvTranspose, Gemm or MatMul, its bias, a residual sum, and the activation behind them."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt_passes.blocks.activations import RecognizeGelu, RecognizeHardSwish, RecognizeMish, RecognizeSwish
from graphopt_passes.blocks.terms import inner, read_only_by
from graphopt_passes.vertical.linear import linear_at

SIMPLE = (
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Clip",
    "Sigmoid",
    "Tanh",
    "HardSigmoid",
    "HardSwish",
    "Swish",
    "Mish",
    "Gelu",
    "Elu",
    "Selu",
    "Celu",
    "Softplus",
)
COMPOSITE = (RecognizeSwish(), RecognizeHardSwish(), RecognizeMish(), RecognizeGelu())
ENDS = (*SIMPLE, "Mul", "Div")
# Longest spelling of an activation that is looked at.
_MOST_NODES = 16


@dataclass(frozen=True)
class Block:
    """`linear`, the Add of a bias or residual, and the activation's nodes, in the order in which they are computed.

    `activation` is its operator, also where it is spelled as arithmetic. `residual` is what is added, None without.
    """

    nodes: tuple[Node, ...]
    activation: str
    residual: Tensor | None

    @property
    def linear(self) -> Node:
        """The Conv, ConvTranspose, Gemm or MatMul."""
        return self.nodes[0]

    @property
    def last(self) -> Node:
        """The node that makes the block's result."""
        return self.nodes[-1]

    @property
    def name(self) -> str:
        """What the block is made of, such as "ConvAddRelu"."""
        return f"{self.linear.op}{'Add' if self.residual is not None else ''}{self.activation}"


def block_at(node: Node, facts: Facts) -> Block | None:
    """The block that ends at `node`, an activation or the last node of one; None when there is none."""
    found = _activation(node, facts)
    if found is None:
        return None
    name, x, nodes = found
    if not read_only_by(x, nodes) or x.graph is not node.graph:
        return None
    producer = x.producer
    if producer is None or producer.graph is not node.graph:
        return None
    if producer.op in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return Block((producer, *nodes), name, None) if linear_at(producer, facts) is not None else None
    if producer.op != "Add" or len(producer.inputs) != 2:
        return None
    biased = linear_at(producer, facts)
    if biased is not None:
        return Block((biased.node, producer, *nodes), name, None)
    for i in (0, 1):
        linear = inner(producer.input(i), facts, "Conv", "ConvTranspose", "Gemm", "MatMul", "Add")
        view = linear_at(linear, facts) if linear is not None else None
        residual = producer.inputs[1 - i]
        if view is not None and residual is not None and residual is not producer.inputs[i]:
            start = (view.node,) if view.node is view.last else (view.node, view.last)
            return Block((*start, producer, *nodes), name, residual)
    return None


def _activation(node: Node, facts: Facts) -> tuple[str, Tensor, tuple[Node, ...]] | None:
    """The activation's name, its input, and its nodes in order."""
    if node.op in SIMPLE:
        x = node.input(0)
        others = node.inputs[1:]
        constant = all(t is None or facts.is_constant(t) for t in others)
        return (node.op, x, (node,)) if x is not None and constant and len(node.outputs) == 1 else None
    for rule in COMPOSITE:
        if node.op in rule.roots:
            found = rule.find(node, facts)
            if found is not None:
                nodes = _between(found.x, node)
                return (found.op, found.x, nodes) if nodes else None
    return None


def _between(x: Tensor, last: Node) -> tuple[Node, ...]:
    """The nodes from `x` to `last`, in the order of the graph."""
    nodes: dict[Node, None] = {}
    stack = [last]
    while stack and len(nodes) <= _MOST_NODES:
        node = stack.pop()
        nodes[node] = None
        stack.extend(_before(node, x))
    if len(nodes) > _MOST_NODES:
        return ()
    order: list[Node] = []
    _visit(last, x, order)
    return tuple(order)


def _visit(node: Node, x: Tensor, order: list[Node]) -> None:
    """Appends `node` behind all that it reads, back to `x`; at most `_MOST_NODES` deep."""
    for before in _before(node, x):
        _visit(before, x, order)
    if node not in order:
        order.append(node)


def _before(node: Node, x: Tensor) -> list[Node]:
    """The nodes that make what `node` reads, x and constants aside."""
    read = [t for t in node.inputs if t is not None and t is not x and t.constant is None]
    return [t.producer for t in read if t.producer is not None]
