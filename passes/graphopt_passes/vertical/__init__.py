"""Vertical fusion: what folds into, or chains with, a Conv, ConvTranspose, Gemm or MatMul."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphopt.pipeline import Pass
from graphopt_passes.vertical.branches import EnlargeParallelConvs, MergeParallelConvs
from graphopt_passes.vertical.compose import ComposeConvs, ComposeProducts
from graphopt_passes.vertical.computed_weights import AddBiasToConv
from graphopt_passes.vertical.dequantized import FoldAffineIntoDequantizedConv, FoldAffineIntoDequantizedMatmul
from graphopt_passes.vertical.fold_across_shift import FoldScaleAcrossShift
from graphopt_passes.vertical.fold_after import (
    FoldBatchNormIntoConv,
    FoldBatchNormIntoMatmul,
    FoldScaleIntoConv,
    FoldScaleIntoMatmul,
    FoldShiftIntoConv,
    FoldShiftIntoMatmul,
)
from graphopt_passes.vertical.fold_before import FoldAffineBeforeConv, FoldAffineBeforeMatmul
from graphopt_passes.vertical.fold_into_readers import FoldAffineIntoReaders
from graphopt_passes.vertical.gemm import FoldTransposeIntoGemm, FoldTransposeIntoMatmul, MatmulAddToGemm
from graphopt_passes.vertical.pads import (
    FoldPadIntoAveragePool,
    FoldPadIntoConv,
    FoldPadIntoConvInteger,
    FoldPadIntoMaxPool,
    MakePadsExplicit,
)
from graphopt_passes.vertical.parts import JoinScaledChannels
from graphopt_passes.vertical.sums import MergeParallelConvTransposes, MergeParallelProducts


@dataclass(frozen=True)
class FuseVertical(Pass):
    """Folds constants along the data flow into weights and biases."""

    name: ClassVar[str] = "fuse-vertical"
    rules = (
        JoinScaledChannels(),
        MakePadsExplicit(),
        FoldPadIntoConv(),
        FoldPadIntoConvInteger(),
        FoldPadIntoAveragePool(),
        FoldPadIntoMaxPool(),
        FoldBatchNormIntoConv(),
        FoldScaleIntoConv(),
        FoldShiftIntoConv(),
        AddBiasToConv(),
        FoldBatchNormIntoMatmul(),
        FoldScaleIntoMatmul(),
        FoldShiftIntoMatmul(),
        FoldAffineIntoDequantizedConv(),
        FoldAffineIntoDequantizedMatmul(),
        FoldAffineBeforeConv(),
        FoldAffineBeforeMatmul(),
        FoldAffineIntoReaders(),
        FoldScaleAcrossShift(),
        FoldTransposeIntoGemm(),
        FoldTransposeIntoMatmul(),
        MergeParallelProducts(),
        MatmulAddToGemm(),
        MergeParallelConvs(),
        EnlargeParallelConvs(),
        MergeParallelConvTransposes(),
        ComposeConvs(),
        ComposeProducts(),
    )
