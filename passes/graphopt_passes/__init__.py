"""The built-in passes: `PASSES` is what the entry point of the group `graphopt.passes` names."""

from __future__ import annotations

from graphopt.pipeline import Pass
from graphopt_passes.blocks import RecognizeBlocks, SpellBlocks
from graphopt_passes.concats import ElideConcats
from graphopt_passes.constants import FoldConstants
from graphopt_passes.dead_layers import CleanUp
from graphopt_passes.dead_layers.functions import InlineFunctions
from graphopt_passes.dead_layers.unrolling import UnrollLoops
from graphopt_passes.duplicates import ShareDuplicates
from graphopt_passes.fused import FuseForOnnxRuntime, SpellForTensorRt
from graphopt_passes.layout import SimplifyLayout
from graphopt_passes.siblings import MergeSiblings
from graphopt_passes.vertical import FuseVertical

PASSES: tuple[type[Pass], ...] = (
    CleanUp,
    ShareDuplicates,
    SimplifyLayout,
    RecognizeBlocks,
    FuseVertical,
    FoldConstants,
    ElideConcats,
    MergeSiblings,
    FuseForOnnxRuntime,
    SpellForTensorRt,
    SpellBlocks,
    UnrollLoops,
    InlineFunctions,
)
