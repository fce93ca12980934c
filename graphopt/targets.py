"""Where the optimized model will run: it decides which operators a rewrite may emit."""

from __future__ import annotations

from enum import Enum


class Target(str, Enum):
    """A kind of consumer.

    `tensorrt`: only operators that the TensorRT ONNX parser takes, never `com.microsoft`.
    `onnxruntime`: fused operators of `com.microsoft` are welcome.
    `portable`: standard operators of the model's own opset.
    """

    TENSORRT = "tensorrt"
    ONNXRUNTIME = "onnxruntime"
    PORTABLE = "portable"
