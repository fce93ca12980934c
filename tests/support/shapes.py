"""Models from text whose outputs' shapes are left to inference: write `float[] y`."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from tests.support.models import Arrays, model


def shaped_model(text: str, weights: Arrays | None = None, *, opset: int = 17, functions: str = "") -> ModelProto:
    """As `model`, with the shapes of the outputs inferred; dimensions that inference cannot tell stay open."""
    proto = model(text, weights, opset=opset, functions=functions)
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    del proto.graph.output[:]
    proto.graph.output.extend(inferred.graph.output)
    return proto
