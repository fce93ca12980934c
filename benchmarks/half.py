"""How far models of 16-bit types are from their float32 originals, as they stand and after graphopt.

    python -m benchmarks.half repvgg_a0__legacy vit_tiny_patch16_224__legacy --markdown docs/benchmarks/half.md

A model of the zoo is rounded to float16 or bfloat16, weights and all, optimized, and computed as a GPU does: each
operator in float32, its result rounded to the type. Both are measured against the float32 original.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.tables import number, table
from models import zoo

MODELS = (
    "repvgg_a0__legacy",
    "resnet18__train_infer",
    "googlenet__nofold",
    "conv_affine__dynamo_raw",
    "vit_tiny_patch16_224__legacy",
    "bert_tiny__legacy",
    "llama_4L_256__legacy",
)
TYPES: Mapping[str, tuple[int, Any]] = {
    "float16": (TensorProto.FLOAT16, np.float16),
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}
OPSET = 24  # where every operator takes bfloat16
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Errors:
    """Relative errors against float32: the norm of the difference over the norm of the output, all outputs together."""

    model: str
    dtype: str
    before: float
    after: float
    nodes: tuple[int, int]

    @property
    def eps(self) -> float:
        """The distance from 1 to the next number of the type."""
        return float(ml_dtypes.finfo(TYPES[self.dtype][1]).eps)  # type: ignore[no-untyped-call]


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS, help="models of the zoo (default: seven)")
    parser.add_argument("--markdown", type=Path, help="write the page there")
    given = parser.parse_args()
    rows = [measure(zoo.load(name), name, dtype, zoo.inputs(name)) for name in given.models for dtype in TYPES]
    text = page(rows)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    print(text)


def measure(model: ModelProto, name: str, dtype: str, feeds: Arrays) -> Errors:
    """Rounds, optimizes and compares one model."""
    import graphopt

    exact = run(model, feeds)
    rounded = narrowed(recent(model), dtype)
    optimized = graphopt.optimize(rounded, verify=False).model
    before, after = (distance(run(widened(m, dtype), feeds), exact) for m in (rounded, optimized))
    return Errors(name, dtype, before, after, (len(rounded.graph.node), len(optimized.graph.node)))


def recent(model: ModelProto) -> ModelProto:
    """The model at an operator set whose operators take both types."""
    return onnx.version_converter.convert_version(model, OPSET)


def narrowed(model: ModelProto, dtype: str) -> ModelProto:
    """The model with `dtype` in place of float32: weights, constants, inputs, outputs, Casts. It has no bodies."""
    code, kind = TYPES[dtype]
    limits = ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]

    def lower(array: NDArray[Any]) -> NDArray[Any]:
        finite = np.isfinite(array)
        return np.where(finite, np.clip(array, float(limits.min), float(limits.max)), array).astype(kind)

    return _retyped(model, TensorProto.FLOAT, code, lower)


def widened(model: ModelProto, dtype: str) -> ModelProto:
    """A model that computes each operator of `model` in float32 and rounds its results to `dtype`."""
    code, _ = TYPES[dtype]
    typed = onnx.shape_inference.infer_shapes(model)
    values = (*typed.graph.value_info, *typed.graph.output)
    narrow = {v.name for v in values if v.type.tensor_type.elem_type == code}
    wide = _retyped(model, code, TensorProto.FLOAT, lambda array: array.astype(np.float32))
    nodes: list[NodeProto] = []
    for node in wide.graph.node:
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name in narrow:
                node.output[i] = f"{name}/raw"
                nodes.append(helper.make_node("Cast", [f"{name}/raw"], [f"{name}/short"], to=code))
                nodes.append(helper.make_node("Cast", [f"{name}/short"], [name], to=TensorProto.FLOAT))
    del wide.graph.node[:]
    wide.graph.node.extend(nodes)
    return wide


def _retyped(model: ModelProto, old: int, new: int, convert: Any) -> ModelProto:
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.value_info[:]
    for tensor in graph.initializer:
        _retype(tensor, old, convert)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == old:
            value.type.tensor_type.elem_type = new
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                raise ValueError(f"node '{node.name}' has a body; models with bodies are not measured")
            if attribute.HasField("t"):
                _retype(attribute.t, old, convert)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == old:
                attribute.i = new
    return result


def _retype(tensor: TensorProto, old: int, convert: Any) -> None:
    if tensor.data_type == old:
        tensor.CopyFrom(numpy_helper.from_array(convert(numpy_helper.to_array(tensor)), tensor.name))


def run(model: ModelProto, feeds: Arrays) -> list[NDArray[Any]]:
    """The outputs by ONNX Runtime on the CPU, its optimizations off."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def distance(found: Sequence[NDArray[Any]], exact: Sequence[NDArray[Any]]) -> float:
    """‖found − exact‖ / ‖exact‖ over all outputs of floats."""
    pairs = [(f.astype(np.float64), e.astype(np.float64)) for f, e in zip(found, exact, strict=True)]
    difference = sum(float(np.square(f - e).sum()) for f, e in pairs)
    size = sum(float(np.square(e).sum()) for _, e in pairs)
    return float(np.sqrt(difference / size))


def page(rows: Sequence[Errors]) -> str:
    """The page with the table."""
    cells = [
        (r.model, r.dtype, f"{r.nodes[0]} → {r.nodes[1]}", f"{r.before / r.eps:.2f}", f"{r.after / r.eps:.2f}",
         number(r.after / r.before))
        for r in rows
    ]  # fmt: skip
    header = ("model", "type", "nodes", "error before", "error after", "ratio")
    return f"""# Models of 16-bit types

Models of the zoo rounded to float16 and bfloat16, weights and all, against the same models in float32
(`python -m benchmarks.half`). Both sides are computed operator by operator in float32, every result rounded to the
type. The errors are ‖y − y₃₂‖ / ‖y₃₂‖ in units of the type's epsilon (2⁻¹⁰ and 2⁻⁷), before and after graphopt. Folding
rounds a weight of 16 bits once more, and takes away results that were rounded on the way: the ratio shows which weighs
more.

{table(header, cells)}
"""


if __name__ == "__main__":
    main()
