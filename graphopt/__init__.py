"""graphopt: a graph optimizer for ONNX models that go to TensorRT. It proves and explains every rewrite.

    result = graphopt.optimize("model.onnx")
    result.save("optimized.onnx")

onnxruntime, Polygraphy and TensorRT are imported when they are first needed, not with this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphopt.api import Result, optimize
from graphopt.errors import (
    EngineError,
    ExecutionError,
    GraphoptError,
    InputsError,
    ModelError,
    OpsetError,
    PipelineError,
    PluginError,
    SaveError,
    ShapeError,
    UnsafeModelError,
    VerificationError,
)
from graphopt.pipeline import Pass, PassManager
from graphopt.prover import Proving
from graphopt.report import Report
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt.targets import Target
from graphopt.version import VERSION as __version__

if TYPE_CHECKING:
    from graphopt.tensorrt import Engine
    from graphopt.verification import Verification

__all__ = [
    "EngineError",
    "Exactness",
    "ExecutionError",
    "GraphoptError",
    "InputsError",
    "ModelError",
    "NoMatch",
    "OpsetError",
    "Pass",
    "PassManager",
    "PipelineError",
    "PluginError",
    "Proving",
    "Refused",
    "Report",
    "Result",
    "Rewriter",
    "Rule",
    "SaveError",
    "ShapeError",
    "Target",
    "UnsafeModelError",
    "VerificationError",
    "__version__",
    "build_engine",
    "optimize",
    "verify",
]


def verify(original: Any, candidate: Any, **settings: Any) -> Verification:
    """Compares two models: interface, validity, outputs. See `graphopt.verification.verify` for the settings."""
    from graphopt.verification import verify as compare

    return compare(original, candidate, **settings)


def build_engine(model: Any, **settings: Any) -> Engine:
    """Builds a TensorRT engine. See `graphopt.tensorrt.build_engine` for the settings; raises EngineError."""
    from graphopt.tensorrt import build_engine as build

    return build(model, **settings)
