"""Zeros that a recurrent operator takes for granted."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.uniform import is_positive_zero

# optional inputs that are "assumed to be 0" when left out: bias, initial states, peepholes
_ZERO_BY_DEFAULT = {"RNN": (3, 5), "GRU": (3, 5), "LSTM": (3, 5, 6, 7)}


@dataclass(frozen=True)
class ZeroInputs:
    """A recurrent node and the inputs that may be left out."""

    node: Node
    indices: tuple[int, ...]


class DropZeroStates(Rule[ZeroInputs]):
    """RNN, GRU, LSTM(x, W, R, 0, s, 0, 0, 0) = the same without the zeros.

    Bias, initial states and peepholes are "assumed to be 0" when left out (ONNX, operators RNN, GRU, LSTM). Exporters
    compute zero states of a dynamic batch from the shape of x; that goes too. Opset 7 on. Exact.
    """

    roots = tuple(_ZERO_BY_DEFAULT)

    def match(self, node: Node, facts: Facts) -> ZeroInputs | NoMatch:
        if facts.opset(node) < 7:
            return NoMatch("it is of an opset before 7", node)
        indices = tuple(i for i in _ZERO_BY_DEFAULT[node.op] if is_positive_zero(node.input(i), facts))
        return ZeroInputs(node, indices) if indices else NoMatch("no optional input is zero", node)

    def rewrite(self, found: ZeroInputs, edit: Rewriter) -> None:
        node = found.node
        absent = [i for i, t in enumerate(node.outputs) if t is None]
        made = edit.like(node, [None if i in found.indices else t for i, t in enumerate(node.inputs)])
        edit.replace(node, made)
        for index in absent:
            edit.drop_output(made, index)
