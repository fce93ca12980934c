"""ONNX's own backend tests of operators: optimized by the default pipeline, the models still give what they must.

`onnx.backend.test.case.node` draws about 1,900 models of one operator, or of its decomposition into others, with inputs
and expected outputs; they cover every standard operator, its attributes, element types and opsets.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, SequenceProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import graphopt

SHARDS = 16
# models that break ONNX's own rules where a rewrite lets the checker see it: a Range from tensors of rank 1
NOT_QUITE_VALID = {"test_affine_grid_2d_expanded", "test_affine_grid_2d_align_corners_expanded"}


@lru_cache(maxsize=1)
def cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return [case for case in collect_testcases(None) if case.model is not None]


def array(value: Any) -> Any:
    """What the evaluator takes: some cases come as protobufs."""
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return numpy_helper.to_list(value) if isinstance(value, SequenceProto) else value


def evaluate(proto: ModelProto, inputs: list[Any]) -> list[Any]:
    names = [i.name for i in proto.graph.input]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return list(ReferenceEvaluator(proto).run(None, dict(zip(names, inputs, strict=False))))


def is_equal(expected: Any, got: Any, rtol: float, atol: float) -> bool:
    if expected is None or got is None:
        return expected is None and got is None
    if isinstance(expected, (list, tuple)):
        return len(expected) == len(got) and all(is_equal(e, g, rtol, atol) for e, g in zip(expected, got, strict=True))
    a, b = np.asarray(expected), np.asarray(got)
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "OSU":
        return bool((a.astype(str) == b.astype(str)).all())
    kind = np.complex128 if a.dtype.kind == "c" else np.float64
    return bool(np.allclose(b.astype(kind), a.astype(kind), rtol=rtol, atol=atol, equal_nan=True))


def problem_of(case: Any) -> str | None:
    """What is wrong with the optimized model of one case; None where its outputs are the expected ones."""
    result = graphopt.optimize(case.model, verify=False)
    if result.report.withdrawn and case.name not in NOT_QUITE_VALID:
        return f"a rewrite was wrong: {result.report.withdrawn[0].rule}"
    optimized = result.model
    if [n.op_type for n in optimized.graph.node] == [n.op_type for n in case.model.graph.node]:
        return None  # nothing was rewritten but names
    for given, wanted in case.data_sets:
        inputs, expected = [array(v) for v in given], [array(v) for v in wanted]
        try:
            before = evaluate(case.model, inputs)
        except Exception:  # the evaluator lacks some types and operators: then there is nothing to compare with
            continue
        # where the evaluator itself differs from the expectation, its own answer counts
        rtol, atol = max(case.rtol, 1e-3), max(case.atol, 1e-5)
        reference = expected if is_equal(expected, before, rtol, atol) else before
        if not is_equal(reference, evaluate(optimized, inputs), rtol, atol):
            return f"other outputs from {[n.op_type for n in optimized.graph.node]}"
    return None


@pytest.mark.parametrize("shard", range(SHARDS))
def test_optimized_operators_give_what_they_must(shard: int) -> None:
    random = ("bernoulli", "training_dropout", "training_default", "random")
    chosen = [c for c in cases()[shard::SHARDS] if not any(word in c.name for word in random)]
    problems = {case.name: problem for case in chosen if (problem := problem_of(case)) is not None}
    assert len(chosen) > 100
    assert not problems
