"""Tuning a model: verdicts are followed by the cost model, remembered by graph and device, and measured for real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphopt.engine import Source, run_pipeline
from graphopt.errors import ExecutionError
from graphopt.pipeline import Options, Pipeline
from graphopt.targets import Target
from graphopt.tune import Budget, Comparison, EngineMeter, LatencyMeter, choose_meter, tune
from graphopt_passes.siblings import MergeSiblings
from tests.graphopt.cost.test_trade import MEETING, PARTING
from tests.support.models import model

PIPELINE = Pipeline((MergeSiblings(),))
ORT = Options(target=Target.ONNXRUNTIME)


class Counting:
    """Fewer nodes are better; counts how often it was asked."""

    name = "nodes"
    asked = 0

    def prepare(self, proto: onnx.ModelProto) -> int:
        return len(proto.graph.node)

    def compare(self, current: Any, candidate: Any) -> Comparison:
        self.asked += 1
        return Comparison(candidate / current, 0.0)


def test_a_measured_loss_overrules_a_predicted_gain(tmp_path: Path) -> None:
    class More(Counting):
        name = "more nodes are better"

        def compare(self, current: Any, candidate: Any) -> Comparison:
            return Comparison(current / candidate, 0.0)

    source = Source(MEETING)
    found = tune(source, PIPELINE, ORT, meter=More(), folder=tmp_path)
    assert {k: v.take for k, v in found.verdicts.items()} == {"merge-adjacent-convs@a": False}
    run = run_pipeline(source, PIPELINE, replace(ORT, verdicts=found.verdicts))
    refused = next(d for d in run.decisions if d.rule == "merge-adjacent-convs")
    assert not refused.taken
    assert refused.reason.startswith("measured: 0.")


def test_a_measured_gain_overrules_a_predicted_loss(tmp_path: Path) -> None:
    text = """g (float[1,8,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z) {
        a = Conv(x, v)  b = Conv(x, w)  y = Relu(a)  z = Relu(b) }"""
    fewer = model(text, {k: np.ones((4, 8, 1, 1), np.float32) for k in "vw"})
    options = Options(target=Target.TENSORRT)
    source = Source(fewer)
    assert not any(d.taken for d in run_pipeline(source, PIPELINE, options).decisions)
    found = tune(source, PIPELINE, options, meter=Counting(), folder=tmp_path)
    run = run_pipeline(source, PIPELINE, replace(options, verdicts=found.verdicts))
    assert [n.op for n in run.model.graph.sorted_nodes()] == ["Conv", "Relu", "Split"]


def test_results_are_remembered_by_graph_options_and_meter(tmp_path: Path) -> None:
    meter = Counting()
    first = tune(Source(PARTING), PIPELINE, ORT, meter=meter, folder=tmp_path)
    asked = meter.asked
    again = tune(Source(PARTING), PIPELINE, ORT, meter=meter, folder=tmp_path)
    assert (again.from_cache, first.from_cache, meter.asked) == (True, False, asked)
    assert replace(again, from_cache=False) == first
    assert not tune(Source(MEETING), PIPELINE, ORT, meter=meter, folder=tmp_path).from_cache
    assert not tune(Source(PARTING), PIPELINE, replace(ORT, batch=8), meter=meter, folder=tmp_path).from_cache
    assert not tune(Source(PARTING), PIPELINE, ORT, meter=meter, folder=tmp_path, budget=Budget(trials=1)).from_cache


def test_weights_beside_the_model_are_given_to_the_meter(tmp_path: Path) -> None:
    class Reading(Counting):
        def prepare(self, proto: onnx.ModelProto) -> int:
            onnx.checker.check_model(proto, full_check=True)
            assert all(t.raw_data and not t.external_data for t in proto.graph.initializer)
            return super().prepare(proto)

    path = tmp_path / "model.onnx"
    proto = onnx.ModelProto()
    proto.CopyFrom(MEETING)
    onnx.save_model(proto, path, save_as_external_data=True, location="weights", size_threshold=0)
    source = Source(onnx.load(path, load_external_data=False), tmp_path)
    meter = Reading()
    assert tune(source, PIPELINE, ORT, meter=meter, folder=tmp_path).stop == "done"
    assert meter.asked


def test_a_spoilt_memory_is_measured_again(tmp_path: Path) -> None:
    tune(Source(PARTING), PIPELINE, ORT, meter=Counting(), folder=tmp_path)
    (stored,) = tmp_path.iterdir()
    stored.write_text("{")
    assert not tune(Source(PARTING), PIPELINE, ORT, meter=Counting(), folder=tmp_path).from_cache


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert tune(Source(PARTING), PIPELINE, ORT, meter=Counting(), folder=blocked / "folder").stop == "done"


def test_latency_is_measured_on_the_cpu() -> None:
    meter = LatencyMeter(rounds=3, slice_seconds=0.0)
    prepared = meter.prepare(MEETING)
    found = meter.compare(prepared, prepared)
    assert found.ratio > 0
    assert found.noise >= 0.01
    assert "CPUExecutionProvider" in meter.name


def test_a_model_that_does_not_run_is_named() -> None:
    unknown = model("g (float[2] x) => (float[2] y) { y = far.Away(x) }", domains=', "far" : 1')
    with pytest.raises(ExecutionError, match="cannot be measured"):
        LatencyMeter().prepare(unknown)


def test_the_meter_suits_the_target() -> None:
    assert isinstance(choose_meter(ORT, Source(MEETING)), LatencyMeter)


def test_engine_facts_are_compared_without_a_gpu() -> None:
    pytest.importorskip("tensorrt_rtx")
    meter = EngineMeter()
    before, after = meter.prepare(MEETING), meter.prepare(run_pipeline_model())
    assert before.kernels >= after.kernels
    assert meter.compare(before, before).ratio == pytest.approx(1.0)


def run_pipeline_model() -> onnx.ModelProto:
    from graphopt.graph import export_model

    return export_model(run_pipeline(Source(MEETING), PIPELINE, Options()).model)
