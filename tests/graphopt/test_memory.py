"""A model that memory cannot hold is not loaded: every rewrite is compared instead, or the user is told."""

from __future__ import annotations

import resource
from pathlib import Path

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


def test_a_tensor_that_memory_cannot_hold_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 30)
    proto = model(
        "g (float[1] x) => (float y) { a = Expand(x, n) y = ReduceSum<keepdims = 0>(a) }", {"n": np.array([1 << 29])}
    )
    with pytest.raises(ExecutionError, match="one of its tensors takes 2\\.1 GB"):
        graphopt.optimize(proto)


def test_the_limits_of_a_container_and_of_the_process_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    (tmp_path / "memory.stat").write_text("anon 3500000\ninactive_file 500000\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert memory.available_bytes() == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    free = memory.available_bytes()
    assert free is None or free > 1_500_000
    (tmp_path / "statm").write_text("100 50 20\n")
    monkeypatch.setattr(memory, "_STATM", tmp_path / "statm")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (200 * resource.getpagesize(), resource.RLIM_INFINITY))
    assert memory.available_bytes() == 100 * resource.getpagesize()
