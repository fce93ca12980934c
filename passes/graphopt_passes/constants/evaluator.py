"""Runs constant nodes, many at a time, by ONNX Runtime on the CPU with its optimizations off.

A batch becomes one small model and one session. When it fails, it is halved until the nodes that cannot be run stand
alone; the others still get their values. onnx.reference is not used: its float results differ from those of runtimes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from graphopt.graph import Array, Graph, Node, Tensor, node_proto, numpy_dtype
from graphopt_passes.constants.movement import move

# A batch of which so many parts cannot be run is given up: its model needs another runtime.
MOST_FAILURES = 32
# Constants up to this size are put into the small model, since some kernels want them there; larger ones are fed.
INLINE_BYTES = 1 << 16

_FIRST_IR, _LAST_IR = 7, 10
# What ONNX Runtime hands out as numpy arrays; bfloat16 leaves as float32, which holds all its values.
_PLAIN = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.DOUBLE,
        TensorProto.FLOAT16,
        TensorProto.BOOL,
        TensorProto.STRING,
        TensorProto.INT8,
        TensorProto.INT16,
        TensorProto.INT32,
        TensorProto.INT64,
        TensorProto.UINT8,
        TensorProto.UINT16,
        TensorProto.UINT32,
        TensorProto.UINT64,
    }
)
READABLE = _PLAIN | {TensorProto.BFLOAT16}

Values = dict[Tensor, Array]


def evaluate(nodes: Sequence[Node], wanted: Sequence[Tensor]) -> Values:
    """The values of the tensors `wanted`, as far as they can be computed.

    `nodes` are of one graph, in topological order; all they read is constant or made by them. `wanted`
    are outputs of theirs with a dtype in `READABLE`.
    """
    moved = move(nodes)
    if moved is not None:
        return {tensor: moved[tensor] for tensor in wanted}
    return _Batches(set(wanted)).run(list(nodes), {})


class _Batches:
    def __init__(self, wanted: set[Tensor]) -> None:
        self.wanted = wanted
        self.failures = 0

    def run(self, nodes: list[Node], known: Values) -> Values:
        """Runs the nodes; halves them when that fails, the first half's results known to the second."""
        nodes = [n for n in nodes if n.outputs]
        if not nodes or self.failures >= MOST_FAILURES:
            return {}
        try:
            return _run(nodes, self._needed(nodes), known)
        except Exception:  # the runtime raises what it likes: no kernel, a wrong shape, an opset it does not know
            self.failures += 1
        if len(nodes) == 1:
            return {}
        half = len(nodes) // 2
        first = self.run(nodes[:half], known)
        reachable = {**known, **first}
        second = self.run(_computable(nodes[half:], reachable), reachable)
        return {**first, **second}

    def _needed(self, nodes: list[Node]) -> list[Tensor]:
        """What these nodes make and someone else asks for."""
        mine = set(nodes)
        made = [t for n in nodes for t in n.outputs if t is not None]
        return [
            t for t in made if t.dtype in READABLE and (t in self.wanted or any(c not in mine for c in t.consumers))
        ]


def _computable(nodes: list[Node], known: Values) -> list[Node]:
    """The nodes whose inputs are constant, known, or made by others that are computable."""
    made: set[Tensor] = set()
    result = []
    for node in nodes:
        if all(t is None or t.constant is not None or t in known or t in made for t in node.inputs):
            result.append(node)
            made.update(t for t in node.outputs if t is not None)
    return result


def _run(nodes: list[Node], wanted: list[Tensor], known: Values) -> Values:
    if not wanted:
        return {}
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    proto, feeds, wide = _model(nodes, wanted, known)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = session.run([wide.get(t, t.name) for t in wanted], feeds)
    return {
        t: np.asarray(r).astype(numpy_dtype(t.dtype or 0), copy=False) for t, r in zip(wanted, results, strict=True)
    }


def _model(
    nodes: list[Node], wanted: list[Tensor], known: Values
) -> tuple[ModelProto, dict[str, Any], dict[Tensor, str]]:
    """The small model, what it is fed, and the names of the float32 copies of bfloat16 results."""
    graph = nodes[0].owner
    protos = [node_proto(n) for n in nodes]
    wide = {t: f"{t.name}.float32" for t in wanted if t.dtype == TensorProto.BFLOAT16}
    protos += [helper.make_node("Cast", [t.name], [name], to=TensorProto.FLOAT) for t, name in wide.items()]
    outputs = [
        helper.make_tensor_value_info(wide.get(t, t.name), TensorProto.FLOAT if t in wide else t.dtype or 0, None)
        for t in wanted
    ]
    initializers, inputs, feeds = [], [], {}
    for tensor in _read(nodes):
        constant = tensor.constant
        if constant is not None and (constant.nbytes <= INLINE_BYTES or constant.dtype not in _PLAIN):
            initializers.append(constant.to_proto(tensor.name))
            continue
        array = known[tensor] if constant is None else np.ascontiguousarray(constant.array())
        if tensor.dtype == TensorProto.BFLOAT16:
            initializers.append(_tensor_proto(tensor.name, array, TensorProto.BFLOAT16))
            continue
        dtype = constant.dtype if constant is not None else tensor.dtype
        inputs.append(helper.make_tensor_value_info(tensor.name, dtype or 0, list(array.shape)))
        feeds[tensor.name] = array
    proto = helper.make_graph(protos, "constants", inputs, outputs, initializers)
    return _wrapped(proto, graph), feeds, wide


def _tensor_proto(name: str, array: Array, dtype: int) -> TensorProto:
    return helper.make_tensor(name, dtype, array.shape, array.tobytes(), raw=True)


def _wrapped(proto: Any, graph: Graph) -> ModelProto:
    imports = [helper.make_opsetid(domain, version) for domain, version in graph.opsets.items() if domain == ""]
    ir_version = min(max(graph.model.ir_version, _FIRST_IR), _LAST_IR)
    return helper.make_model(proto, opset_imports=imports, ir_version=ir_version)


def _read(nodes: list[Node]) -> dict[Tensor, None]:
    """What the nodes read and do not make."""
    made = {t for n in nodes for t in n.outputs}
    return {t: None for n in nodes for t in n.inputs if t is not None and t not in made}
