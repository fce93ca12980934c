"""Blocks: decomposed activations, normalizations and attention as one operator; conv-bias-activation as one block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphopt.pipeline import Context, Pass
from graphopt_passes.blocks.activations import (
    RecognizeGelu,
    RecognizeHardSigmoid,
    RecognizeHardSwish,
    RecognizeLogSoftmax,
    RecognizeMish,
    RecognizeSoftplus,
    RecognizeSwish,
)
from graphopt_passes.blocks.attention import RecognizeAttention
from graphopt_passes.blocks.gates import RecognizeSigmoid, RecognizeThresholdedSoftplus
from graphopt_passes.blocks.group_norm import RecognizeGroupNorm
from graphopt_passes.blocks.moments import RecognizeMoments
from graphopt_passes.blocks.norm_affine import FoldScaleIntoNorm, FoldShiftIntoNorm
from graphopt_passes.blocks.norm_casts import FoldCastsIntoNorm
from graphopt_passes.blocks.norms import RecognizeInstanceNorm, RecognizeLayerNorm, RecognizeRmsNorm
from graphopt_passes.blocks.rectifiers import RecognizeLeakyRelu, RecognizePRelu
from graphopt_passes.blocks.rotary import RecognizeRotaryEmbedding
from graphopt_passes.blocks.softmaxes import RecognizeLogSoftmaxOfSums, RecognizeSoftmax
from graphopt_passes.blocks.spelling import SpellBlockAsFunction, SpellBlockAsFusedConv, TagBlock


@dataclass(frozen=True)
class RecognizeBlocks(Pass):
    """Puts one operator in the place of the arithmetic that an exporter wrote for it."""

    name: ClassVar[str] = "recognize-blocks"
    rules = (
        RecognizeSigmoid(),
        RecognizeSoftplus(),
        RecognizeThresholdedSoftplus(),
        RecognizeSoftmax(),
        RecognizeLogSoftmax(),
        RecognizeLogSoftmaxOfSums(),
        RecognizeHardSigmoid(),
        RecognizeHardSwish(),
        RecognizeMish(),
        RecognizeGelu(),
        RecognizeSwish(),
        RecognizeLeakyRelu(),
        RecognizePRelu(),
        RecognizeLayerNorm(),
        RecognizeMoments(),
        RecognizeRmsNorm(),
        RecognizeInstanceNorm(),
        RecognizeGroupNorm(),
        FoldCastsIntoNorm(),
        FoldScaleIntoNorm(),
        FoldShiftIntoNorm(),
        RecognizeRotaryEmbedding(),
        RecognizeAttention(),
    )


@dataclass(frozen=True)
class SpellBlocks(Pass):
    """Writes blocks of a linear operator and an activation as the run's option `block` asks.

    `plain` tags the nodes of a block, in a model that was changed anyway: one in which nothing could be improved comes
    out as it was. `function` makes a block one call of a model-local function, `fused` one operator of ONNX Runtime.
    """

    name: ClassVar[str] = "spell-blocks"
    rules = (TagBlock(), SpellBlockAsFunction(), SpellBlockAsFusedConv())

    def run(self, context: Context) -> str | None:
        tag, function, fused = self.rules
        if context.options.block == "plain":
            return context.run_rules([tag] if context.edit.log.applications else [])
        return context.run_rules([function if context.options.block == "function" else fused])
