"""Small models as text, for the tests of the proof."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser


def model(text: str, opset: int = 17, ir: int = 8, functions: str = "", domains: str = "") -> onnx.ModelProto:
    """A model from the text of its graph (`(float[2] x) => (float[2] y) { ... }`) and of its functions."""
    return onnx.parser.parse_model(
        f'<ir_version: {ir}, opset_import: ["" : {opset}{domains}]> graph {text}\n{functions}'
    )


def with_weights(proto: onnx.ModelProto, **weights: object) -> onnx.ModelProto:
    """The model with these arrays as initializers."""
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    return proto


def save_apart(proto: onnx.ModelProto, path: Path, location: str) -> None:
    """Saves the model with its weights in a file beside it; the model itself stays as it is."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save(copy, path, save_as_external_data=True, location=location, size_threshold=0)
