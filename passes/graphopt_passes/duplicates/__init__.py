"""Duplicates: what is computed or stored twice."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.pipeline import Pass
from graphopt_passes.duplicates.constants import ShareEqualConstants
from graphopt_passes.duplicates.nodes import ShareEqualNodes


@dataclass(frozen=True)
class ShareDuplicates(Pass):
    """Keeps one of several equal constants and one of several nodes that compute the same."""

    name = "share-duplicates"
    rules = (ShareEqualConstants(), ShareEqualNodes())
