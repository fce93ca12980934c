"""Models of the zoo brought to a newer opset: proved, no larger than without, and with the blocks that it has."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
from onnx import ModelProto

import graphopt
from graphopt.upgrade import UPGRADE

# model, opset, an operator that only then is recognized, and how often
UPGRADES = [
    ("concat_chain__legacy", 23, None, 0),
    ("lstm_tagger__nofold", 23, None, 0),
    ("mobilenet_v3_small__nofold", 20, "HardSwish", 19),
    ("bert_tiny__legacy", 20, "Gelu", 2),
]


@pytest.mark.parametrize(("name", "opset", "operator", "count"), UPGRADES)
def test_an_upgraded_model_is_right_and_no_larger(
    name: str, opset: int, operator: str | None, count: int, zoo_model: Callable[[str], ModelProto]
) -> None:
    before = zoo_model(name)
    plain = graphopt.optimize(before, verify=False)
    told = {(r.operator, r.count) for r in plain.report.refusals if r.opset is not None and r.opset <= opset}
    assert told == ({(operator, count)} if operator is not None else set())
    result = graphopt.optimize(before, opset=opset)
    assert not [w for w in result.report.withdrawn if w.rule == UPGRADE]
    assert "outputs" in result.report.verification["checks"]
    assert result.report.after.nodes <= plain.report.after.nodes
    assert result.report.before.nodes == plain.report.before.nodes
    assert {o.version for o in result.model.opset_import if not o.domain} == {opset}
    onnx.checker.check_model(result.model, full_check=True)
    if operator is not None:
        assert result.report.after.operators[operator] == count
    again = graphopt.optimize(result.model, opset=opset, verify=False).model
    assert again.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)
