"""Layout: transposes, reshapes, slices, casts, clips, pads and expands are composed, cancelled and moved."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.pipeline import Context, Pass
from graphopt_passes.layout.axes import (
    SinkTransposeBelowArgMax,
    SinkTransposeBelowReduction,
    SinkTransposeBelowSlice,
    SinkTransposeBelowSoftmax,
)
from graphopt_passes.layout.batches import DropReshapesAroundMatMul
from graphopt_passes.layout.casts import ComposeCasts
from graphopt_passes.layout.clips import ComposeClips, FlattenMinMax
from graphopt_passes.layout.expands import DropExpandBeforeBroadcast
from graphopt_passes.layout.floating import SinkReshapeBelowPointwise
from graphopt_passes.layout.growing import (
    SinkTransposeBelowPad,
    SinkTransposeBelowQuantization,
    SinkTransposeBelowTile,
)
from graphopt_passes.layout.joins import SinkTransposeBelowConcat, SinkTransposeBelowSplit
from graphopt_passes.layout.literal_reshapes import SkipReshapeBeforeLiteral
from graphopt_passes.layout.matmuls import SinkTransposeBelowMatMul, TransposeOfGemm
from graphopt_passes.layout.pads import ComposePads
from graphopt_passes.layout.picks import (
    GatherOfAllToReshape,
    GatherOfOneThenSqueeze,
    GatherOfOneThenUnsqueeze,
    SliceOfOneToGather,
)
from graphopt_passes.layout.quantization import DropRequantization
from graphopt_passes.layout.reductions import ReduceThenReshape, ReductionOfOnesToSqueeze
from graphopt_passes.layout.reshapes import ComposeReshapes, ComposeUnsqueezes
from graphopt_passes.layout.resizes import ComposeResizes
from graphopt_passes.layout.scales import ComposeConstantTerms, ProductWithReciprocalToDivision
from graphopt_passes.layout.sinking import SinkTransposeBelowPointwise
from graphopt_passes.layout.slices import ComposeGathers, ComposeSlices
from graphopt_passes.layout.transposes import ComposeTransposes, TransposeOfOnesToReshape
from graphopt_passes.layout.uniform import ShrinkUniformOperand

MOVES = (
    ComposeTransposes(),
    SinkTransposeBelowPointwise(),
    SinkTransposeBelowReduction(),
    SinkTransposeBelowArgMax(),
    SinkTransposeBelowSoftmax(),
    SinkTransposeBelowSlice(),
    SinkTransposeBelowPad(),
    SinkTransposeBelowTile(),
    SinkTransposeBelowQuantization(),
    SinkTransposeBelowConcat(),
    SinkTransposeBelowSplit(),
    SinkTransposeBelowMatMul(),
)
CHAINS = (
    TransposeOfGemm(),
    TransposeOfOnesToReshape(),
    ReduceThenReshape(),
    ReductionOfOnesToSqueeze(),
    SliceOfOneToGather(),
    GatherOfOneThenSqueeze(),
    GatherOfOneThenUnsqueeze(),
    GatherOfAllToReshape(),
    DropReshapesAroundMatMul(),
    ComposeReshapes(),
    SkipReshapeBeforeLiteral(),
    ComposeUnsqueezes(),
    SinkReshapeBelowPointwise(),
    ComposeCasts(),
    ComposeClips(),
    FlattenMinMax(),
    ComposeConstantTerms(),
    ProductWithReciprocalToDivision(),
    DropRequantization(),
    ComposeSlices(),
    ComposeGathers(),
    ComposePads(),
    ComposeResizes(),
    DropExpandBeforeBroadcast(),
    ShrinkUniformOperand(),
)


@dataclass(frozen=True)
class SimplifyLayout(Pass):
    """Moves transposes until they cancel, then merges chains of operators that only move or bound elements."""

    name = "simplify-layout"
    rules = (*MOVES, *CHAINS)

    def run(self, context: Context) -> str | None:
        # a Transpose that moves no data is worth more as one while another may still cancel it
        context.run_rules(MOVES)
        return context.run_rules(self.rules)
