"""Activations written as arithmetic, in the spellings of several exporters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from onnx import ModelProto, numpy_helper

from graphopt.graph import import_model
from graphopt.inference import infer_types
from graphopt_passes.blocks import RecognizeBlocks
from graphopt_passes.blocks.activations import RecognizeHardSigmoid, RecognizeHardSwish
from graphopt_passes.blocks.rectifiers import RecognizePRelu
from graphopt_passes.blocks.terms import may_round
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULES = RecognizeBlocks.rules
NUMBERS = {
    "half": 0.5,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "six": 6.0,
    "zero": 0.0,
    "sixth": 1 / 6,
    "root2": 2**0.5,
    "root": (2 / np.pi) ** 0.5,
    "cubic": 0.044715,
    "third": 0.3333,
    "quick": 1.702,
    "tenth": 0.1,
    "magic": 1.5 * 2**23,
    "small": 1.5 * 2**10,
    "seven": 7.0,
    "eight": 8.0,
    "thousand": 1000.0,
}


TYPES = {"float": np.float32, "double": np.float64, "float16": np.float16, "bfloat16": bfloat16}


def graph(text: str, opset: int = 20, dtype: str = "float", shape: str = "2,3,4") -> ModelProto:
    words = set("".join(c if c.isalnum() else " " for c in text).split())
    numpy_type = TYPES[dtype]
    weights = {k: np.asarray(v, numpy_type) for k, v in NUMBERS.items() if k in words}
    weights |= {k: v.astype(numpy_type) for k, v in SLOPES.items() if k in words}
    dims = ",".join("ABCD"[: len(shape.split(","))])
    return model(f"f ({dtype}[{shape}] x) => ({dtype}[{dims}] y) {{ {text} }}", weights, opset=opset)


SLOPES = {
    "channel": np.linspace(-0.5, 0.5, 3, dtype=np.float32).reshape(3, 1),
    "batch": np.linspace(-0.5, 0.5, 10, dtype=np.float32).reshape(5, 2, 1, 1),
}

SPELLINGS = [
    # the legacy exporter of PyTorch, its dynamo exporter, tf2onnx, Paddle, by hand
    ("Gelu", "a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)"),
    ("Gelu", "a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(half, c) y = Mul(x, d)"),
    ("Gelu", "a = Div(x, root2) b = Erf(a) c = Add(one, b) h = Mul(x, half) y = Mul(h, c)"),
    ("Gelu", "a = Div(x, root2) b = Erf(a) h = Mul(half, b) c = Add(h, half) y = Mul(c, x)"),
    ("Gelu", "a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Div(d, two)"),
    ("Gelu", """p = Pow(x, three) q = Mul(p, cubic) r = Add(x, q) s = Mul(r, root) t = Tanh(s) u = Add(t, one)
                v = Mul(x, u) y = Mul(v, half)"""),
    ("Gelu", """p = Mul(x, x) p3 = Mul(p, x) q = Mul(cubic, p3) r = Add(q, x) s = Mul(root, r) t = Tanh(s)
                u = Add(one, t) h = Mul(half, x) y = Mul(h, u)"""),
    ("Gelu", """p = Mul(x, x) q = Mul(p, cubic) q1 = Add(q, one) xr = Mul(x, root) s = Mul(xr, q1) t = Tanh(s)
                u = Add(t, one) h = Mul(u, half) y = Mul(x, h)"""),
    ("HardSwish", "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)"),
    ("HardSwish", "a = Add(x, three) b = Clip(a, zero, six) c = Div(b, six) y = Mul(c, x)"),
    ("HardSwish", "a = Add(x, three) r = Relu(a) b = Min(r, six) c = Mul(b, sixth) y = Mul(x, c)"),
    ("HardSwish", "a = Add(three, x) n = Min(a, six) b = Max(n, zero) d = Mul(x, sixth) y = Mul(d, b)"),
    ("HardSwish", "h = HardSigmoid<alpha=0.1666666716337204, beta=0.5>(x) y = Mul(x, h)"),
    ("HardSwish", "c = Mul(x, sixth) d = Add(c, half) b = Clip(d, zero, one) y = Mul(x, b)"),
    ("HardSigmoid", "a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)"),
    ("HardSigmoid", "a = Mul(x, tenth) b = Add(a, half) n = Min(b, one) y = Max(n, zero)"),
    ("Mish", "s = Softplus(x) t = Tanh(s) y = Mul(x, t)"),
    ("Mish", "e = Exp(x) p = Add(e, one) s = Log(p) t = Tanh(s) y = Mul(t, x)"),
    ("Softplus", "e = Exp(x) p = Add(one, e) y = Log(p)"),
    ("LogSoftmax", "s = Softmax<axis=1>(x) y = Log(s)"),
    ("LeakyRelu", "a = Mul(x, tenth) y = Max(x, a)"),
    ("LeakyRelu", "r = Relu(x) n = Neg(x) m = Relu(n) s = Mul(tenth, m) y = Sub(r, s)"),
    ("PRelu", "r = Relu(x) m = Min(x, zero) s = Mul(channel, m) y = Add(r, s)"),
    ("PRelu", "r = Relu(x) a = Abs(x) d = Sub(x, a) s = Mul(channel, d) h = Mul(s, half) y = Add(h, r)"),
    ("PRelu", "r = Relu(x) n = Neg(x) m = Relu(n) e = Neg(m) s = Mul(channel, e) y = Add(r, s)"),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "text"), SPELLINGS)
def test_spellings(operator: str, text: str) -> None:
    before = graph(text)
    result, log = apply(RULES, before)
    assert [n.op_type for n in result.graph.node] == [operator]
    assert apply(RULES, result)[0] == result
    assert len(log.applications) <= 2
    check_numbers(before, result, exact=False)


def test_gelu_from_erf() -> None:
    check_rewrite(
        RULES,
        graph(SPELLINGS[0][1]),
        'f (float[2,3,4] x) => (float[A,B,C] y) { y = Gelu<approximate="none">(x) }',
    )


def test_gelu_from_tanh() -> None:
    check_rewrite(
        RULES,
        graph(SPELLINGS[5][1]),
        'f (float[2,3,4] x) => (float[A,B,C] y) { y = Gelu<approximate="tanh">(x) }',
    )


@pytest.mark.parametrize(("alpha", "text"), [
    (1.0, "s = Sigmoid(x) y = Mul(x, s)"), (1.702, "a = Mul(x, quick) s = Sigmoid(a) y = Mul(s, x)"),
])  # fmt: skip
def test_swish_of_the_newest_opset(alpha: float, text: str) -> None:
    # the parser of onnx and the runtime may be older than this opset: numbers are those of the operator's definition
    result, _ = apply(RULES, graph(text, opset=24))
    (node,) = result.graph.node
    assert node.op_type == "Swish"
    assert node.attribute[0].f == np.float32(alpha)
    check_numbers(graph(text, opset=24), result, exact=False)


@pytest.mark.parametrize(
    ("text", "opset", "because"),
    [
        ("s = Sigmoid(x) y = Mul(x, s)", 25, "opset 24 only"),
        (SPELLINGS[0][1], 19, "take --opset 20"),
        (SPELLINGS[16][1], 17, "take --opset 18"),
        ("a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)", 13, "take --opset 14"),
        ("s = Sigmoid(x) y = Mul(x, s)", 20, "take --opset 24"),
    ],
)
def test_an_older_opset_is_told_what_it_lacks(text: str, opset: int, because: str) -> None:
    check_untouched(RULES, graph(text, opset=opset), because)


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("another root", "a = Div(x, two) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)"),
        ("no half", "a = Div(x, root2) b = Erf(a) c = Add(b, one) y = Mul(x, c)"),
        ("two and erf", "a = Div(x, root2) b = Erf(a) c = Add(b, two) d = Mul(x, c) y = Mul(d, half)"),
        ("another tensor", "q = Abs(x) a = Div(q, root2) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)"),
        ("another cubic", """p = Pow(x, three) q = Mul(p, tenth) r = Add(x, q) s = Mul(r, root) t = Tanh(s)
           u = Add(t, one) v = Mul(x, u) y = Mul(v, half)"""),
        ("a square", """p = Pow(x, two) q = Mul(p, cubic) r = Add(x, q) s = Mul(r, root) t = Tanh(s)
           u = Add(t, one) v = Mul(x, u) y = Mul(v, half)"""),
        ("an inner reader", """a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(x, c) e = Mul(d, half)
           y = Add(e, b)"""),
        ("x plus two", "a = Add(x, two) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, two)"),
        ("by three", "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, three)"),
        ("from one", "a = Add(x, three) b = Clip(a, one, six) c = Mul(x, b) y = Div(c, six)"),
        ("six by", "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(six, c)"),
        ("a plain clip", "y = Clip(x, zero, one)"),
        ("sigmoid of another", "t = Tanh(x) s = Sigmoid(t) y = Mul(x, s)"),
        ("two plus exp", "e = Exp(x) p = Add(two, e) y = Log(p)"),
        ("no slope", "a = Mul(x, zero) y = Max(x, a)"),
        ("a steep slope", "a = Mul(x, two) y = Max(x, a)"),
        ("a shifted line", "a = Add(x, tenth) y = Max(x, a)"),
        ("the positive part twice", "r = Relu(x) m = Max(x, zero) s = Mul(tenth, m) y = Add(r, s)"),
        ("the slope enlarges", "r = Relu(x) m = Min(x, zero) s = Mul(batch, m) t = Add(r, s) y = ReduceMax<axes=[0],"
         "keepdims=0>(t)"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, text: str) -> None:
    check_untouched(RULES, graph(text, opset=17 if "axes=" in text else 20))


ROUNDED = "a = Add(x, {0}) b = Sub(a, {0}) "


@pytest.mark.parametrize(("dtype", "number"), [("float", "magic"), ("float16", "small")])
@pytest.mark.parametrize(
    ("opset", "text"),
    [
        (24, "s = Sigmoid(b) y = Mul(x, s)"),
        (20, "c = Mul(b, tenth) y = Max(x, c)"),
        (20, "c = Add(b, three) d = Clip(c, zero, six) e = Mul(x, d) y = Div(e, six)"),
        (20, "c = Div(b, root2) d = Erf(c) e = Add(d, one) f = Mul(x, e) y = Mul(f, half)"),
        (20, "r = Relu(x) n = Neg(b) m = Relu(n) s = Mul(channel, m) y = Sub(r, s)"),
    ],
)
def test_what_is_rounded_on_purpose_is_not_the_data(dtype: str, number: str, opset: int, text: str) -> None:
    # x + c - c is x to the nearest integer; a HardSigmoid may be found behind it
    before = graph(ROUNDED.format(number) + text, opset=opset, dtype=dtype)
    result, _ = apply(RULES, before)
    assert [n.op_type for n in result.graph.node][:2] == ["Add", "Sub"]
    if dtype == "float":
        check_numbers(
            before, result, exact=False, inputs={"x": np.linspace(-7, 7, 24, dtype=np.float32).reshape(2, 3, 4)}
        )


@pytest.mark.parametrize("text", [
    ROUNDED.format("magic") + "c = Clip(b, zero, six) y = Div(c, six)",
    ROUNDED.format("magic") + "c = Mul(b, sixth) d = Add(c, half) y = Clip(d, zero, one)",
    "q = Mul(x, two) a = Sub(q, magic) b = Add(a, magic) c = Clip(b, zero, six) y = Div(c, six)",
])  # fmt: skip
def test_a_hard_sigmoid_of_what_is_rounded(text: str) -> None:
    before = graph(text)
    result, _ = apply(RULES, before)
    assert [n.op_type for n in result.graph.node][-3:] in (["Add", "Sub", "HardSigmoid"], ["Sub", "Add", "HardSigmoid"])
    check_numbers(before, result, exact=False, inputs={"x": np.linspace(-1, 7, 24, dtype=np.float32).reshape(2, 3, 4)})


@pytest.mark.parametrize(
    ("dtype", "number", "rounds"),
    [
        ("float", "thousand", False), ("float", "magic", True), ("double", "thousand", False),
        ("double", "magic", True), ("float16", "eight", False), ("float16", "thousand", True),
        ("bfloat16", "seven", False), ("bfloat16", "eight", True),
    ],
)  # fmt: skip
def test_which_numbers_may_round(dtype: str, number: str, rounds: bool) -> None:
    imported = import_model(graph("y = Neg(x)", dtype=dtype))
    (tensor,) = imported.graph.inputs
    assert may_round(0.0, tensor)  # the type is not known yet
    infer_types(imported)
    assert may_round(NUMBERS[number], tensor) is rounds
    assert may_round(-NUMBERS[number], tensor) is rounds


@pytest.mark.parametrize(
    ("operator", "opset", "text"),
    [
        ("Softplus", 22, "e = Exp(x) p = Add(one, e) y = Log(p)"),
        ("HardSigmoid", 22, "a = Add(x, three) b = Clip(a, zero, six) y = Div(b, six)"),
        ("HardSwish", 22, "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)"),
        ("Mish", 22, "s = Softplus(x) t = Tanh(s) y = Mul(x, t)"),
        ("LeakyRelu", 16, "a = Mul(x, tenth) y = Max(x, a)"),
        ("LeakyRelu", 16, "r = Relu(x) n = Neg(x) m = Relu(n) s = Mul(tenth, m) y = Sub(r, s)"),
        ("PRelu", 16, "r = Relu(x) n = Neg(x) m = Relu(n) s = Mul(channel, m) y = Sub(r, s)"),
    ],
)
def test_types_that_an_operator_takes_later(operator: str, opset: int, text: str) -> None:
    before = graph(text, opset=opset, dtype="bfloat16")
    assert [n.op_type for n in apply(RULES, before)[0].graph.node] == [operator]
    if "Softplus(" not in text:  # the arithmetic has an operator that does not take it either
        check_untouched(RULES, graph(text, opset=opset - 1, dtype="bfloat16"), "does not take data of this type")


def test_the_sloped_part_of_infinity() -> None:
    """(x - |x|) / 2 is no number there, where PRelu gives infinity: the rule says that it needs finite numbers."""
    before = graph("r = Relu(x) a = Abs(x) d = Sub(x, a) s = Mul(channel, d) y = Add(r, s)")
    assert [n.op_type for n in apply(RULES, before)[0].graph.node] == ["PRelu"]
    assert RecognizePRelu.needs_finite


def test_constants_rounded_to_another_type_are_told_apart() -> None:
    rounded = graph("a = Div(x, r) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)")
    rounded.graph.initializer.append(numpy_helper.from_array(np.float32(1.4142), "r"))
    check_untouched(RULES, rounded)


@pytest.mark.parametrize(("operator", "text"), SPELLINGS)
def test_activations_of_doubles_stay_arithmetic(operator: str, text: str) -> None:
    before = graph(text, opset=24, dtype="double")
    if operator == "LogSoftmax":
        check_rewrite(RULES, before, [operator])
    else:
        check_untouched(RULES, before, because="of doubles" if "HardSigmoid<" not in text else None)


@given(data=st.data())
@settings(max_examples=60, derandomize=True, deadline=None)
def test_where_it_fires_the_numbers_are_equal(data: st.DataObject) -> None:
    _, text = data.draw(st.sampled_from(SPELLINGS))
    names = [n for n in NUMBERS if n in text.replace("(", " ").replace(")", " ").replace(",", " ").split()]
    if names and data.draw(st.booleans()):  # another constant: mostly another function
        old, new = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(sorted(NUMBERS)))
        text = text.replace(f" {old})", f" {new})").replace(f"({old},", f"({new},")
    before = graph(text)
    result, log = apply(RULES, before)
    if log.applications:
        check_numbers(before, result, exact=False)
    else:
        assert result == before


@pytest.mark.parametrize(("top", "fires"), [(1.0, True), (float(np.float32(1) - np.finfo(np.float32).eps), False)])
def test_a_hard_sigmoid_ends_at_one(top: float, fires: bool) -> None:
    """log(1 − hard sigmoid) tells a bound of 1 from the number before it."""
    weights = {name: np.float32(v) for name, v in {"s": 0.2, "o": 0.5, "lo": 0, "hi": top}.items()}
    proto = model("g (float[4] x) => (float[4] y) { a = Mul(x, s) b = Add(a, o) y = Clip(b, lo, hi) }", weights)
    if fires:
        check_rewrite(RecognizeHardSigmoid(), proto, ["HardSigmoid"])
    else:
        check_untouched(RecognizeHardSigmoid(), proto)


def test_a_hard_swish_of_less_than_x_is_none() -> None:
    """In float16 5.98 / 6 is not 1, and four roundings of 1 away."""
    weights = {name: np.float16(v) for name, v in {"three": 3, "lo": 0, "hi": 5.98, "sixth": 1 / 6}.items()}
    text = (
        "g (float16[4] x) => (float16[4] y) { a = Add(x, three) c = Clip(a, lo, hi) p = Mul(x, c) y = Mul(p, sixth) }"
    )
    check_untouched(RecognizeHardSwish(), model(text, weights))
