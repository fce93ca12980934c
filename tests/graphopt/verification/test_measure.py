from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphopt.verification import rounding
from graphopt.verification.draw import draw
from graphopt.verification.interface import required_inputs
from graphopt.verification.measure import Measure
from graphopt.verification.ranges import infer_ranges
from graphopt.verification.sessions import OnnxRuntime, Reference
from graphopt.verification.source import Located
from graphopt.verification.values import Feeds
from graphopt.verification.widen import CannotWiden, widen
from tests.graphopt.verification.models import model, with_weights

MATRIX = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
FUNCTION = (
    '<domain: "own", opset_import: ["" : 17]> third (a) => (b) { t = Constant<value = float {3.0}>() b = Div(a, t) }'
)

CASES = {
    "MatMul": "(float[4,8] x) => (float[4,8] y) { y = MatMul(x, w) }",
    "float16": "(float16[4,8] x) => (float16[4,8] y) { h = Cast<to=10>(w) y = MatMul(x, h) }",
    "bfloat16": "(float[4,8] x) => (float[4,8] y) { b = Cast<to=16>(x) c = Cast<to=1>(b) y = Exp(c) }",
    "Conv": "(float[1,4,8,8] x, float[6,2,3,3] k) => (float[1,6,6,6] y) { y = Conv<group=2>(x, k) }",
    "ConvTranspose": "(float[1,4,5,5] x, float[4,3,3,3] k) => (float[1,6,7,7] y) { y = ConvTranspose<group=2>(x, k) }",
    "constants": "(float[4,8] x) => (float[4,8] y) { a = Constant<value_float=0.1>() b = Constant<value_floats=[0.3]>()"
    " s = Shape(x) z = ConstantOfShape(s) p = Add(x, a) q = Mul(p, b) y = Add(q, z) }",
    "quantized": "(float[4,8] x) => (float[4,8] y) { s = Constant<value = float {0.05}>()"
    " z = Constant<value = uint8 {128}>() q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
    "Resize": "(float[1,2,4,4] x) => (float[a,b,c,d] y) { f = Constant<value_floats=[1.0,1.0,2.0,2.0]>()"
    ' y = Resize<mode="linear">(x, , f) }',
    "If": "(float[4,8] x, bool c) => (float[4,8] y) { y = If (c) <then_branch = g () => (float[4,8] p) { p = Exp(x) },"
    " else_branch = h () => (float[4,8] q) { k = Constant<value_float=0.7>() q = Mul(x, k) }> }",
    "function": "(float[4,8] x) => (float[4,8] y) { y = own.third(x) }",
    "batch norm, opset 13": "(float[2,8,3] x, float[8] s, float[8] b, float[8] m, float[8] v) => (float[2,8,3] y)"
    " { y = BatchNormalization<momentum=0.9>(x, s, b, m, v) }",
    "gelu": "(float[4,8] x) => (float[4,8] y) { e = Erf(x) y = Mul(e, x) }",
    "LSTM": "(float[5,2,8] x, float[1,16,8] k, float[1,16,4] r) => (float[5,1,2,4] y)"
    " { y = LSTM<hidden_size=4>(x, k, r) }",
}


def case(name: str) -> onnx.ModelProto:
    opset = 13 if "13" in name else 17
    return with_weights(model(CASES[name], opset=opset, functions=FUNCTION, domains=', "own" : 1'), w=MATRIX)


def inputs(proto: onnx.ModelProto) -> Feeds:
    return draw(required_inputs(proto), np.random.default_rng(0), infer_ranges(proto))


@pytest.mark.parametrize("name", CASES)
def test_the_float64_run_computes_the_same_more_exactly(name: str) -> None:
    proto = case(name)
    before = proto.SerializeToString()
    feeds = inputs(proto)
    single = np.asarray(OnnxRuntime(Located(proto)).run(feeds)["y"])
    exact = Measure(Located(proto)).exact(feeds)
    assert exact is not None
    assert exact["y"].dtype == np.float64
    eps = {"float16": 1e-2, "bfloat16": 2e-2, "quantized": 1e-6}.get(name, 1e-5)
    np.testing.assert_allclose(single.astype(np.float64), exact["y"], rtol=eps, atol=eps)
    if name not in ("quantized", "Resize"):
        assert (single.astype(np.float64) != exact["y"]).any()
    assert proto.SerializeToString() == before


@pytest.mark.parametrize("name", CASES)
def test_rounding_errors_are_of_the_originals_size(name: str) -> None:
    proto = case(name)
    feeds = inputs(proto)
    measure = Measure(Located(proto))
    exact = measure.exact(feeds)
    runs = list(measure.perturbed(feeds))
    assert exact is not None
    assert len(runs) > 1
    single = np.asarray(OnnxRuntime(Located(proto)).run(feeds)["y"]).astype(np.float64)
    own = np.abs(single - exact["y"]).max()
    spread = max(np.abs(run["y"] - exact["y"]).max() for run in runs)
    if name not in ("quantized", "Resize", "bfloat16"):
        assert own / 10 <= spread <= 100 * own
        assert (runs[0]["y"] != runs[1]["y"]).any()


def test_numbers_that_the_type_holds_are_not_perturbed() -> None:
    mask = model(
        "(int64[4] m) => (float[4] y) { f = Cast<to=1>(m) o = Constant<value = float {1.0}>() d = Sub(o, f)"
        " b = Constant<value = float {-1e9}>() y = Mul(d, b) }"
    )
    feeds = {"m": np.array([0, 1, 0, 1])}
    for run in Measure(Located(mask)).perturbed(feeds):
        assert run["y"].tolist() == [-1e9, 0, -1e9, 0]


def test_the_same_seed_gives_the_same_errors() -> None:
    proto = case("MatMul")
    feeds = inputs(proto)
    one, other = (list(Measure(Located(proto)).perturbed(feeds)) for _ in range(2))
    assert all((a["y"] == b["y"]).all() for a, b in zip(one, other, strict=True))


def test_a_run_is_made_once_and_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Measure(Located(case("MatMul")))
    feeds = inputs(case("MatMul"))
    calls: list[int] = []
    run = measure.exact
    monkeypatch.setattr(measure, "exact", lambda feeds: calls.append(1) or run(feeds))
    evidence = measure.on(feeds).of("y")
    assert calls == []
    evidence.exact()
    measure.on(feeds).of("y").exact()
    assert calls == [1]


def test_weights_too_large_for_float64_are_refused() -> None:
    proto = model("(float[2] x) => (float[2] y) { y = Neg(x) }")
    tensor = proto.graph.initializer.add(name="w", data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.dims.extend([2**15, 2**14])
    with pytest.raises(CannotWiden, match="too large"):
        widen(Located(proto))


def test_unknown_operators_are_refused() -> None:
    proto = model("(float[2] x) => (float[2] y) { z = acme.Foo(x) y = Neg(z) }", domains=', "acme" : 1')
    with pytest.raises(CannotWiden, match="not known"):
        widen(Located(proto))


def test_the_references_batch_norm_trains_where_it_should() -> None:
    text = (
        "(float[2,3,4] x, float[3] s, float[3] b, float[3] m, float[3] v) => (float[2,3,4] y, float[3] p, float[3] q)"
        " { y, p, q = BatchNormalization<training_mode=1, momentum=0.7>(x, s, b, m, v) }"
    )
    proto = model(text)
    feeds = inputs(proto)
    one, other = OnnxRuntime(Located(proto)).run(feeds), Reference(Located(proto)).run(feeds)
    for name in one:
        np.testing.assert_allclose(np.asarray(one[name]), np.asarray(other[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "attributes",
    [
        "",
        "group=2, strides=[2,3], pads=[1,0,2,1]",
        "dilations=[2,1], output_padding=[1,0], strides=[2,2]",
        'auto_pad="SAME_UPPER", strides=[2,2]',
        'auto_pad="SAME_LOWER", strides=[2,3]',
        "output_shape=[9,11], strides=[2,2]",
    ],
)
def test_the_references_transposed_convolution(attributes: str) -> None:
    text = f"(float[2,4,5,6] x, float[4,3,3,3] w) => (float[a,b,c,d] y) {{ y = ConvTranspose<{attributes}>(x, w) }}"
    proto = model(text.replace("<>", ""))
    feeds = inputs(proto)
    expected, found = (engine(Located(proto)).run(feeds)["y"] for engine in (OnnxRuntime, Reference))
    assert np.asarray(found).shape == np.asarray(expected).shape
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Exp(x)", False),
        ("i = ArgMax(x) y = Cast<to=1>(i)", True),
        ("i = Cast<to=7>(x) y = Cast<to=1>(i)", True),
        ("s = Shape(x) t = Cast<to=6>(s) f = Cast<to=1>(t) y = Mul(x, f)", False),
        ("s = Shape(x) c = Equal(s, s) y = Where(c, x, x)", False),
        ("c = Less(x, x) y = Where(c, x, x)", True),
    ],
)
def test_where_results_jump(body: str, expected: bool) -> None:
    assert rounding.jumps(model(f"(float[2] x) => (float[n] y) {{ {body} }}")) is expected
