"""Which nodes can be computed at compile time, and which of their results are worth keeping.

A node is computable when its operator is deterministic and all it reads is constant or made by computable nodes. Its
results are kept when they make the model no larger than allowed; a node whose result is not kept stays, and reads the
kept results of the nodes before it. All sizes are known before anything is computed: unknown means no.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, defs

from graphopt.facts import Facts
from graphopt.graph import Constant, Graph, Node, Shape, Tensor, bits_of, numpy_dtype
from graphopt.node_types import infer_node
from graphopt_passes.constants.evaluator import READABLE
from graphopt_passes.constants.lazily import lazily
from graphopt_passes.constants.resizes import is_settled

# Constants above this are read only by what is sure to shrink them, or when the model is saved.
BIG_BYTES = 1 << 20
# What is computed on the way to a small result may be larger than the result, up to this.
MOST_WORK_BYTES = 1 << 26
# All results together may make a graph larger by this many times what one of them may; else only those are kept that
# are this part of it or less.
TOTAL_GROWTH = 16
SMALL_PART = 64

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
# Dropout is another family's. ONNX Runtime computes what is folded, and its Attention has forms that differ from ONNX's
# definition: what the runtime does at run time is its own affair, in the model it would be ours.
_LEFT_ALONE = {"Attention", "Constant", "Dropout"}
# What ends the process in ONNX Runtime where an input has no elements.
_DIES_OF_NOTHING = frozenset({"GRU", "InstanceNormalization", "LSTM", "RNN", "Unique"})
# And where an output is absent that is not the last.
_DIES_OF_ABSENCE = frozenset({"BatchNormalization", "Split"})
# Operators whose outputs have, all together, no more elements than their inputs; times the rank for NonZero.
_BOUNDED = frozenset({"Compress", "NonZero", "Unique", "SequenceConstruct", "SplitToSequence", "SequenceAt"})


@dataclass
class Plan:
    """What to compute in one graph, in topological order, and what to keep of it.

    `lazy` are results that need no computing now; `refusals` say why a computable node stays. `growth` is the number of
    bytes by which all results make the model larger.
    """

    nodes: list[Node] = field(default_factory=list)
    kept: list[Tensor] = field(default_factory=list)
    lazy: dict[Tensor, Constant] = field(default_factory=dict)
    refusals: dict[Node, str] = field(default_factory=dict)
    growth: int = 0


def make_plan(graph: Graph, facts: Facts, max_growth: int) -> Plan:
    """The plan for `graph`, where one result may make the model larger by `max_growth` bytes.

    When all results together would make it larger by more than `TOTAL_GROWTH` times that, none of the larger ones is
    kept: a choice of some would let the next run take the rest.
    """
    computable = _Computable(graph, facts)
    for node in graph.sorted_nodes():
        computable.add(node)
    plan = _Choice(computable, max_growth).plan()
    if plan.growth > TOTAL_GROWTH * max_growth:
        plan = _Choice(computable, max_growth // SMALL_PART).plan()
    return plan


class _Computable:
    """The computable nodes of one graph with the sizes of what they make."""

    def __init__(self, graph: Graph, facts: Facts) -> None:
        self.facts = facts
        self.opset = graph.opset
        self.ir_version = max(graph.model.ir_version, 3)
        self.nodes: list[Node] = []
        self.nbytes: dict[Tensor, int] = {}
        # bytes of initializers that would go with the node: those that nothing else reads
        self.freed: dict[Node, int] = {}
        self.lazy: dict[Tensor, Constant] = {}
        # floats that come from DequantizeLinear: only what is quantized again may be folded
        self.dequantized: set[Tensor] = set()

    def add(self, node: Node) -> None:
        """Notes `node` when it is computable. Nodes come in topological order."""
        inputs = [t for t in node.inputs if t is not None]
        for tensor in inputs:
            if tensor.constant is None and tensor not in self.nbytes:
                return
        if node.op in _DIES_OF_NOTHING and any(self._size(t) == 0 for t in inputs):
            return
        if node.op in _DIES_OF_ABSENCE and None in node.outputs:
            return
        if not _is_deterministic(node, self.facts) or not any(t is not None and t.is_used for t in node.outputs):
            return
        sizes = self._sizes(node, inputs)
        if sizes is None:
            return
        work = sum(sizes.values())
        if work > MOST_WORK_BYTES and work > sum(self._size(t) for t in dict.fromkeys(inputs)):
            return
        lazy = self._lazily(node, inputs)
        if lazy is None and any(t in self.lazy for t in inputs):
            return
        self.nodes.append(node)
        self.nbytes.update(sizes)
        self.freed[node] = sum(self._freed_by(t) for t in dict.fromkeys(inputs))
        if lazy is not None:
            self.lazy[node.result] = lazy
        if node.op == "DequantizeLinear" or any(t in self.dequantized for t in inputs):
            self.dequantized.update(t for t in sizes if t.dtype in _FLOATS)

    def _constant(self, tensor: Tensor) -> Constant | None:
        return tensor.constant if tensor.constant is not None else self.lazy.get(tensor)

    def _size(self, tensor: Tensor) -> int:
        return tensor.constant.nbytes if tensor.constant is not None else self.nbytes[tensor]

    def _freed_by(self, tensor: Tensor) -> int:
        """Bytes that go with the tensor; none of a node whose other results may stay."""
        if tensor.listings or len(tensor.consumers) != 1:
            return 0
        if tensor.constant is not None:
            return tensor.constant.nbytes
        assert tensor.producer is not None
        return self.freed[tensor.producer] if _used(tensor.producer) == [tensor] else 0

    def _lazily(self, node: Node, inputs: list[Tensor]) -> Constant | None:
        data = self._constant(inputs[0]) if inputs else None
        shape = self.facts.static_shape(node.output(0))
        if data is None or data.nbytes <= BIG_BYTES or shape is None or math.prod(shape) != data.size:
            return None
        return lazily(node, data, shape, self.facts)

    def _sizes(self, node: Node, inputs: list[Tensor]) -> dict[Tensor, int] | None:
        """Bytes of each output; None when one is unknown, or the operator would read big weights to make more."""
        outputs = [t for t in node.outputs if t is not None]
        if all(t.constant is not None for t in inputs):
            self._infer(node)
        found = {t: nbytes_of(t.dtype, t.shape) for t in outputs}
        if None in found.values() and node.op in _BOUNDED:
            most = sum(self._size(t) for t in inputs) * (8 * 8 if node.op == "NonZero" else 8)
            found = dict.fromkeys(outputs, most)
        return {t: n for t, n in found.items() if n is not None} if None not in found.values() else None

    def _infer(self, node: Node) -> None:
        """Notes the types of what a node makes of constants, where they are not known yet."""
        if all(t is None or nbytes_of(t.dtype, t.shape) is not None for t in node.outputs):
            return
        for tensor, (dtype, shape) in zip(node.outputs, infer_node(node, self.opset, self.ir_version), strict=True):
            if tensor is not None and dtype is not None:
                tensor.dtype, tensor.shape = dtype, shape if shape is not None else tensor.shape


def _is_deterministic(node: Node, facts: Facts) -> bool:
    if node.domain or node.bodies or node.op in _RANDOM or node.op in _LEFT_ALONE:
        return False
    if node.op == "BatchNormalization" and not facts.is_inference(node):
        return False
    if node.op in ("Div", "Mod") and not _divides_safely(node):
        return False
    if node.op == "Resize" and not is_settled(node, facts):
        return False
    return defs.has(node.op)


def _divides_safely(node: Node) -> bool:
    """Whether no least integer is divided by -1, which ends the process: the quotient has no place in the type."""
    dividend, divisor = (t.constant if t is not None else None for t in node.inputs[:2])
    dtype = next((t.dtype for t in node.inputs if t is not None and t.dtype is not None), None)
    if dtype is not None and numpy_dtype(dtype).kind != "i":
        return True
    if divisor is not None and not (divisor.array() == -1).any():
        return True
    return dividend is not None and not (dividend.array() == np.iinfo(numpy_dtype(dividend.dtype)).min).any()


def _used(node: Node) -> list[Tensor]:
    return [t for t in node.outputs if t is not None and t.is_used]


def nbytes_of(dtype: int | None, shape: Shape | None) -> int | None:
    """Bytes of a tensor of this type; None when it is not static."""
    if dtype is None or shape is None:
        return None
    dims = [d for d in shape if isinstance(d, int)]
    if len(dims) != len(shape):
        return None
    return (math.prod(dims) * (bits_of(dtype) or 64) + 7) // 8


class _Choice:
    """Walks the computable nodes backwards and decides what is kept."""

    def __init__(self, computable: _Computable, most: int) -> None:
        self.computable = computable
        self.most = most
        self.plan_made = Plan()

    def plan(self) -> Plan:
        """The plan: results that a node that stays reads are kept where they are not too large."""
        plan = self.plan_made
        inside = set(self.computable.nodes)
        worth: set[Node] = set()
        for node in reversed(self.computable.nodes):
            outputs = [t for t in node.outputs if t is not None]
            needed = [t for t in outputs if t.is_output or any(c not in inside for c in t.consumers)]
            reason = self._objection(node, needed) if needed else None
            if reason is not None:
                plan.refusals[node] = reason
                inside.discard(node)
            elif needed:
                self._keep(node, needed)
                worth.add(node)
            if any(c in worth for t in outputs for c in t.consumers):
                worth.add(node)
        plan.nodes = [n for n in self.computable.nodes if n in worth and n.output(0) not in self.computable.lazy]
        return plan

    def _keep(self, node: Node, needed: list[Tensor]) -> None:
        lazy = self.computable.lazy
        self.plan_made.kept += [t for t in needed if t not in lazy]
        self.plan_made.lazy.update((t, lazy[t]) for t in needed if t in lazy)
        self.plan_made.growth += max(self._growth(node, needed), 0)

    def _growth(self, node: Node, needed: list[Tensor]) -> int:
        freed = self.computable.freed[node] if needed == _used(node) else 0
        return sum(self.computable.nbytes[t] for t in needed) - freed

    def _objection(self, node: Node, needed: list[Tensor]) -> str | None:
        """Why the node is not folded."""
        if any(t.dtype not in READABLE for t in needed):
            return "its result has a type that cannot be computed here"
        if any(t in self.computable.dequantized for t in needed):
            return "its result comes from DequantizeLinear: folding it would undo the quantization"
        growth = self._growth(node, needed)
        if growth > self.most:
            return f"its result would make the model {growth} bytes larger, which is more than {self.most}"
        return None
