"""Padding: a Pad moves into the windowed operator behind it, automatic pads become numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt_passes.common.arguments import Padding, padding
from graphopt_passes.common.folding import FLOATS
from graphopt_passes.vertical.geometry import Window, window

# The least number that an operator makes, or less; by calculus for the last four.
_LEAST = {
    "Relu": 0.0,
    "Sigmoid": 0.0,
    "HardSigmoid": 0.0,
    "Softplus": 0.0,
    "Softmax": 0.0,
    "Exp": 0.0,
    "Abs": 0.0,
    "Tanh": -1.0,
    "HardSwish": -0.376,
    "Mish": -0.309,
    "Gelu": -0.1701,
}


def _least(tensor: Tensor | None) -> float:
    """A number that no element of the tensor is below. The magnitude of an integer's least is that least again."""
    if tensor is None or tensor.producer is None or tensor.dtype not in FLOATS:
        return -math.inf
    return _LEAST.get(tensor.producer.op, -math.inf)


@dataclass(frozen=True)
class PaddedWindow:
    """`node` reads what `pad` makes; `pads` are both together."""

    pad: Node
    node: Node
    pads: tuple[int, ...]


class _FoldPad(Rule[PaddedWindow]):
    """f(Pad(x, p), pads=q) = f(x, pads=p + q)."""

    def match(self, node: Node, facts: Facts) -> PaddedWindow | NoMatch:
        pad = facts.sole_producer(node.input(0), "Pad")
        if pad is None:
            return NoMatch("its input is no Pad that it reads alone", node)
        added, value = padding(pad, facts), pad_value(pad, facts)
        if added is None or value is None:
            return NoMatch("the pads are computed at run time", pad)
        if added.mode != "constant" or min((*added.before, *added.after)) < 0:
            return NoMatch("the Pad reflects, repeats or crops", pad)
        if any((*added.before[:2], *added.after[:2])) or len(added.before) < 3:
            return NoMatch("the Pad enlarges the batch or the channels", pad)
        weight = node.input(1) if node.op in ("Conv", "ConvInteger") else None
        kernel = weight.shape[2:] if weight is not None and weight.shape is not None else ()
        numbers = tuple(k for k in kernel if isinstance(k, int))
        found = window(node, numbers if kernel and len(numbers) == len(kernel) else None)
        if found is None or len(found.kernel) != len(added.before) - 2:
            return NoMatch("its own pads are automatic", node)
        problem = self.problem(node, pad, value, found)
        if problem is not None:
            return problem
        return PaddedWindow(pad, node, _sum(added, found))

    def problem(self, node: Node, pad: Node, value: float, own: Window) -> NoMatch | None:
        """What keeps this operator from padding with `value` by itself."""
        raise NotImplementedError

    def rewrite(self, found: PaddedWindow, edit: Rewriter) -> None:
        node = found.node
        inputs = [found.pad.inputs[0], *node.inputs[1:]]
        edit.replace(node, edit.like(node, inputs, pads=found.pads, auto_pad=None, **self.attributes(node)))

    def attributes(self, node: Node) -> dict[str, int]:
        """Further attributes that the operator takes on with the pads."""
        return {}


class FoldPadIntoConv(_FoldPad):
    """Conv(Pad(x, p, 0), pads=q) = Conv(x, pads=p + q), p zeros on the spatial axes.

    Opsets: all. Exactness: reassociates. Source: ONNX operators Pad, Conv.
    """

    roots = ("Conv",)
    exactness = Exactness.REASSOCIATES

    def problem(self, node: Node, pad: Node, value: float, own: Window) -> NoMatch | None:
        return None if value == 0 else NoMatch("it pads with another value than zero", pad)


class FoldPadIntoConvInteger(_FoldPad):
    """ConvInteger(Pad(x, p, 0), pads=q) = ConvInteger(x, pads=p + q), x without a zero point or with 0.

    Opsets: 10 on. Exactness: exact. Source: ONNX operators Pad, ConvInteger.
    """

    roots = ("ConvInteger",)

    def match(self, node: Node, facts: Facts) -> PaddedWindow | NoMatch:
        if node.input(2) is not None and facts.scalar(node.input(2)) != 0:
            return NoMatch("its zero point is not known to be 0", node)
        return super().match(node, facts)

    def problem(self, node: Node, pad: Node, value: float, own: Window) -> NoMatch | None:
        return None if value == 0 else NoMatch("it pads with another value than zero", pad)


class FoldPadIntoAveragePool(_FoldPad):
    """AveragePool(Pad(x, p, 0), pads=q) = AveragePool(x, pads=p + q, count_include_pad=1), q counted or zero.

    Pads must be smaller than the kernel, as runtimes ask for.

    Opsets: 7 on (count_include_pad). Exactness: reassociates. Source: ONNX operators Pad, AveragePool.
    """

    roots = ("AveragePool",)
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> PaddedWindow | NoMatch:
        if facts.opset(node) < 7:
            return NoMatch("before opset 7 an average cannot count its pads", node)
        found = super().match(node, facts)
        return found if isinstance(found, NoMatch) else _within_kernel(found)

    def problem(self, node: Node, pad: Node, value: float, own: Window) -> NoMatch | None:
        if value != 0:
            return NoMatch("it pads with another value than zero", pad)
        if node.int_attr("ceil_mode", 0):
            return Refused("windows that reach over the end (ceil_mode) count their pads in their own way", node)
        if any(own.pads) and not node.int_attr("count_include_pad", 0):
            return Refused("the average counts the Pad's zeros, but not its own pads", node)
        return None

    def attributes(self, node: Node) -> dict[str, int]:
        return {"count_include_pad": 1}


class FoldPadIntoMaxPool(_FoldPad):
    """MaxPool(Pad(x, p, v), pads=q) = MaxPool(x, pads=p + q), v = −∞, or at most what x holds at least.

    What x holds at least is known where a rectifier or the like makes it. Pads must be smaller than the kernel (so that
    each window sees an element of x), the kernel not dilated.

    Opsets: all. Exactness: exact. Source: ONNX operators Pad, MaxPool.
    """

    roots = ("MaxPool",)
    needs_finite = True  # ONNX Runtime's MaxPool passes NaN over, so that a pad may become the maximum

    def match(self, node: Node, facts: Facts) -> PaddedWindow | NoMatch:
        found = super().match(node, facts)
        return found if isinstance(found, NoMatch) else _within_kernel(found)

    def problem(self, node: Node, pad: Node, value: float, own: Window) -> NoMatch | None:
        if value != -math.inf and not value <= _least(pad.inputs[0]):
            return NoMatch("it pads with a value that may be a maximum", pad)
        if node.int_attr("ceil_mode", 0) or node.output(1) is not None:
            return Refused("its indices or its windows over the end (ceil_mode) count the padding", node)
        if any(d != 1 for d in own.dilations):
            return Refused("a dilated window may lie between the elements of the data", node)
        return None


class MakePadsExplicit(Rule[PaddedWindow]):
    """auto_pad = SAME_UPPER or SAME_LOWER as numbers, for a static input: p⁻ + p⁺ = (⌈L/s⌉ − 1)·s + extent − L.

    The odd one goes behind (UPPER) or before (LOWER). A negative sum and a dilated pool are refused. VALID is no pads.

    Opsets: all. Exactness: exact. Source: ONNX operator Conv, attribute auto_pad.
    """

    roots = ("Conv", "MaxPool", "AveragePool")

    def match(self, node: Node, facts: Facts) -> PaddedWindow | NoMatch:
        auto, shape = node.str_attr("auto_pad", "NOTSET"), facts.static_shape(node.input(0))
        if auto not in ("SAME_UPPER", "SAME_LOWER"):
            return NoMatch("its pads are no matter of the input's shape", node)
        weight = node.input(1) if node.op == "Conv" else None
        kernel = facts.static_shape(weight)[2:] if weight is not None and facts.static_shape(weight) else None  # type: ignore[index]
        kernel = kernel or node.ints_attr("kernel_shape")
        if shape is None or kernel is None or len(shape) != len(kernel) + 2 or node.int_attr("ceil_mode", 0):
            return NoMatch("the input's shape is not static", node)
        strides = node.ints_attr("strides") or (1,) * len(kernel)
        dilations = node.ints_attr("dilations") or (1,) * len(kernel)
        before, after = [], []
        if node.op != "Conv" and any(k > 1 and d > 1 for k, d in zip(kernel, dilations, strict=True)):
            return Refused("ONNX Runtime pads a dilated pool as one that is not dilated", node)
        for length, k, s, d in zip(shape[2:], kernel, strides, dilations, strict=True):
            total = (-(-length // s) - 1) * s + d * (k - 1) + 1 - length
            if total < 0:
                return Refused(
                    "a stride larger than the kernel asks for negative pads, which runtimes read differently", node
                )
            smaller, larger = total // 2, total - total // 2
            before.append(smaller if auto == "SAME_UPPER" else larger)
            after.append(larger if auto == "SAME_UPPER" else smaller)
        return PaddedWindow(node, node, (*before, *after))

    def rewrite(self, found: PaddedWindow, edit: Rewriter) -> None:
        edit.replace(found.node, edit.like(found.node, pads=found.pads, auto_pad=None))


def pad_value(pad: Node, facts: Facts) -> float | None:
    """The number that a Pad fills with: an attribute before opset 11, an input from then on; None when computed."""
    tensor: Tensor | None = pad.input(2)
    if tensor is None:
        return pad.float_attr("value", 0.0)
    value = facts.scalar(tensor)
    return None if value is None else float(value)


def _sum(added: Padding, own: Window) -> tuple[int, ...]:
    before = [a + b for a, b in zip(added.before[2:], own.before, strict=True)]
    return (*before, *[a + b for a, b in zip(added.after[2:], own.after, strict=True)])


def _within_kernel(found: PaddedWindow) -> PaddedWindow | NoMatch:
    kernel = found.node.ints_attr("kernel_shape") or ()
    if all(p < k for p, k in zip(found.pads, kernel * 2, strict=True)):
        return found
    return Refused("the pads would be as large as the window, which runtimes do not take", found.node)
