"""Partly known values of small integer tensors: shapes, their parts, and arithmetic on them.

`KnownValues.of(tensor)` gives the elements as far as they are sure: numbers, or symbols for what the run time decides.
A rewrite never changes the value of a tensor that stays, so what was found once holds for the tensor's lifetime; only
types that become better known are a reason to ask anew (`KnownValues` is then made again).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from graphopt.facts import Facts
from graphopt.graph import Array, Node, Tensor, numpy_dtype
from graphopt_passes.constants.symbols import Symbol, Symbols

# Tensors with more elements are no shapes.
MOST_ELEMENTS = 256
INTEGERS = frozenset({TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL})

Elements = npt.NDArray[Any]  # of dtype object, each an int, a bool or a Symbol


@dataclass(frozen=True, eq=False)
class Value:
    """What is known of a tensor's value: its ONNX dtype, its exact shape, its elements."""

    dtype: int
    elements: Elements

    @property
    def is_known(self) -> bool:
        """Whether every element is a number."""
        return not any(isinstance(e, Symbol) for e in self.elements.flat)

    @property
    def ints(self) -> tuple[int, ...] | None:
        """The elements, flattened, when all are numbers."""
        return tuple(int(e) for e in self.elements.flat) if self.is_known else None

    def array(self) -> Array:
        """The numbers as an array of the tensor's dtype; only of a value that is known."""
        return self.elements.astype(numpy_dtype(self.dtype))


class KnownValues:
    """The values of a model's tensors, computed on demand and remembered: O(nodes) over a whole run."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.symbols = Symbols()
        for tensor in facts.model.graph.inputs:
            self.symbols.note_count(tensor)
        self._memo: dict[Tensor, Value | None] = {}

    def of(self, tensor: Tensor | None) -> Value | None:
        """The value as far as it is known; None for what is no small tensor of integers or booleans."""
        if tensor is None:
            return None
        stack = [tensor]
        while stack:
            top = stack[-1]
            waiting = [] if top in self._memo else self._waits_for(top)
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            if top not in self._memo:
                self._note(top)
        return self._memo[tensor]

    def forget(self) -> None:
        """Values are computed anew from here on."""
        self._memo.clear()

    def _waits_for(self, tensor: Tensor) -> list[Tensor]:
        """What must be known first."""
        node = tensor.producer
        if tensor.constant is not None or node is None or not self._may_know(tensor, node):
            return []
        return [t for t in node.inputs if t is not None and t not in self._memo]

    def _may_know(self, tensor: Tensor, node: Node) -> bool:
        from graphopt_passes.constants.operators import EVALUATORS, SHAPE_READERS

        if tensor.dtype is not None and tensor.dtype not in INTEGERS:
            return False
        return node.op in EVALUATORS and node.op not in SHAPE_READERS

    def _note(self, tensor: Tensor) -> None:
        from graphopt_passes.constants.operators import EVALUATORS

        if tensor.constant is not None:
            self._memo[tensor] = self._constant(tensor)
            return
        node = tensor.producer
        if tensor.dtype is not None and tensor.dtype not in INTEGERS:
            self._memo[tensor] = None
            return
        evaluate = EVALUATORS.get(node.op) if node is not None else None
        found = evaluate(node, self) if evaluate is not None and node is not None else None
        for index, output in enumerate(node.outputs if node is not None else ()):
            if output is not None and output is not tensor and found is not None:
                self._memo.setdefault(output, self._checked(output, found[index]))
        mine = found[node.outputs.index(tensor)] if found is not None and node is not None else None
        self._memo[tensor] = self._checked(tensor, mine)

    def _checked(self, tensor: Tensor, value: Value | None) -> Value | None:
        """The value when it agrees with what inference says of the tensor; else one symbol an element."""
        shape = self.facts.static_shape(tensor)
        if value is not None and value.elements.size <= MOST_ELEMENTS and value.dtype in INTEGERS:
            agrees = shape is None or shape == value.elements.shape
            if agrees and (tensor.dtype is None or tensor.dtype == value.dtype):
                return Value(value.dtype, self._in_range(value))
        return self._opaque(tensor, shape)

    def _opaque(self, tensor: Tensor, shape: tuple[int, ...] | None) -> Value | None:
        if shape is None or tensor.dtype not in INTEGERS or int(np.prod(shape, dtype=object)) > MOST_ELEMENTS:
            return None
        elements = np.empty(shape, object)
        for position in range(elements.size):
            elements.flat[position] = self.symbols.opaque(tensor, position)
        return Value(int(tensor.dtype), elements)

    def _in_range(self, value: Value) -> Elements:
        """Numbers that the dtype does not hold wrap at run time: left to it."""
        if value.dtype == TensorProto.BOOL:
            return value.elements
        limits = np.iinfo(numpy_dtype(value.dtype))
        result = value.elements
        for position, element in enumerate(value.elements.flat):
            if not isinstance(element, Symbol) and not limits.min <= element <= limits.max:
                result = result.copy() if result is value.elements else result
                result.flat[position] = self.symbols.expression("wrapped", (element, value.dtype))
        return result

    def _constant(self, tensor: Tensor) -> Value | None:
        constant = tensor.constant
        if constant is None or constant.dtype not in INTEGERS or constant.size > MOST_ELEMENTS:
            return None
        array = constant.array()
        elements = np.empty(array.shape, object)
        for position, element in enumerate(array.flat):
            elements.flat[position] = element.item()
        return Value(constant.dtype, elements)


_VALUES: WeakKeyDictionary[Facts, KnownValues] = WeakKeyDictionary()


def known_values(facts: Facts) -> KnownValues:
    """The values known so far in the model of `facts`."""
    values = _VALUES.get(facts)
    if values is None:
        values = _VALUES[facts] = KnownValues(facts)
    return values


def forget_values(facts: Facts) -> None:
    """Called when types became better known: values are found anew. Symbols stay what they are."""
    if facts in _VALUES:
        _VALUES[facts].forget()
