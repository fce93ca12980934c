"""A model that memory cannot hold is not loaded: every rewrite is compared instead, or the user is told."""

from __future__ import annotations

import numpy as np
import pytest

import graphopt
from graphopt import memory
from graphopt.errors import ExecutionError
from tests.support.models import model


def batch_norm() -> graphopt.Result:
    proto = model(
        """g (float[1,8,4,4] x) => (float[1,8,4,4] y) {
            a = Conv(x, w)
            y = BatchNormalization(a, s, s, s, s)
        }""",
        {"w": np.ones((8, 8, 1, 1), np.float32), "s": np.linspace(0.5, 1.5, 8, dtype=np.float32)},
    )
    return graphopt.optimize(proto, verify="each")


def test_linux_tells_the_free_memory() -> None:
    free = memory.available_bytes()
    assert free is None or free > 1 << 20


@pytest.mark.parametrize(("name", "value"), [("INLINE_BYTES", 16), ("available_bytes", lambda: 100)])
def test_each_rewrite_is_compared_where_the_whole_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(memory, name, value)
    report = batch_norm().report
    assert "stands for the whole model" in report.verification["how"]
    assert any("not executed" in sentence for sentence in report.verification["not_checked"])
    assert sum(rule.count for step in report.passes for rule in step.rules) > 0


def test_without_that_the_user_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 100)
    proto = model("g (float[64] x) => (float[64] y) { y = Add(x, w) }", {"w": np.ones(64, np.float32)})
    with pytest.raises(ExecutionError, match="--verify each"):
        graphopt.optimize(proto)
