"""Blocks: decomposed activations, normalizations and attention as one operator; conv-bias-activation as one block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphopt.pipeline import Pass
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
from graphopt_passes.blocks.group_norm import RecognizeGroupNorm
from graphopt_passes.blocks.moments import RecognizeMoments
from graphopt_passes.blocks.norm_affine import FoldScaleIntoNorm, FoldShiftIntoNorm
from graphopt_passes.blocks.norms import RecognizeInstanceNorm, RecognizeLayerNorm, RecognizeRmsNorm
from graphopt_passes.blocks.rectifiers import RecognizeLeakyRelu, RecognizePRelu


@dataclass(frozen=True)
class RecognizeBlocks(Pass):
    """Puts one operator in the place of the arithmetic that an exporter wrote for it."""

    name: ClassVar[str] = "recognize-blocks"
    rules = (
        RecognizeSoftplus(),
        RecognizeLogSoftmax(),
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
        FoldScaleIntoNorm(),
        FoldShiftIntoNorm(),
        RecognizeAttention(),
    )
