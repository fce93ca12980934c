"""Per-rewrite checking for tests: whatever a test calls, no rewrite goes by without being compared."""

from __future__ import annotations

from typing import Any

import pytest

from graphopt import engine
from graphopt.change import Change
from graphopt.rewrite import Rewriter
from graphopt.rewrite_check import RewriteChecker


def check_each_rewrite(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a run of a pipeline fails where a rewrite's result differs from what it consumed.

    Runs that check each rewrite themselves are left to it. What cannot be cut out is left to the comparison of the
    whole model.
    """

    class CheckedRewriter(Rewriter):
        """A Rewriter with one more judge, which accepts or ends the test."""

        def __init__(self, *given: Any, judges: Any = (), **named: Any) -> None:
            listed = list(judges)
            if not any(isinstance(judge, RewriteChecker) for judge in listed):
                listed.append(_Strict(RewriteChecker()))
            super().__init__(*given, judges=listed, **named)

    monkeypatch.setattr(engine, "Rewriter", CheckedRewriter)


class _Strict:
    def __init__(self, checker: RewriteChecker) -> None:
        self.checker = checker

    def __call__(self, change: Change) -> None:
        reason = self.checker(change)
        assert reason is None, f"{change.rule.name} at {change.root.label}: {reason}"
