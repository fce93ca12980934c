"""Fused operators of ONNX Runtime, for its target only: what its own fusions do not find or undo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphopt.driver import Stop
from graphopt.pipeline import Context, Pass
from graphopt.rule import Rule
from graphopt.targets import Target
from graphopt_passes.fused.attention import FuseAttention, FuseMultiHeadAttention
from graphopt_passes.fused.gelus import FuseBiasGelu
from graphopt_passes.fused.norms import FuseSkipNorm
from graphopt_passes.fused.products import FuseTransposedProduct


@dataclass(frozen=True)
class FuseForOnnxRuntime(Pass):
    """Puts operators of `com.microsoft` in the place of what they compute, for the target `onnxruntime`."""

    name: ClassVar[str] = "fuse-for-onnxruntime"
    rules: ClassVar[tuple[Rule[Any], ...]] = (
        FuseAttention(),
        FuseMultiHeadAttention(),
        FuseSkipNorm(),
        FuseBiasGelu(),
        FuseTransposedProduct(),
    )

    def run(self, context: Context) -> str | None:
        """Runs the rules where the target has the operators: products last, since they are parts of attention."""
        if context.options.target is not Target.ONNXRUNTIME:
            return Stop.DONE
        *others, product = self.rules
        stop = context.run_rules(others)
        return stop if stop != Stop.DONE else context.run_rules([product])


__all__ = ["FuseForOnnxRuntime"]
