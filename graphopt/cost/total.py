"""Figures of a whole graph: parameters, arithmetic, traffic, predicted time, peak activation memory."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.cost.arithmetic import FREE
from graphopt.cost.estimate import estimate, run_seconds
from graphopt.cost.setting import Setting
from graphopt.graph import Graph, Model, Node, Tensor, bits_of


@dataclass(frozen=True)
class GraphCost:
    """Figures of a graph in one setting. `parameters` counts numbers, `parameter_bytes` and the others bytes.

    `peak_activation_bytes` is the most that tensors which nodes make take at one time when the nodes run in order and
    each tensor goes after its last reader; graph inputs and constants are not among them.
    """

    parameters: int
    parameter_bytes: int
    flops: float
    read: float
    written: float
    kernels: int
    seconds: float
    peak_activation_bytes: float


def graph_cost(model: Model, setting: Setting) -> GraphCost:
    """The figures of `model`'s main graph, bodies included. No weight is read."""
    total = estimate(model.graph.nodes, setting)
    constants = [t for graph in model.graphs() for t in _constants(graph)]
    return GraphCost(
        parameters=sum(t.constant.size for t in constants if t.constant is not None),
        parameter_bytes=sum(t.constant.nbytes for t in constants if t.constant is not None),
        flops=total.flops,
        read=total.read,
        written=total.written,
        kernels=total.kernels,
        seconds=run_seconds(total, setting),
        peak_activation_bytes=peak_activation(model.graph, setting),
    )


def _constants(graph: Graph) -> list[Tensor]:
    """The constants of a graph that are used and hold numbers of at most 16 bits or floats: weights, not shapes."""
    made = [t for n in graph.nodes if n.op == "Constant" for t in n.outputs if t is not None]
    return [t for t in (*graph.initializers, *made) if t.constant is not None and _is_weight(t.constant.dtype)]


def _is_weight(dtype: int) -> bool:
    bits = bits_of(dtype)
    return bits is not None and (bits <= 16 or dtype in (1, 11))  # FLOAT, DOUBLE


def peak_activation(graph: Graph, setting: Setting) -> float:
    """Bytes of the tensors alive at the busiest moment; a view (Reshape and its kin) shares its input's bytes."""
    order = graph.sorted_nodes()
    roots: dict[Tensor, Tensor] = {}
    last: dict[Tensor, int] = {}
    for index, node in enumerate(order):
        for tensor in _reads(node):
            last[_root(tensor, roots)] = index
        if node.op in FREE and node.inputs and node.inputs[0] is not None:
            for made in node.outputs:
                if made is not None:
                    roots[made] = _root(node.inputs[0], roots)
    forever = {_root(t, roots) for t in graph.outputs}
    leaving: dict[int, list[Tensor]] = {}
    for tensor, index in last.items():
        leaving.setdefault(index, []).append(tensor)
    return _walk(order, roots, forever, leaving, setting)


def _walk(
    order: list[Node],
    roots: dict[Tensor, Tensor],
    forever: set[Tensor],
    leaving: dict[int, list[Tensor]],
    setting: Setting,
) -> float:
    alive = peak = 0.0
    held: dict[Tensor, float] = {}
    for index, node in enumerate(order):
        for tensor in node.outputs:
            if tensor is not None and tensor not in roots and tensor.constant is None:
                held[tensor] = setting.nbytes(tensor)
                alive += held[tensor]
        inner = max((peak_activation(body, setting) for body in node.subgraphs()), default=0.0)
        peak = max(peak, alive + inner)
        for tensor in leaving.get(index, ()):
            if tensor not in forever:
                alive -= held.pop(tensor, 0.0)
        for made in node.outputs:  # what nothing reads goes at once
            if made is not None and not made.is_used:
                alive -= held.pop(made, 0.0)
    return peak


def _root(tensor: Tensor, roots: dict[Tensor, Tensor]) -> Tensor:
    return roots.get(tensor, tensor)


def _reads(node: Node) -> list[Tensor]:
    """What a node, bodies included, reads."""
    found = [t for t in node.inputs if t is not None]
    for body in node.subgraphs():
        found += body.outputs
        for inner in body.nodes:
            found += _reads(inner)
    return found
