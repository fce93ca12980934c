"""ONNX's own backend tests, optimized, still give the outputs that they expect.

Each case runs twice: as it is, and with its inputs made constant, so that folding has all of it to compute. A case
that neither ONNX Runtime nor ONNX's reference evaluator answers rightly before optimization tells nothing; these are
left out, and the closing lines of the test run count them.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import ModelProto, ValueInfoProto

import graphopt
from graphopt_passes.common.pure import RANDOM
from tests.zoo.backend import Case, Run, cases, difference, run_reference, run_runtime

SHARDS = 8
LEAST_SHARE = 0.93  # of the cases must be judged; fewer means that the test has stopped testing


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("vary", [lambda case: case, Case.with_constant_inputs], ids=["as-is", "constant-inputs"])
def test_expected_outputs_survive(
    shard: int, vary: Callable[[Case], Case], record_property: Callable[[str, object], None]
) -> None:
    failed: list[str] = []
    judged = 0
    excluded: list[str] = []
    for case in map(vary, cases()[shard::SHARDS]):
        run = runner(case)
        if run is None:
            excluded.append(case.name)
            continue
        judged += 1
        if problem := check(case, run):
            failed.append(f"{case.name}: {problem}")
    record_property("count: backend cases judged", judged)
    record_property("count: backend cases left out, the original cannot be run or is random", len(excluded))
    assert not failed, f"{len(failed)} of {judged}:\n" + "\n".join(failed)
    assert judged >= LEAST_SHARE * (judged + len(excluded)), excluded


def runner(case: Case) -> Run | None:
    """What answers the original rightly: ONNX Runtime, else ONNX's evaluator, else nothing; a random one nothing."""
    if not RANDOM.isdisjoint(node.op_type for node in case.model.graph.node):
        return None  # its numbers may be the expected ones by chance
    return next((run for run in (run_runtime, run_reference) if judge(case, case.model, run) is None), None)


def check(case: Case, run: Run) -> str | None:
    """What is wrong with the optimized model, or None."""
    try:
        result = graphopt.optimize(case.model, verify=False).model
        onnx.checker.check_model(result)
    except Exception as error:  # a crash is one more finding in the list
        return f"{type(error).__name__}: {error}"
    if inputs(result) != inputs(case.model):
        return "its inputs changed"
    if list(result.graph.output) != list(case.model.graph.output):
        return "its outputs changed"
    problem = judge(case, result, run)
    if isinstance(problem, Exception):  # the runtime lacks a kernel that the rewritten graph needs
        problem = judge(case, result, run_reference)
    return None if problem is None else str(problem)


def inputs(model: ModelProto) -> list[ValueInfoProto]:
    """What a caller may give; before IR version 4 initializers are listed as inputs but are constant (IR spec)."""
    constant = {tensor.name for tensor in model.graph.initializer} if model.ir_version < 4 else set()
    return [value for value in model.graph.input if value.name not in constant]


def judge(case: Case, model: ModelProto, run: Run) -> str | Exception | None:
    """How the outputs differ from those expected, what kept them from being computed, or None when all is well."""
    try:
        return difference(case, run(model, case.feeds))
    except Exception as error:  # runtimes raise anything for what they lack
        return error
