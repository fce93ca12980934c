"""Horizontal aggregation: operators side by side on one tensor become one operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphopt.driver import Stop
from graphopt.pipeline import Context, Pass
from graphopt.rule import Rule
from graphopt_passes.siblings.convs import MergeAdjacentConvs, MergeEqualSiblingConvs, MergeSiblingConvs
from graphopt_passes.siblings.enlarge import EnlargeAdjacentConvs, EnlargeSiblingConvs
from graphopt_passes.siblings.fans import Fans
from graphopt_passes.siblings.grouped import MergeGroupedSiblingConvs
from graphopt_passes.siblings.products import (
    MergeAdjacentGemms,
    MergeAdjacentMatmuls,
    MergeEqualSiblingMatmuls,
    MergeSiblingGemms,
    MergeSiblingMatmuls,
)

Stage = tuple[Rule[Any], ...]

# Each stage sees what the one before it left: first what meets again in a Concat and needs no Split, then all siblings
# of a tensor, then, where that did not pay, those that split into equal parts.
STAGES: tuple[Stage, ...] = (
    (MergeAdjacentConvs(), MergeAdjacentMatmuls(), MergeAdjacentGemms()),
    (EnlargeAdjacentConvs(),),
    (MergeSiblingConvs(), MergeGroupedSiblingConvs(), MergeSiblingMatmuls(), MergeSiblingGemms()),
    (MergeEqualSiblingConvs(), MergeEqualSiblingMatmuls()),
    (EnlargeSiblingConvs(),),
)


@dataclass(frozen=True)
class MergeSiblings(Pass):
    """Merges sibling Convs, MatMuls and Gemms where the cost model says that it pays."""

    name = "merge-siblings"
    rules: ClassVar[tuple[Rule[Any], ...]] = tuple(rule for stage in STAGES for rule in stage)

    def run(self, context: Context) -> str | None:
        """Runs the stages in order; returns the first stop reason that is not "done"."""
        context.facts.shared(Fans).forget()
        for stage in STAGES:
            stop = context.run_rules(stage)
            if stop != Stop.DONE:
                return stop
        return Stop.DONE
