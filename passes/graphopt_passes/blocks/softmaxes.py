"""Softmax and LogSoftmax that an exporter wrote as sums of exponentials."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt_passes.blocks.activations import Activation, _Recognize
from graphopt_passes.blocks.terms import inner, read_only_by
from graphopt_passes.common.arguments import ints_argument, normalized_axes

# From this opset on Softmax normalizes along one axis; before, along all from it on.
_ONE_AXIS = 13


class RecognizeSoftmax(_Recognize):
    """Exp(x − m) / Σ Exp(x − m) = Softmax(x, axis), m = max(x), sum and maximum along one axis and kept.

    x is of any rank; before opset 13 the axis is the last one, where the operator means the same. So do exporters of
    JAX write it.

    Opsets: all. Exactness: reassociates. Source: ONNX operator Softmax.
    """

    roots = ("Div",)
    operator = ("Softmax", 1, "exp(x - max) / sum")
    for_doubles = True

    def find(self, node: Node, facts: Facts) -> Activation | None:
        total = inner(node.input(1), facts, "ReduceSum")
        exponentials = facts.producer(node.input(0), "Exp")
        if total is None or exponentials is None or total.input(0) is not exponentials.result:
            return None
        if not read_only_by(exponentials.result, (node, total)):
            return None
        shifted = inner(exponentials.input(0), facts, "Sub")
        x = _less_its_maximum(shifted, _axis(total, facts), facts) if shifted is not None else None
        return None if x is None else Activation(node, x, "Softmax", {"axis": _axis(total, facts)})


class RecognizeLogSoftmaxOfSums(_Recognize):
    """x − LogSumExp(x) = LogSoftmax(x, axis), and (x − m) − Log(Σ Exp(x − m)), m = max(x), along one axis that is kept.

    Opsets and axes as for `recognize-softmax`. Exactness: reassociates. Source: ONNX operators LogSoftmax,
    ReduceLogSumExp.
    """

    roots = ("Sub",)
    operator = ("LogSoftmax", 1, "x - log(sum(exp(x)))")
    for_doubles = True
    needs_finite = True

    def find(self, node: Node, facts: Facts) -> Activation | None:
        data, total = node.input(0), inner(node.input(1), facts, "ReduceLogSumExp", "Log")
        if data is None or total is None:
            return None
        if total.op == "ReduceLogSumExp":
            axis = _axis(total, facts)
            fits = axis is not None and total.input(0) is data
            return Activation(node, data, "LogSoftmax", {"axis": axis}) if fits else None
        added = inner(total.input(0), facts, "ReduceSum")
        exponentials = inner(added.input(0), facts, "Exp") if added is not None else None
        shifted = facts.producer(data, "Sub")
        if added is None or exponentials is None or shifted is None or exponentials.input(0) is not data:
            return None
        if not read_only_by(data, (node, exponentials)):
            return None
        axis = _axis(added, facts)
        x = _less_its_maximum(shifted, axis, facts)
        return None if x is None else Activation(node, x, "LogSoftmax", {"axis": axis})


def _axis(reduction: Node, facts: Facts) -> int | None:
    """The one axis of a reduction that keeps it, where Softmax of this opset works along that axis alone."""
    axes, rank = ints_argument(reduction, facts, "axes", 1), facts.rank(reduction.input(0))
    if axes is None or axes.values is None or rank is None or not reduction.int_attr("keepdims", 1):
        return None
    places = normalized_axes(axes.values, rank)
    if places is None or len(places) != 1:
        return None
    return places[0] if facts.opset(reduction) >= _ONE_AXIS or places[0] == rank - 1 else None


def _less_its_maximum(node: Node, axis: int | None, facts: Facts) -> Tensor | None:
    """x where `node` is x − max(x) along `axis`."""
    x, top = node.input(0), inner(node.input(1), facts, "ReduceMax")
    if axis is None or top is None or x is None or top.input(0) is not x:
        return None
    return x if _axis(top, facts) == axis else None
