"""Concat, Split and Slice against each other: no element is moved that could stay where it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphopt.pipeline import Pass
from graphopt.rule import Rule
from graphopt_passes.concats.coalesce import CoalesceParts
from graphopt_passes.concats.dead_channels import DropDeadChannels
from graphopt_passes.concats.divided import DivideConvOfConcat
from graphopt_passes.concats.flatten import DropEmptyParts, FlattenConcats, FlattenSharedConcats
from graphopt_passes.concats.focus import FocusToSpaceToDepth, FoldFocusIntoConv
from graphopt_passes.concats.grouped import GroupConvs, GroupDistantConvs
from graphopt_passes.concats.heads import SinkSplitBelowHeads
from graphopt_passes.concats.hoisting import HoistAboveConcat
from graphopt_passes.concats.part_of_concat import GatherConcatInput, SliceConcatInput
from graphopt_passes.concats.permuted import PermutedPartsToGather
from graphopt_passes.concats.reductions import ReduceBeforeConcat
from graphopt_passes.concats.repeated import RepeatedPartsToTile
from graphopt_passes.concats.sequences import ConcatFromTensors, SequenceAtOfTensors, SplitInsteadOfSequence
from graphopt_passes.concats.sinking import SinkBelowConcat
from graphopt_passes.concats.split_of_concat import SplitConcatApart
from graphopt_passes.concats.summed import JoinSummedConvs
from graphopt_passes.concats.tiling import SlicesToSplit


@dataclass(frozen=True)
class ElideConcats(Pass):
    """Takes out Concats, Splits and Slices that undo one another, and moves work to where fewer are needed."""

    name: ClassVar[str] = "elide-concats"
    rules: ClassVar[tuple[Rule[Any], ...]] = (
        ConcatFromTensors(),
        SequenceAtOfTensors(),
        SplitInsteadOfSequence(),
        DropEmptyParts(),
        FlattenConcats(),
        FlattenSharedConcats(),
        CoalesceParts(),
        SplitConcatApart(),
        SliceConcatInput(),
        GatherConcatInput(),
        FoldFocusIntoConv(),
        FocusToSpaceToDepth(),
        DropDeadChannels(),
        GroupConvs(),
        GroupDistantConvs(),
        JoinSummedConvs(),
        DivideConvOfConcat(),
        HoistAboveConcat(),
        SinkBelowConcat(),
        ReduceBeforeConcat(),
        PermutedPartsToGather(),
        RepeatedPartsToTile(),
        SlicesToSplit(),
        SinkSplitBelowHeads(),
    )


__all__ = ["ElideConcats"]
