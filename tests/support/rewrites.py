"""Three-sided tests of rules: the graph before and after, how often the rule fired, and equal numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from graphopt.change import Log
from graphopt.driver import Stop, run_rules
from graphopt.facts import Facts
from graphopt.graph import Model, Node, Tensor, import_model
from graphopt.inference import infer_types
from graphopt.instruments import PassRecord, StructureChecker
from graphopt.model import to_proto
from graphopt.pipeline import Context, Options, Pass
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, Rule
from graphopt.targets import Target
from tests.support.models import Arrays, feeds, model, run

Rules = Rule[Any] | Sequence[Rule[Any]]

TOLERANCE = {"float16": 2e-2, "bfloat16": 5e-2, "float32": 2e-4, "float64": 1e-9}


def apply(rules: Rules, proto: ModelProto, target: Target = Target.TENSORRT) -> tuple[ModelProto, Log]:
    """The model with `rules` applied to their fixed point, its structure checked, and the log."""
    listed = [rules] if isinstance(rules, Rule) else list(rules)
    before = proto.SerializeToString(deterministic=True)
    graph = _imported(proto)
    checker = StructureChecker()
    checker.before(PassRecord(0, "rules", 0), graph)
    edit = Rewriter(graph)
    assert run_rules(listed, Facts(graph, target), edit) == Stop.DONE
    checker.after(PassRecord(0, "rules", 0), graph)
    result = to_proto(graph)
    onnx.checker.check_model(result, full_check=True)
    assert proto.SerializeToString(deterministic=True) == before, "the input model was changed"
    return result, edit.log


def apply_pass(step: Pass, proto: ModelProto, options: Options | None = None) -> tuple[ModelProto, Log]:
    """The model after one pass, and the log."""
    graph = _imported(proto)
    options = options or Options()
    edit = Rewriter(graph)
    step.run(Context(graph, Facts(graph, options.target), edit, options))
    checker = StructureChecker()
    checker.before(PassRecord(0, step.name, 0), graph)
    checker.after(PassRecord(0, step.name, 0), graph)
    result = to_proto(graph)
    onnx.checker.check_model(result, full_check=True)
    return result, edit.log


def _imported(proto: ModelProto) -> Model:
    graph = import_model(proto)
    infer_types(graph)
    return graph


def check_rewrite(
    rules: Rules,
    before: ModelProto,
    after: str | Sequence[str],
    *,
    applied: int = 1,
    opset: int | None = None,
    target: Target = Target.TENSORRT,
    **dims: int,
) -> ModelProto:
    """`rules` turn `before` into `after`, fire `applied` times, a second run does nothing, and the numbers are equal.

    `after` is either the sorted operators that remain (["Conv", "Relu"]) or a graph in parser syntax, compared up to
    the names of inner tensors; names in it that nothing makes stand for weights. Exact rules must give equal arrays.
    """
    result, log = apply(rules, before, target)
    assert len(log.applications) == applied, [f"{a.rule}@{a.at}" for a in log.applications]
    if isinstance(after, str):
        expected = model(after, opset=opset or before.opset_import[0].version)
        assert shape_of_graph(result) == shape_of_graph(expected)
    else:
        assert sorted(n.op_type for n in result.graph.node) == sorted(after)
    again, second = apply(rules, result, target)
    assert not second.applications, "a second run changed the result"
    assert again == result
    exact = all(a.exactness is Exactness.EXACT for a in log.applications)
    check_numbers(before, result, exact=exact, **dims)
    return result


def check_untouched(
    rules: Rules, before: ModelProto, because: str | None = None, target: Target = Target.TENSORRT
) -> None:
    """`rules` leave `before` equal, node for node; `because` is part of a reason that one of them gave."""
    result, log = apply(rules, before, target)
    assert not log.applications, [f"{a.rule}@{a.at}" for a in log.applications]
    assert result == before
    if because is not None:
        reasons = [reason for _, reason in (*log.misses, *log.refusals)]
        assert any(because in reason for reason in reasons), reasons


def check_numbers(
    before: ModelProto,
    after: ModelProto,
    *,
    exact: bool,
    inputs: Arrays | None = None,
    tolerance: float | None = None,
    **dims: int,
) -> None:
    """Both models give equal outputs on three inputs: equal arrays for exact rules, else within rounding."""
    for seed in range(3):
        given = dict(inputs) if inputs is not None else feeds(before, seed, **dims)
        for expected, got in zip(run(before, given), run(after, given), strict=True):
            assert expected.dtype == got.dtype
            assert expected.shape == got.shape
            if exact or expected.dtype.kind not in "fV":
                np.testing.assert_array_equal(got, expected)
            else:
                bound = tolerance or TOLERANCE[expected.dtype.name]
                scale = max(1.0, float(np.abs(expected.astype(np.float64)).max(initial=0)))
                np.testing.assert_allclose(
                    got.astype(np.float64), expected.astype(np.float64), rtol=bound, atol=bound * scale
                )


def shape_of_graph(proto: ModelProto) -> list[Any]:
    """The graph up to the names of inner tensors and weights: comparable, and readable when a test fails."""
    inner: dict[str, str] = {v.name: v.name for v in (*proto.graph.input, *proto.graph.output)}
    made = {o for n in proto.graph.node for o in n.output}

    def known(name: str) -> str:
        if name in inner or not name:
            return inner.get(name, "")
        if name not in made:
            return "weight"
        return inner.setdefault(name, f"t{len(inner)}")

    return [
        (
            n.op_type,
            sorted((a.name, str(onnx.helper.get_attribute_value(a))) for a in n.attribute),
            [known(i) for i in n.input],
            [known(o) for o in n.output],
        )
        for n in proto.graph.node
    ]


def find(graph: Model, tensor: str) -> Node:
    """The node that makes `tensor`, in the main graph."""
    made: dict[str, Tensor] = {t.name: t for n in graph.graph.nodes for t in n.outputs if t is not None}
    producer = made[tensor].producer
    assert producer is not None
    return producer
