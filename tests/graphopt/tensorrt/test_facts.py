from __future__ import annotations

import json

import pytest

from graphopt.errors import EngineError
from graphopt.tensorrt.facts import EngineFacts, TensorFacts, engine_facts, parse_layers
from graphopt.tensorrt.record import Record, plain_reason

_FORM = "StrideOrder: [3,2,1,0], Datatype: {}, Format: (Linear) Row major linear format }}"
X = "{ Name: x, Dimensions: [1,3,8,8], Strides: [192,64,8,1], " + _FORM.format("Float")
W = "{ Name: w, Dimensions: [4,3,3,3], Strides: [27,9,3,1], " + _FORM.format("Half")
LISTING = f"""Layers:
Name: /a/Conv_0, LayerType: correlation, Inputs: [ {X}], Constants: [ {W}, {W}], Outputs: [ {X}], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: /a/Conv]
Name: s, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, EventId: 1, Metadata: 
Name: w, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 1, EventId: 1, Metadata: 
Name: k, LayerType: kgen, Inputs: [ {X}, {X}], Constants: [], Outputs: [ {X}], TacticName: k, StreamId: 1, Metadata: 

I/O Tensors:
 Name: x, IOMode: Input, DataType: Float, Dimensions: [1,3,8,8], Location: Device
"""  # noqa: W291, E501


def facts(listing: str = LISTING) -> EngineFacts:
    return engine_facts(Record(listing=listing, activation_bytes=1000, weights_bytes=20))


def test_layers_of_a_listing() -> None:
    first = facts().layers[0]
    assert (first.name, first.type) == ("/a/Conv_0", "correlation")
    assert first.inputs == first.outputs == (TensorFacts("x", (1, 3, 8, 8), "Float"),)
    assert first.constants == (TensorFacts("w", (4, 3, 3, 3), "Half"),) * 2
    assert [layer.type for layer in facts().layers] == ["correlation", "signal", "wait", "kgen"]


def test_totals() -> None:
    found = facts()
    assert (found.kernels, found.sync_layers, found.activation_bytes, found.weights_bytes) == (2, 2, 1000, 20)
    assert found.moved_bytes == 5 * 192 * 4  # constants are weights, not activations
    assert found.types == {"correlation": 1, "signal": 1, "wait": 1, "kgen": 1}
    assert json.loads(json.dumps(found.to_dict()))["kernels"] == 2


@pytest.mark.parametrize(
    ("dims", "dtype", "size"),
    [
        ((), "Float", 4),
        ((2, 3), "Half", 12),
        ((3,), "Int4", 2),
        ((0, 4), "Float", 0),
        ((-1, 4), "Float", None),
        ((1,), "?", None),
    ],
)
def test_size_of_a_tensor(dims: tuple[int, ...], dtype: str, size: int | None) -> None:
    assert TensorFacts("t", dims, dtype).bytes == size


def test_an_unknown_size_makes_the_sum_unknown() -> None:
    assert facts(LISTING.replace("[1,3,8,8], Strides", "[-1,3,8,8], Strides")).moved_bytes is None


def test_older_form_without_constants() -> None:
    tensor = "{ Name: x, Location: Device, Dimensions: [1,3], Format/Datatype: Half }"
    (layer,) = parse_layers(
        f"Layers:\nName: c, LayerType: CaskConvolution, Inputs: [ {tensor}], Outputs: [ {tensor}], TacticName: t"
    )
    assert layer.inputs == (TensorFacts("x", (1, 3), "Half"),)


def test_an_engine_without_layers_has_no_kernels() -> None:
    assert facts("Layers:\n\nI/O Tensors:\n").kernels == 0


@pytest.mark.parametrize(
    "listing", [None, "Layers:\nName: a, something new\n", "Layers:\nName: a, LayerType: b, Inputs: [ { x"]
)
def test_what_cannot_be_read_is_an_error_and_never_zero(listing: str | None) -> None:
    with pytest.raises(EngineError):
        engine_facts(Record(listing=listing))


def test_record_keeps_the_totals() -> None:
    record = Record()
    for line in (
        "Total Activation Memory: 18126848 bytes",
        "Total Weights Memory: 7",
        "Total Weights Memory: many",
        "else",
    ):
        record.keep(line)
    assert (record.activation_bytes, record.weights_bytes, record.listing) == (18126848, 7, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("false", ""),
        ("Assertion failed: resolved(axes): Axis input must be constant!", "Axis input must be constant"),
        ('!isTraining && "It does not train."', "It does not train"),
        (
            "X::y: Error Code 4: API Usage Error (n: dims = 3 must match. In validate at /_src/a.cpp:1)",
            "dims = 3 must match",
        ),
        ("one\n\x1b[31mline", "one ?[31mline"),
        ("something: else", "something: else"),
    ],
)
def test_reasons_are_one_plain_line(text: str, reason: str) -> None:
    assert plain_reason(text) == reason
