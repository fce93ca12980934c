from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx
import pytest

from graphopt.errors import ExecutionError
from graphopt.verification import Tolerance, verify
from graphopt.verification.sessions import Failed, OnnxRuntime, Reference, Rejected, bits, with_ir_version
from graphopt.verification.source import Located
from graphopt.verification.values import Value
from tests.graphopt.verification.models import model, with_weights


def run(proto: onnx.ModelProto, feeds: Mapping[str, Value]) -> dict[str, Value]:
    return OnnxRuntime(Located(proto)).run(feeds)


@pytest.mark.parametrize("ir", [3, 8, 13, 99])
def test_any_ir_version_is_run(ir: int) -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Neg(x) }", opset=8, ir=ir)
    assert verify(proto, proto).passed


def test_the_ir_version_is_replaced_in_the_message() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Neg(x) }", ir=99)
    other = onnx.ModelProto.FromString(with_ir_version(proto.SerializeToString(), 10))
    assert other.ir_version == 10
    other.ir_version = 99
    assert other == proto


CONV = "(double[1,2,5,5] x, double[3,2,3,3] w) => (double[1,3,3,3] y) {{ y = Conv(x, w) {} }}"


def test_what_onnxruntime_has_no_kernel_for_is_run_by_the_reference() -> None:
    double = model(CONV.format(""))
    with pytest.raises(Rejected) as caught:
        OnnxRuntime(Located(double))
    assert caught.value.unimplemented
    found = verify(double, double)
    assert found.passed
    assert "onnx.reference" in found.how


def test_the_reference_finds_differences_too() -> None:
    padded = "(double[1,2,5,5] x, double[3,2,3,3] w) => (double[1,3,3,3] y) { n = Neg(w) y = Conv(x, n) }"
    assert not verify(model(CONV.format("")), model(padded)).passed


def test_a_candidate_without_a_kernel_is_compared_by_the_reference() -> None:
    single = model("(float[2] x) => (float[2] y) { y = Erf(x) }")
    double = model("(float[2] x) => (float[2] y) { a = Cast<to=11>(x) b = Erf(a) y = Cast<to=1>(b) }")
    found = verify(single, double)
    assert found.passed
    assert "onnx.reference" in found.how


def test_types_that_numpy_lacks() -> None:
    text = "(bfloat16[4] x) => (bfloat16[4] y, float8e4m3fn[4] z) { y = Identity(x) z = Cast<to=17>(x) }"
    narrow = model(text, opset=21, ir=10)
    found = run(narrow, {"x": np.array([1, -2, 0.5, 3], dtype=ml_dtypes.bfloat16)})
    assert isinstance(found["y"], np.ndarray)
    assert found["y"].dtype == ml_dtypes.bfloat16
    assert found["y"].astype(np.float32).tolist() == [1, -2, 0.5, 3]
    assert isinstance(found["z"], np.ndarray)
    assert found["z"].dtype == ml_dtypes.float8_e4m3fn
    assert found["z"].astype(np.float32).tolist() == [1, -2, 0.5, 3]
    assert verify(narrow, narrow).passed


def test_numbers_of_four_bits() -> None:
    packed = model("(float[3] x) => (int4[3] y, uint4[3] z) { y = Cast<to=22>(x) z = Cast<to=21>(x) }", opset=21, ir=10)
    found = run(packed, {"x": np.array([-3, 5, 7], dtype=np.float32)})
    assert np.asarray(found["y"]).astype(np.int64).tolist() == [-3, 5, 7]
    assert np.asarray(found["z"]).astype(np.int64)[1:].tolist() == [5, 7]
    fed = model("(int4[3] x) => (float[3] y) { y = Cast<to=1>(x) }", opset=21, ir=10)
    assert verify(fed, fed).passed


@pytest.mark.parametrize(
    ("dtype", "width"), [("int4", 4), ("uint2", 2), ("float4_e2m1fn", 4), ("bfloat16", 16), ("float8_e5m2", 8)]
)
def test_bits(dtype: str, width: int) -> None:
    assert bits(np.dtype(getattr(ml_dtypes, dtype))) == width
    assert bits(np.dtype(np.int32)) == 32


SEQUENCE = (
    "(seq(float[2]) x) => (seq(float[2]) y, float[2] z) { y = Identity(x) i = Constant<value_int=0>()"
    " z = SequenceAt(x, i) }"
)
SHORTER = SEQUENCE.replace("Identity", "SequenceErase")
OPTIONAL = "(optional(float[2]) x) => (bool y) { y = OptionalHasElement(x) }"
STRINGS = "(string[n] x) => (string[n] y) { y = Identity(x) }"
COMPLEX = "(float[1,8,1] x) => (float[p,q,r] y) { y = DFT(x) }"


@pytest.mark.parametrize("text", [SEQUENCE, OPTIONAL, STRINGS, COMPLEX])
def test_sequences_optionals_strings(text: str) -> None:
    assert verify(model(text), model(text)).passed


def test_a_shorter_sequence_fails() -> None:
    found = verify(model(SEQUENCE), model(SHORTER))
    assert found.problems == ("The output y differs: it is a sequence of 1 instead of a sequence of 2.",)


def test_onnxruntimes_own_operators_are_run() -> None:
    fused = model("(float[2] x) => (float[2] y) { y = com.microsoft.Gelu(x) }", domains=', "com.microsoft" : 1')
    plain = model(
        "(float[2] x) => (float[2] y) { r = Constant<value = float {1.4142135}>() d = Div(x, r) e = Erf(d)"
        " one = Constant<value = float {1.0}>() p = Add(e, one) m = Mul(x, p) h = Constant<value = float {0.5}>()"
        " y = Mul(m, h) }"
    )
    assert verify(plain, fused).passed


def test_functions_are_run() -> None:
    function = '<domain: "own", opset_import: ["" : 17]> twice (a) => (b) { b = Add(a, a) }'
    called = model("(float[2] x) => (float[2] y) { y = own.twice(x) }", functions=function, domains=', "own" : 1')
    assert verify(called, model("(float[2] x) => (float[2] y) { y = Add(x, x) }")).passed
    assert not verify(called, model("(float[2] x) => (float[2] y) { y = Add(x, x) z = Mul(x, y) }")).problems


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Neg(x) }")
    verify(proto, model("(float[2] x) => (float[2] y) { y = Abs(x) }"), tolerance=Tolerance(atol=0.0))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_an_engine_says_why_it_failed_in_one_line() -> None:
    bad = model("(int64[1] i) => (float[1] y) <float[2] t = {1.0, 2.0}> { y = Gather(t, i) }")
    with pytest.raises(Failed) as caught:
        run(bad, {"i": np.array([9])})
    assert "\n" not in str(caught.value)
    assert "ONNXRuntimeError" not in str(caught.value)
    with pytest.raises(Failed):
        Reference(Located(bad)).run({"i": np.array([9])})


def test_a_library_that_cannot_be_loaded_is_named() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Neg(x) }")
    with pytest.raises(ExecutionError, match=r"library /nowhere/ops\.so cannot be loaded"):
        verify(proto, proto, custom_op_libraries=["/nowhere/ops.so"])


def test_an_operator_without_a_kernel_is_run_by_its_definition() -> None:
    double = model("(double[3] x) => (double[3] y) { y = Softplus(x) }", opset=18)
    found = run(double, {"x": np.array([-1.0, 0.0, 2.0])})["y"]
    np.testing.assert_allclose(found, np.log1p(np.exp([-1.0, 0.0, 2.0])), rtol=1e-15)


def test_defaults_of_a_functions_attributes_count() -> None:
    function = '<domain: "own", opset_import: ["" : 17]> leak <slope: float = 0.25> (a) => (b) '
    function += "{ b = LeakyRelu<alpha: float = @slope>(a) }"
    proto = model("(float[2] x) => (float[2] y) { y = own.leak(x) }", functions=function, domains=', "own" : 1')
    feeds = {"x": np.array([-2.0, 4.0], np.float32)}
    for engine in (OnnxRuntime, Reference):
        np.testing.assert_array_equal(engine(Located(proto)).run(feeds)["y"], np.array([-0.5, 4.0], np.float32))


def test_a_norm_that_trains_starts_each_run_from_what_it_was_given() -> None:
    nodes = "y, m, v = BatchNormalization<training_mode = 1>(x, s, s, s, s)"
    head = "(float[2,3,4] x) => (float[2,3,4] y, float[3] m, float[3] v)"
    proto = with_weights(model(f"{head} {{ {nodes} }}"), s=np.ones(3, np.float32))
    engine = OnnxRuntime(Located(proto))
    feeds = {"x": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}
    first, second = engine.run(feeds), engine.run(feeds)
    for name in ("y", "m", "v"):
        np.testing.assert_array_equal(first[name], second[name])
    assert verify(proto, proto, samples=3).passed


_TRAINED = "y, m, v = BatchNormalization<training_mode = 1>(x, s, s, s, var) a = Neg(m) b = Neg(v) z = Mul(b, var)"


@pytest.mark.parametrize(
    "nodes",
    [
        _TRAINED,
        "c = Constant<value = bool {1}>() y, a, z = If(c) <then_branch = t () => (y, a, z) { NODES }, "
        "else_branch = e () => (y, a, z) { NODES }>".replace("NODES", _TRAINED),
    ],
    ids=["graph", "body"],
)
def test_another_node_sees_the_statistics_from_before_the_training(nodes: str) -> None:
    head = "(float[2,3,4] x) => (float[2,3,4] y, float[3] a, float[3] z)"
    proto = with_weights(model(f"{head} {{ {nodes} }}"), s=np.ones(3, np.float32), var=np.full(3, 3, np.float32))
    feeds = {"x": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}
    expected = Reference(Located(proto)).run(feeds)
    engine = OnnxRuntime(Located(proto))
    for found in (engine.run(feeds), engine.run(feeds)):
        for name in ("y", "a", "z"):
            np.testing.assert_allclose(np.asarray(found[name]), np.asarray(expected[name]), rtol=1e-5)


def test_the_reference_runs_functions_of_another_opset_where_that_means_the_same() -> None:
    function = '<domain: "own", opset_import: ["" : 16]> leak <slope: float = 0.25> (a) => (b) '
    function += "{ b = LeakyRelu<alpha: float = @slope>(a) }"
    proto = model("(float[2] x) => (float[2] y) { y = own.leak(x) }", functions=function, domains=', "own" : 1')
    given = Reference(Located(proto)).run({"x": np.array([-2.0, 4.0], np.float32)})
    np.testing.assert_array_equal(given["y"], np.array([-0.5, 4.0], np.float32))
