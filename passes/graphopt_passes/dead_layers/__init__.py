"""Dead layers: nodes, outputs, initializers, functions and imports that change no output of the model."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.pipeline import Context, Pass
from graphopt_passes.dead_layers.branches import InlineKnownBranch
from graphopt_passes.dead_layers.chains import AbsOfNegation, DropRepeatedUnary, DropSelfInversePair
from graphopt_passes.dead_layers.copies import (
    CastLikeToCast,
    ConstantToOutput,
    DropCastToSameType,
    DropDropout,
    DropIdentity,
    DropJoinOfOne,
    DropSplitIntoOne,
)
from graphopt_passes.dead_layers.leftovers import (
    ConstantToInitializer,
    drop_uncalled_functions,
    drop_unread_initializers,
    drop_unused_imports,
)
from graphopt_passes.dead_layers.masks import DropoutMaskIsTrue
from graphopt_passes.dead_layers.movement import (
    DropFullGather,
    DropFullSlice,
    DropIdentityTranspose,
    DropPadOfNothing,
    DropReductionOfNothing,
    DropResizeToSameSize,
)
from graphopt_passes.dead_layers.neutral import (
    DropNeutralElement,
    DropOperationWithItself,
    DropPositiveZero,
    DropSelectOfKnownSide,
)
from graphopt_passes.dead_layers.reshapes import (
    DropExpandToSameShape,
    DropFlattenOfMatrix,
    DropReshapeToSameShape,
    DropSqueezeOfNothing,
    DropTileOnce,
    DropUnsqueezeOfNothing,
)
from graphopt_passes.dead_layers.results import DropUnchangedState, DropUnreadBranchResults, DropUnreadIterations
from graphopt_passes.dead_layers.states import DropZeroStates
from graphopt_passes.dead_layers.statistics import BatchOfOneToInstanceNorm
from graphopt_passes.dead_layers.unread import DropUnreadOutputs, EraseUnreadNode
from graphopt_passes.dead_layers.unrolling import InlineSingleIteration


@dataclass(frozen=True)
class CleanUp(Pass):
    """Takes out what changes no output: unread nodes and outputs, no-ops, known branches, unused initializers."""

    name = "clean-up"
    rules = (
        EraseUnreadNode(),
        DropUnreadOutputs(),
        ConstantToInitializer(),
        InlineKnownBranch(),
        InlineSingleIteration(),
        DropUnreadIterations(),
        DropUnreadBranchResults(),
        DropUnchangedState(),
        DropIdentity(),
        DropoutMaskIsTrue(),
        DropDropout(),
        ConstantToOutput(),
        DropCastToSameType(),
        CastLikeToCast(),
        DropJoinOfOne(),
        DropSplitIntoOne(),
        DropIdentityTranspose(),
        DropFullSlice(),
        DropPadOfNothing(),
        DropFullGather(),
        DropReductionOfNothing(),
        DropResizeToSameSize(),
        DropReshapeToSameShape(),
        DropFlattenOfMatrix(),
        DropSqueezeOfNothing(),
        DropUnsqueezeOfNothing(),
        DropExpandToSameShape(),
        DropTileOnce(),
        DropNeutralElement(),
        DropPositiveZero(),
        DropSelectOfKnownSide(),
        DropOperationWithItself(),
        DropRepeatedUnary(),
        DropSelfInversePair(),
        AbsOfNegation(),
        DropZeroStates(),
        BatchOfOneToInstanceNorm(),
    )

    def run(self, context: Context) -> str | None:
        stop = context.run_rules(self.rules)
        drop_unread_initializers(context.model, context.edit)
        drop_uncalled_functions(context.model, context.edit)
        drop_unused_imports(context.model, context.edit)
        return stop
