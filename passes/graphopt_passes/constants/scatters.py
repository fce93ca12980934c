"""Scatters that write every row."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rule import NoMatch
from graphopt_passes.common.arguments import ints_argument
from graphopt_passes.constants.values import known_values
from graphopt_passes.dead_layers.wires import NoOp


class DropFullScatter(NoOp):
    """ScatterND(d, [[0], [1], ..., [n-1]], u) = u where u has the shape of d, [n, ...].

    Row i of u is written to row i of d, for every i, in order. The indices are constant, or Unsqueeze(Range(0, n, 1))
    with n the size of d's first dimension, a number or a symbol. Without a reduction. Opset 11 on. Exact.
    """

    roots = ("ScatterND",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        data, indices, updates = node.input(0), node.input(1), node.input(2)
        if data is None or indices is None or updates is None or not data.shape:
            return NoMatch("the shape of its data is unknown", node)
        if node.str_attr("reduction", "none") != "none":
            return NoMatch("it combines what it writes with what is there", node)
        if not facts.same_shape(data, updates) or not facts.same_type(data, updates):
            return NoMatch("what it writes may have another shape than its data", node)
        if _counts_rows(indices, data, facts) or _ranges_over_rows(indices, data, facts):
            return updates
        return NoMatch("its indices may not be those of all rows in order", node)


def _counts_rows(indices: Tensor, data: Tensor, facts: Facts) -> bool:
    """Whether the indices are the constant [[0], [1], ..., [n-1]]."""
    assert data.shape is not None
    rows = data.shape[0]
    if not isinstance(rows, int) or facts.static_shape(indices) != (rows, 1):
        return False
    return facts.ints(indices) == tuple(range(rows))


def _ranges_over_rows(indices: Tensor, data: Tensor, facts: Facts) -> bool:
    """Whether the indices are Unsqueeze(Range(0, n, 1)) along the last axis, n the number of rows."""
    made = facts.producer(indices, "Unsqueeze")
    axes = ints_argument(made, facts, "axes", 1) if made is not None else None
    if made is None or axes is None or axes.values not in ((1,), (-1,)):
        return False
    counting = facts.producer(made.input(0), "Range")
    if counting is None or facts.scalar(counting.input(0)) != 0 or facts.scalar(counting.input(2)) != 1:
        return False
    values = known_values(facts)
    limit = values.of(counting.input(1))
    if limit is None or limit.elements.size != 1:
        return False
    rows, last = values.symbols.dimension(data, 0), limit.elements.flat[0]
    return rows is last or (isinstance(rows, int) and isinstance(last, int) and rows == last)
