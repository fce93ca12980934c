"""The proof: same interface, same outputs. Knows models, not passes; imports no engine until one runs."""

from __future__ import annotations

from graphopt.verification.draw import draw
from graphopt.verification.proof import Verifier, verify
from graphopt.verification.ranges import Range, infer_ranges
from graphopt.verification.small import Mismatch, compare_small
from graphopt.verification.source import AnyModel, Located
from graphopt.verification.tolerance import Criterion, Exact, Tolerance
from graphopt.verification.verification import OutputCheck, Verification

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
