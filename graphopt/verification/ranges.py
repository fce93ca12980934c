"""Which numbers a model's inputs may take: what indexes an embedding stays within its table.

A backward pass: each operator says what it needs of its inputs, given what is needed of its outputs; the needs
of a graph input are what may be drawn for it. The rules, one per operator, are in `range_rules`. They are hints:
whoever draws checks that the model runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference

from graphopt.graph import import_model
from graphopt.propagation import is_bounded
from graphopt.verification import source
from graphopt.verification.interface import Dim
from graphopt.verification.values import Array

_SMALL = 1024  # bytes up to which a constant's numbers are looked at


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; None where nothing is known.

    `below` names symbolic dimensions that the number must stay below, as an index into them does. `is_target` says
    that the numbers are the shape that a Reshape makes, so that their product matters.
    """

    low: float | None = None
    high: float | None = None
    below: tuple[str, ...] = ()
    is_target: bool = False

    def __and__(self, other: Range) -> Range:
        """What satisfies both; where nothing does, this one."""
        low = _pick(max, self.low, other.low)
        high = _pick(min, self.high, other.high)
        if low is not None and high is not None and low > high:
            return self
        below = tuple(dict.fromkeys(self.below + other.below))
        return Range(low, high, below, self.is_target or other.is_target)

    def plus(self, offset: float) -> Range:
        """The range moved by an offset; symbolic limits are kept only where it moves up."""
        low = None if self.low is None else self.low + offset
        high = None if self.high is None else self.high + offset
        return Range(low, high, self.below if offset <= 0 else ())

    def times(self, factor: float) -> Range:
        """The range stretched by a factor that is not 0."""
        ends = [None if end is None else end * factor for end in (self.low, self.high)]
        low, high = ends if factor > 0 else reversed(ends)
        return Range(low, high, self.below if factor == 1 else ())

    def resolved(self, dims: Mapping[str, int]) -> tuple[float | None, float | None]:
        """Both ends with the symbolic dimensions' values put in."""
        ends = [self.high, *(dims[symbol] - 1 for symbol in self.below if symbol in dims)]
        known = [end for end in ends if end is not None]
        return self.low, min(known) if known else None


ANY = Range()


def _pick(choose: Any, one: float | None, other: float | None) -> float | None:
    known = [end for end in (one, other) if end is not None]
    return choose(known) if known else None


def indices_into(dims: Sequence[Dim]) -> Range:
    """Numbers that index each of these dimensions; of unknown ones only 0 is sure."""
    limits = [dim for dim in dims if isinstance(dim, int)]
    high = float(min(limits) - 1) if limits else None
    if any(dim is None for dim in dims):
        high = 0.0
    return Range(0, high, tuple(dim for dim in dims if isinstance(dim, str)))


@dataclass(frozen=True)
class NodeView:
    """A node as its rule sees it: its attributes, what is known of its inputs and needed of its outputs."""

    node: onnx.NodeProto
    facts: _Facts
    needs: Mapping[str, Range]

    def need(self, output: int = 0) -> Range:
        """What is needed of an output."""
        return self.needs.get(self.node.output[output], ANY) if output < len(self.node.output) else ANY

    def name(self, slot: int) -> str:
        """The name of an input; empty when it is left out."""
        return self.node.input[slot] if slot < len(self.node.input) else ""

    def constant(self, slot: int) -> Array | None:
        """The numbers of a small constant input."""
        return self.facts.constants.get(self.name(slot))

    def scalar(self, slot: int) -> float | None:
        """The number of a constant input all of whose elements are equal, as a broadcast scalar's are."""
        value = self.constant(slot)
        if value is None or value.size == 0 or value.dtype.kind not in "fiu" or (value != value.flat[0]).any():
            return None
        return float(value.flat[0])

    def dims(self, slot: int) -> list[Dim] | None:
        """The dimensions of an input; None without a known rank."""
        return self.facts.dims.get(self.name(slot))

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                return onnx.helper.get_attribute_value(attribute)
        return default


@dataclass
class _Facts:
    constants: dict[str, Array] = field(default_factory=dict)
    dims: dict[str, list[Dim]] = field(default_factory=dict)


def infer_ranges(proto: onnx.ModelProto) -> dict[str, Range]:
    """For each input of the main graph (initializers included) the range that keeps the model running.

    Linear in the nodes, control-flow bodies and inlined functions included. Never raises for a valid model: what
    cannot be inferred is not limited.
    """
    from graphopt.verification.range_rules import RULES

    thin = with_shapes(proto)
    facts = _facts(thin)
    needs: dict[str, Range] = {}

    def require(name: str, wanted: Range) -> None:
        if name and wanted != ANY:
            needs[name] = wanted & needs.get(name, ANY)

    for event, node in _backward(thin.graph):
        if event == "leave":
            for outer, inner in _body_inputs(node):
                require(outer, needs.get(inner, ANY))
            continue
        for outer, inner in _body_outputs(node):
            require(inner, needs.get(outer, ANY))
        rule = RULES.get(node.op_type)
        if rule is not None:
            view = NodeView(node, facts, needs)
            for slot, wanted in rule(view):
                require(view.name(slot), wanted)
    return {value.name: needs.get(value.name, ANY) for value in thin.graph.input}


def with_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model without weights, its functions inlined, its shapes inferred as far as onnx can."""
    thin = source.skeleton(proto)
    try:
        thin = source.written_out(thin)
        return onnx.shape_inference.infer_shapes(thin, data_prop=is_bounded(import_model(thin)))
    except Exception:  # it raises several kinds without a common base; shapes are a hint here
        return thin


def _facts(thin: onnx.ModelProto) -> _Facts:
    from graphopt.verification.interface import dims

    facts = _Facts()
    for graph in source.graphs(thin):
        for tensor in graph.initializer:
            facts.dims[tensor.name] = list(tensor.dims)
            _keep(facts, tensor.name, tensor)
        for value in (*graph.input, *graph.value_info, *graph.output):
            known = dims(value)
            if known is not None:
                facts.dims.setdefault(value.name, known)
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                _keep_constant(facts, node)
    for value in thin.graph.input:  # a default that may be overridden is not constant
        facts.constants.pop(value.name, None)
    return facts


def _keep(facts: _Facts, name: str, tensor: onnx.TensorProto) -> None:
    if source.is_external(tensor) or tensor.ByteSize() > _SMALL:
        return
    try:
        facts.constants[name] = onnx.numpy_helper.to_array(tensor)
    except Exception:  # malformed tensors are the checker's to report
        return


def _keep_constant(facts: _Facts, node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "value":
            facts.dims.setdefault(node.output[0], list(attribute.t.dims))
            _keep(facts, node.output[0], attribute.t)
        elif attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
            facts.constants[node.output[0]] = np.asarray(onnx.helper.get_attribute_value(attribute))


def _backward(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    """Nodes last to first; a node with bodies is entered, then its bodies' nodes come, then it is left."""
    stack: list[tuple[str, onnx.NodeProto]] = [("enter", node) for node in graph.node]
    while stack:
        event, node = stack.pop()
        yield event, node
        inner = source.bodies(node) if event == "enter" else []
        if inner:
            stack.append(("leave", node))
            stack.extend(("enter", below) for body in inner for below in body.node)


def _body_outputs(node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    """Pairs of a control-flow node's output and the body's output that becomes it."""
    for body in source.bodies(node):
        skipped = 1 if node.op_type == "Loop" else 0  # the loop's condition
        for outer, inner in zip(node.output, list(body.output)[skipped:], strict=False):
            yield outer, inner.name


def _body_inputs(node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    """Pairs of a control-flow node's input and the body's input that takes it, whole or slice by slice."""
    if node.op_type in ("Loop", "Scan"):
        for body in source.bodies(node):
            outer, inner = list(node.input), [value.name for value in body.input]
            if node.op_type == "Loop":
                outer, inner = outer[2:], inner[2:]
            yield from zip(outer, inner, strict=False)
