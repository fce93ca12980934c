"""Models from text (`onnx.parser`) and their execution with every optimization of the runtime off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, numpy_helper, parser

Arrays = Mapping[str, np.ndarray[Any, Any]]


def model(
    text: str, weights: Arrays | None = None, *, opset: int = 17, functions: str = "", domains: str = ""
) -> ModelProto:
    """The model of a graph in `onnx.parser` syntax, such as `g (float[1,3,8,8] x) => (float y) { y = Relu(x) }`.

    `weights` become initializers. Names that nothing makes and `weights` lacks are an error of the checker.
    """
    header = f'<ir_version: 10, opset_import: ["" : {opset}{domains}]>'
    proto = parser.parse_model(f"{header}\n{text}\n{functions}")
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items())
    return proto


def run(proto: ModelProto, feeds: Arrays) -> list[np.ndarray[Any, Any]]:
    """The outputs by ONNX Runtime on the CPU, its graph optimizations off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def feeds(proto: ModelProto, seed: int = 0, **dims: int) -> dict[str, np.ndarray[Any, Any]]:
    """Random values for the inputs that have no default; `dims` gives numbers for symbolic dimensions (2 otherwise)."""
    rng = np.random.default_rng(seed)
    given = {t.name for t in proto.graph.initializer}
    result = {}
    for info in proto.graph.input:
        if info.name in given:
            continue
        tensor = info.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else dims.get(d.dim_param, 2) for d in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        drawn = rng.standard_normal(shape) if dtype.kind in "fV" else rng.integers(0, 2, shape)
        result[info.name] = np.asarray(drawn).astype(dtype)
    return result
