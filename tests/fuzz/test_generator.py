"""The generator itself: its models are valid, run, reach every snippet, and come again for the same number."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.fuzz import generate
from tests.fuzz.builder import Builder, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.harvest import INDEX
from tests.fuzz.inputs import feeds, runnable
from tests.fuzz.models import Case
from tests.fuzz.registry import FLOATS, SNIPPETS, Made, Snippet
from tests.fuzz.seeds import Seed
from tests.fuzz.trial import deadly
from tests.fuzz.worker import Themes
from tests.support.models import model, run

MODELS = 400


@pytest.fixture(scope="module")
def drawn() -> list[Case]:
    found: list[Case] = []
    visit = generate.stream(20, found.append)
    for number in range(MODELS):
        visit(number)
    return found


def test_the_checker_takes_every_model(drawn: list[Case]) -> None:
    assert len(drawn) == MODELS
    for case in drawn:
        onnx.checker.check_model(case.model, full_check=True)
        onnx.shape_inference.infer_shapes(case.model, check_type=True, strict_mode=True)


def test_the_runtime_runs_nearly_all(drawn: list[Case]) -> None:
    """What it can not run is known by name: a kernel that ONNX Runtime lacks on the CPU."""
    ort.set_default_logger_severity(4)
    missing: Counter[str] = Counter()
    for case in drawn:
        if (reason := _refused(case)) is not None:
            missing[reason] += 1
    assert sum(missing.values()) <= MODELS // 50, missing
    assert all("NOT_IMPLEMENTED" in reason for reason in missing), missing


def test_snippets_apply_nearly_always(drawn: list[Case]) -> None:
    used = Counter(name for case in drawn for name in case.snippets)
    rejected = sum(sum(case.rejected.values()) for case in drawn)
    assert rejected < sum(used.values()) / 15
    assert len(used) > 0.8 * len(SNIPPETS)


def test_the_same_number_gives_the_same_model() -> None:
    for number in range(20):
        one, two = generate.case_of(5, number), generate.case_of(5, number)
        assert one is not None
        assert two is not None
        assert one.model.SerializeToString(deterministic=True) == two.model.SerializeToString(deterministic=True)


def test_kinds_of_models(drawn: list[Case]) -> None:
    """What the issue lists occurs: every opset, symbols, overridable initializers, bodies, functions, odd names."""
    opsets = {case.model.opset_import[0].version for case in drawn}
    assert opsets >= {7, 8, 9, 11, 13, 17, 18, 21, 26}
    assert sum(_has_symbol(case.model) for case in drawn) > MODELS // 8
    assert sum(bool(case.overridable) for case in drawn) > MODELS // 40
    operators = Counter(node.op_type for case in drawn for node in case.model.graph.node)
    assert {"If", "Loop", "Scan", "LSTM", "Conv", "ConvTranspose", "Gemm", "QuantizeLinear", "Constant"} <= set(
        operators
    )
    assert any(case.model.functions for case in drawn)
    assert any(node.name == "" for case in drawn for node in case.model.graph.node)
    assert any(len(case.model.graph.output) > 2 for case in drawn)
    assert any(not case.model.graph.node for case in drawn)


def _has_symbol(model: onnx.ModelProto) -> bool:
    return any(dim.HasField("dim_param") for info in model.graph.input for dim in info.type.tensor_type.shape.dim)


def _refused(case: Case) -> str | None:
    try:
        run(runnable(case.model), feeds(case)[0])
    except Exception as error:
        return str(error)[:300]
    return None


@pytest.mark.parametrize("name", sorted(SNIPPETS))
def test_each_snippet_alone(name: str) -> None:
    """Each makes a valid model in some opset of its range, and its weight is what the table says."""
    entry = SNIPPETS[name]
    applied = 0
    for number in range(24):
        case = generate.case_of(7, number, only=(name,), opset=max(min(entry.before - 1, 17), entry.since))
        assert case is not None
        onnx.checker.check_model(case.model, full_check=True)
        applied += name in case.snippets
    assert applied >= 12, f"{name} does not apply in most cases"


def _seed(text: str, opset: int = 17) -> Seed:
    return Seed(model(text, opset=opset), frozenset(), frozenset(), frozenset({opset}), opset)


def test_shapes_of_harvested_graphs_are_measured() -> None:
    """A test of a rule may declare what is not so; its graph still makes valid models."""
    false = _seed("g (float[2] x) => (float[7] y) { y = Relu(x) }")
    assert false.results == [(onnx.TensorProto.FLOAT, (2,))]
    free = _seed("g (float[N] x) => (float[M] y) { y = Relu(x) }")
    assert free.results == [(onnx.TensorProto.FLOAT, (2,))]
    depends = _seed("g (float[4] x) => (int64[1,M] y) { z = Floor(x) \n y = NonZero(z) }")
    assert depends.results is None
    fails = _seed("g (float[4] x, float[3] z) => (float[M] y) { y = Add(x, z) }")
    assert fails.results is None


def test_graphs_that_end_the_process_are_told(tmp_path: Path) -> None:
    """ONNX Runtime aborts at Unique of nothing along an axis; what is drawn after it has to be drawn all the same."""
    lives = model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    dies = model(
        "g (bool c) => (int64[2] y) { u = Unique<axis = 0>(w) \n y = Shape(u) }", {"w": np.zeros((1, 0), np.float32)}
    )
    uses = {"fired": [], "tested": [], "opsets": [17], "own": 17}
    for name, proto in {"a": lives, "b": dies, "c": lives}.items():
        onnx.save(proto, tmp_path / name)
    (tmp_path / INDEX).write_text(json.dumps(dict.fromkeys("abc", uses)))
    assert deadly(tmp_path) == ["b"]


def test_a_theme_puts_a_pattern_of_its_rule_into_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(d: Draw, b: Builder, x: Tensor) -> Made:
        return b.emit("Selu", x)

    for opset in (13, 18):
        entry = Snippet(f"one of {opset}", 1, FLOATS, opset, opset + 1, ("some-rule",), one)
        monkeypatch.setitem(SNIPPETS, entry.name, entry)
    seen = set()
    for number in range(20):
        case = generate.case_of(9, number, theme="some-rule")
        assert case is not None
        assert any(name.startswith("one of") for name in case.snippets)
        assert any(node.op_type == "Selu" for node in case.model.graph.node)
        seen.add(case.model.opset_import[0].version)
    assert seen == {13, 18}


def test_rules_that_fire_seldom_get_their_turn() -> None:
    themes = Themes(["common", "rare", "never"])
    drawn: Counter[str] = Counter()
    for _ in range(1000):
        theme = themes.next()
        drawn[theme] += 1
        themes.count(["common"] + (["rare"] if theme == "rare" else []) + ["of no graph"])
    assert drawn["common"] <= 1
    assert 10 <= drawn["rare"] <= 20
    assert 100 <= drawn["never"] <= 200
    assert sum(drawn.values()) == 1000


def test_graphs_are_drawn_in_other_types_too() -> None:
    half = onnx.TensorProto.FLOAT16
    seed = _seed(
        "g (float[2] x, bool c) => (float[2] y) { k = Constant<value_floats=[1.0, 2.0]>() \n a = Add(x, k) \n"
        " y = If(c) <then_branch = t () => (float[2] p) { p = Relu(a) },"
        " else_branch = e () => (float[2] q) { i = Cast<to=7>(a) \n q = Cast<to=1>(i) }> }"
    )
    (double, single) = seed.in_other_types
    assert double.results == [(onnx.TensorProto.DOUBLE, (2,))]
    assert single.results == [(half, (2,))]
    onnx.checker.check_model(single.proto, full_check=True)
    assert not _seed("g (int64[2] x) => (int64[2] y) { y = Neg(x) }").in_other_types


def test_other_types_are_drawn_only_where_the_opset_has_them() -> None:
    text = "g (float[2] x) => (uint8[2] y) { s = Constant<value_float=0.5>() \n y = QuantizeLinear(x, s) }"
    seed = Seed(model(text, opset=19), frozenset(), frozenset(), frozenset({17, 19}), 19)
    _, half = seed.in_other_types
    assert half.opsets == {19}
