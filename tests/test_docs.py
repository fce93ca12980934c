"""The examples in the documentation run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from graphopt.pipeline import Pass
from tests.support.models import model
from tests.support.rewrites import check_rewrite, check_untouched

ROOT = Path(__file__).parent.parent


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def test_the_rule_of_writing_a_pass_passes_its_own_tests() -> None:
    scope: dict[str, Any] = {
        "pytest": pytest, "model": model, "check_rewrite": check_rewrite, "check_untouched": check_untouched
    }  # fmt: skip
    for code in blocks("docs/writing-a-pass.md", "python"):
        exec(compile(code, "docs/writing-a-pass.md", "exec"), scope)
    scope["test_two_relus_become_one"]()
    misses = scope["test_a_relu_that_something_else_reads_stays"]
    for graph in misses.pytestmark[0].args[1]:
        misses(graph)
    assert issubclass(scope["MergeActivations"], Pass)
    assert [rule.name for rule in scope["MergeActivations"].rules] == ["merge-relus"]
