"""The proof: same interface, same outputs. Knows models, not passes; imports no engine until one runs."""

from __future__ import annotations

from graphopt.verify.draw import draw
from graphopt.verify.proof import Verifier, verify
from graphopt.verify.ranges import Range, infer_ranges
from graphopt.verify.small import Mismatch, compare_small
from graphopt.verify.source import AnyModel, Located
from graphopt.verify.tolerance import Criterion, Exact, Tolerance
from graphopt.verify.verification import OutputCheck, Verification

__all__ = [
    "AnyModel",
    "Criterion",
    "Exact",
    "Located",
    "Mismatch",
    "OutputCheck",
    "Range",
    "Tolerance",
    "Verification",
    "Verifier",
    "compare_small",
    "draw",
    "infer_ranges",
    "verify",
]
