"""Spellings for one target: what its own fusions do not find, undo, or are hindered by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphopt.driver import Stop
from graphopt.pipeline import Context, Pass
from graphopt.rule import Rule
from graphopt.targets import Target
from graphopt_passes.fused.attention import FuseAttention, FuseMultiHeadAttention
from graphopt_passes.fused.gelus import FuseBiasGelu
from graphopt_passes.fused.maps import TransposeMapBeforeFlattening
from graphopt_passes.fused.norms import FuseSkipNorm
from graphopt_passes.fused.pools import PoolForGate
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


@dataclass(frozen=True)
class SpellForTensorRt(Pass):
    """Spells operators as TensorRT makes fewer kernels of them, for the target `tensorrt`."""

    name: ClassVar[str] = "spell-for-tensorrt"
    rules: ClassVar[tuple[Rule[Any], ...]] = (PoolForGate(), TransposeMapBeforeFlattening())


__all__ = ["FuseForOnnxRuntime", "SpellForTensorRt"]
