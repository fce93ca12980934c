"""What a fuzzed model is fed with: several sets, one of them with other sizes where dimensions are symbols."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from graphopt.verification.statistics import with_own_statistics
from tests.fuzz.models import Case

Feeds = dict[str, np.ndarray]


def feeds(case: Case) -> list[Feeds]:
    """Two to four sets of inputs, the same for the same case. The last may not fit the model (other sizes)."""
    rng = np.random.default_rng(case.seed)
    sets = [_draw(rng, case, case.sizes, scale) for scale in (1.0, 3.0)]
    for tensor in sets[1].values():  # exact zeros of both signs and equal neighbours
        if tensor.dtype.kind == "f" and tensor.size > 2:
            tensor.flat[0], tensor.flat[1], tensor.flat[2] = 0.0, -0.0, tensor.flat[-1]
    if case.overridable:
        over = dict(sets[0])
        for name, (dtype, shape) in case.overridable.items():
            over[name] = _values(rng, dtype, shape, 1.0, None)
        sets.append(over)
    others = _other_sizes(case)
    if others is not None:
        sets.append(_draw(rng, case, others, 1.0))
    return sets


def _draw(rng: np.random.Generator, case: Case, sizes: dict[str, tuple[int, ...]], scale: float) -> Feeds:
    given = {t.name for t in case.model.graph.initializer}
    found = {}
    for info in case.model.graph.input:
        if info.name not in given:
            dtype = info.type.tensor_type.elem_type
            found[info.name] = _values(rng, dtype, sizes[info.name], scale, case.ranges.get(info.name))
    return found


def _values(
    rng: np.random.Generator, dtype: int, shape: tuple[int, ...], scale: float, span: tuple[int, int] | None
) -> np.ndarray:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    if dtype == TensorProto.BOOL:
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind in "iu":
        low, high = span or (0 if kind.kind == "u" else -4, 5)
        return rng.integers(low, high + 1, shape).astype(kind)
    return np.asarray(rng.standard_normal(shape) * scale).astype(kind)


def _other_sizes(case: Case) -> dict[str, tuple[int, ...]] | None:
    """Every symbol gets another number, equal symbols the same one; None when there is no symbol."""
    changed = False
    found = dict(case.sizes)
    for info in case.model.graph.input:
        if info.name not in case.sizes:
            continue
        dims = list(case.sizes[info.name])
        for at, dim in enumerate(info.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dims[at] += 1
                changed = True
        found[info.name] = tuple(dims)
    return found if changed else None


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that ONNX Runtime loads and computes: it refuses two nodes of one name, which ONNX allows, and writes the
    running statistics of a BatchNormalization that trains over its inputs, which other nodes may read."""
    copy = onnx.ModelProto()
    copy.CopyFrom(with_own_statistics(model))
    graphs = [copy.graph]
    while graphs:
        for node in graphs.pop().node:
            node.name = ""
            graphs.extend(a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
    return copy
