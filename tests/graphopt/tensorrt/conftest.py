from __future__ import annotations

import importlib.util

import pytest

from graphopt.tensorrt import capability


@pytest.fixture
def rtx() -> None:
    """Real engines: skipped where TensorRT-RTX, which builds without a GPU, is not installed."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT-RTX is not installed")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, whatever this one has."""
    for module in ("build", "comparison"):
        monkeypatch.setattr(f"graphopt.tensorrt.{module}.gpu_capability", lambda: None)
    capability.gpu_capability.cache_clear()
