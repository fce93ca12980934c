"""Weights for the tests of vertical fusion."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.models import Arrays

Weights = dict[str, np.ndarray[Any, Any]]


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """Values of a standard normal distribution, the same for equal arguments."""
    return np.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(dtype)


def statistics(channels: int, dtype: Any = np.float32, suffix: str = "") -> Weights:
    """Scale g, bias b, mean m and variance v of a BatchNormalization."""
    g, b, m, v = (normal(channels, seed=i) for i in range(4))
    values = {"g": g, "b": b, "m": m, "v": v * v + np.float32(0.5)}
    return {k + suffix: a.astype(dtype) for k, a in values.items()}


def used(weights: Arrays, text: str) -> Weights:
    """The weights that the text names."""
    words = set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())
    return {k: v for k, v in weights.items() if k in words}
