"""What a file says of shapes and values and need not keep is not believed: the result is what the original gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

import graphopt
from tests.support.models import model, run

X = np.arange(12, dtype=np.float32).reshape(3, 4)
TARGETS = ("portable", "onnxruntime", "tensorrt")
Feeds = Mapping[str, Any]


def ints(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def check(proto: ModelProto, feeds: Feeds) -> None:
    """Every target's result gives what the original gives, and a second run changes nothing."""
    expected = run(proto, feeds)
    for target in TARGETS:
        result = graphopt.optimize(proto, target=target, verify=False)
        for before, after in zip(expected, run(result.model, feeds), strict=True):
            np.testing.assert_array_equal(after, before, strict=True)
        assert not graphopt.optimize(result.model, target=target, verify=False).report.applied


LIKE_E = "s = Shape(e) y = Expand(one, s)"
OVERRIDDEN = {
    "Reshape": ("float[2,4] x, int64[2] w", "y = Reshape(x, w)", ints(2, -1), X[:2], ints(4, 2)),
    "Expand": ("float[1,4] x, int64[2] w", "e = Expand(x, w) y = Neg(e)", ints(1, 1), X[:1], ints(3, 4)),
    "Tile": ("float[3,4] x, int64[2] w", f"e = Tile(x, w) {LIKE_E}", ints(1, 1), X, ints(2, 1)),
    "Slice": ("float[3,4] x, int64[1] w", "y = Slice(x, zero, w)", ints(3), X, ints(1)),
    "Pad": ("float[3,4] x, int64[4] w", f"e = Pad(x, w) {LIKE_E}", ints(0, 0, 0, 0), X, ints(1, 0, 1, 0)),
    "ReduceSum": ("float[3,4] x, int64[1] w", f"e = ReduceSum(x, w) {LIKE_E}", ints(0), X, ints(1)),
    "ConstantOfShape": ("float[3,4] x, int64[1] w", "e = ConstantOfShape(w) y = Add(x, e)", ints(1), X, ints(4)),
}  # fmt: skip


@pytest.mark.parametrize(("inputs", "text", "default", "x", "given"), OVERRIDDEN.values(), ids=OVERRIDDEN)
@pytest.mark.parametrize("ir_version", [4, 10])
def test_defaults_of_inputs(inputs: str, text: str, default: Any, x: Any, given: Any, ir_version: int) -> None:
    """Since IR version 4 an initializer that is an input is what a caller may override."""
    proto = model(f"g ({inputs}) => (float[A,B] y) {{ {text} }}", {"w": default, "zero": ints(0), "one": np.float32(1)})
    proto.ir_version = ir_version
    check(proto, {"x": x, "w": given})
    check(proto, {"x": x})


def of_minus_one(text: str, inputs: str, weights: Feeds | None = None) -> ModelProto:
    """A model whose input has -1 where it says 77."""
    proto = model(f"g ({inputs}) => (float[A,B,C,D] y, int64[K] s) {{ {text} s = Shape(y) }}", weights)
    for dim in proto.graph.input[0].type.tensor_type.shape.dim:
        if dim.dim_value == 77:
            dim.dim_value = -1
    return proto


@pytest.mark.parametrize(
    "text",
    [
        "y = Pad(x, p)",
        "y = MaxPool<kernel_shape = [3,3], pads = [1,1,1,1]>(x)",
        "y = Slice(x, one, three, one)",
        "h = Slice(x, one, three, one) y = Concat<axis = 1>(h, h)",
    ],
)
def test_sizes_of_minus_one_are_unknown(text: str) -> None:
    proto = of_minus_one(
        text, "float[1,77,6,6] x", {"p": ints(0, 3, 0, 0, 0, 2, 0, 0), "one": ints(1), "three": ints(3)}
    )
    result = graphopt.optimize(proto, verify=False)
    assert result.model.graph.input == proto.graph.input
    feeds = {"x": np.arange(144, dtype=np.float32).reshape(1, 4, 6, 6)}
    for before, after in zip(run(proto, feeds), run(result.model, feeds), strict=True):
        np.testing.assert_array_equal(after, before, strict=True)


ELEMENTS = {
    "two elements": "s = SequenceConstruct(x, z) p = SequenceAt(s, i) q = SequenceAt(s, j)",
    "put in": "r = SequenceConstruct(x) s = SequenceInsert(r, z) p = SequenceAt(s, i) q = SequenceAt(s, j)",
    "chosen": """s = If(c) <then_branch = t () => (seq(float[1,4]) a) { a = SequenceConstruct(x, z) },
                 else_branch = e () => (seq(float[1,4]) b) { b = SequenceConstruct(z, x) }>
                 p = SequenceAt(s, i) q = SequenceAt(s, j)""",
    "mapped": """r = SequenceConstruct(x, z) s = SequenceMap(r) <body = b (float[1,4] e) => (float[1,4] o) {
                 h = ReduceSum<keepdims = 1>(e, zero) n = Shape(e) o = Expand(h, n) }>
                 p = SequenceAt(s, i) q = SequenceAt(s, j)""",
    "optional": """a = Optional(x) b = Optional(z) p = OptionalGetElement(a) q = OptionalGetElement(b)""",
}  # fmt: skip


@pytest.mark.parametrize("text", ELEMENTS.values(), ids=ELEMENTS)
@pytest.mark.parametrize("claimed", [False, True])
def test_elements_differ_in_shape(text: str, claimed: bool) -> None:
    """onnx names the unknown dimension of all elements alike; a file may say that it is 1."""
    listed = ", seq(float[1,4]) s" if claimed and "s =" in text else ""
    end = "k = Shape(q) e = Expand(p, k) y = ReduceSum<keepdims = 1>(e, zero) m = ReduceSum<keepdims = 1>(q, zero)"
    inputs, outputs = "float[N,4] x, float[M,4] z, int64 i, int64 j, bool c", f"float[A,B] y, float[D,E] m{listed}"
    proto = model(f"g ({inputs}) => ({outputs}) {{ {text} {end} }}", {"zero": ints(0)}, opset=18)
    feeds = {"x": X[:1], "z": X, "i": np.array(0), "j": np.array(1), "c": np.array(True)}
    feeds = {name: feeds[name] for name in [i.name for i in proto.graph.input]}
    expected = run(proto, feeds)
    for target in TARGETS:
        result = graphopt.optimize(proto, target=target, verify=False).model
        for before, after in zip(expected[:2], run(result, feeds)[:2], strict=True):
            np.testing.assert_array_equal(after, before, strict=True)


@pytest.mark.parametrize("claim", ["float", "float[1,4]"])
def test_a_sequence_that_grows_in_a_loop(claim: str) -> None:
    proto = model(
        f"""g (float[1,4] x, int64 n) => (float[A,B] y, int64[2] k) {{ s0 = SequenceConstruct(x)
            s = Loop(n, , s0) <body = b (int64 i, bool c, seq({claim}) a) => (bool d, seq({claim}) o) {{
              d = Identity(c) e = SequenceAt(a, last) f = Concat<axis = 0>(e, e) o = SequenceInsert(a, f) }}>
            e = SequenceAt(s, last) k = Shape(e) y = ReduceSum<keepdims = 1>(e, zero) }}""",
        {"zero": ints(0), "last": np.array(-1)},
    )
    if claim == "float":
        body = next(a.g for n in proto.graph.node for a in n.attribute if a.name == "body")
        for info in (body.input[2], body.output[1]):
            info.type.sequence_type.elem_type.tensor_type.ClearField("shape")
    check(proto, {"x": X[:1], "n": np.array(2)})


FUNCTION = '<opset_import: ["" : 17], domain: "local"> f (a) => (c) { c = OP(a) }'


@pytest.mark.parametrize("op", ["Relu", "Identity"])
@pytest.mark.parametrize("place", ["inner", "output"])
def test_shapes_of_a_functions_results(op: str, place: str) -> None:
    """A call has no schema, but onnx infers through the function's body."""
    listed = ", float[1,4] h" if place == "output" else ""
    proto = model(
        f"g (float[N,4] x) => (float[A,B] y{listed}) {{ h = local.f(x) y = ReduceSum<keepdims = 1>(h, zero) }}",
        {"zero": ints(0)},
        functions=FUNCTION.replace("OP", op),
        domains=', "local" : 1',
    )
    if place == "inner":
        proto.graph.value_info.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, [1, 4]))
    check(proto, {"x": X})


IN_A_BRANCH = """g (float[N,K] x, bool p) => (float[A,B] z, float[C,D] y) {
  z = If(p) <then_branch = t () => (float[E,F] u) { k = Concat<axis = 0>(x, none) u = Neg(k) },
             else_branch = s () => (float[G,H] w) { w = Relu(x) }>
  r = Reshape(x, pairs) y = Exp(r) }"""
IN_A_LOOP = """g (float[N,K] x, int64 n) => (float[A,B] z, float[C,D] y) {
  z = Loop(n, , x) <body = b (int64 i, bool c, float[E,F] v) => (bool d, float[G,H] o) {
    d = Identity(c) k = Concat<axis = 0>(x, none) o = Neg(k) }>
  r = Reshape(x, pairs) y = Neg(r) }"""


@pytest.mark.parametrize(("text", "other"), [(IN_A_BRANCH, {"p": np.False_}), (IN_A_LOOP, {"n": np.array(0)})])
def test_what_holds_in_a_body_is_not_said_of_outer_tensors(text: str, other: Feeds) -> None:
    proto = model(text, {"none": np.zeros((0, 2), np.float32), "pairs": ints(-1, 2)})
    check(proto, {"x": X, **{name: np.asarray(value) for name, value in other.items()}})


@pytest.mark.parametrize("end", [2**31 - 1, 2**63 - 1])
def test_backwards_up_to_the_largest_integer(end: int) -> None:
    """By the definition that takes nothing; ONNX Runtime takes all."""
    weights = {"first": ints(-1), "end": ints(end), "axis": ints(0), "back": ints(-1)}
    shape = model("g (float[N,3] x) => (int64[K] y) { s = Shape(x) y = Slice(s, first, end, axis, back) }", weights)
    check(shape, {"x": np.ones((5, 3), np.float32)})
    rows = "r = Slice(x, first, end, axis, back) q = Concat<axis = 0>(r, x) y = Relu(q)"
    check(model(f"g (float[3,4] x) => (float[A,B] y) {{ {rows} }}", weights), {"x": X})


@pytest.mark.parametrize(
    "then",
    [
        "s = Shape(x) i = Gather(s, one) n = Sub(i, many) f = ConstantOfShape(n) u = Slice(f, zero, one)",
        "s = Shape(x) i = Gather(s, one) n = Sub(i, four) u0 = Reshape(x, flat) u = Slice(u0, zero, one, zero, n)",
    ],
)
def test_what_would_fail_in_a_branch_that_is_not_taken(then: str) -> None:
    text = f"""g (float[3,4] x, bool c) => (float[A] y) {{ y = If(c) <then_branch = t () => (float[P] u) {{ {then} }},
               else_branch = e () => (float[Q] w) {{ w = Reshape(x, flat) }}> }}"""
    weights = {"zero": ints(0), "one": ints(1), "four": ints(4), "many": ints(9), "flat": ints(-1)}
    check(model(text, weights), {"x": X, "c": np.array(False)})


def test_a_text_that_is_not_utf_8_is_refused() -> None:
    proto = model("g (string[2] x) => (bool[K] y) { y = Equal(x, s) }", opset=19)
    text = proto.graph.initializer.add(name="s", data_type=onnx.TensorProto.STRING, dims=[2])
    text.string_data.extend([b"\xff\xfe", b"ok"])
    with pytest.raises(graphopt.ModelError, match="'s' holds a text that is not in UTF-8"):
        graphopt.optimize(proto, verify=False)


def test_elements_of_a_split_share_the_other_dimensions() -> None:
    text = """g (float[N,8,H] x, int64 i) => (float[A,B,C] y) {
              s = SplitToSequence<axis = 1>(x, parts) b = SequenceAt(s, i)
              k = Shape(b) r = Relu(b) y = Expand(r, k) }"""
    proto = model(text, {"parts": ints(4, 4)})
    result = graphopt.optimize(proto, verify=False).model
    assert "Expand" not in [n.op_type for n in result.graph.node]
    check(proto, {"x": np.arange(48, dtype=np.float32).reshape(2, 8, 3), "i": np.array(1)})


@pytest.mark.parametrize("length", [7, 12, 40])
def test_a_long_chain_of_sequences(length: int) -> None:
    """Each level's shapes are put right after those of the one before, and what is left unknown is known later."""
    level = "s{0} = SplitToSequence<axis = 1>(x{0}, parts) a{0} = SequenceAt(s{0}, zero) b{0} = SequenceAt(s{0}, one) "
    level += "c{0} = Relu(b{0}) x{1} = Concat<axis = 1>(a{0}, c{0}) "
    text = "".join(level.format(at, at + 1) for at in range(length))
    proto = model(
        f"g (float[N,8,6] x0) => (float[A,B,C] y) {{ {text} y = Neg(x{length}) }}",
        {"parts": ints(2, 6), "zero": np.array(0), "one": np.array(1)},
    )
    result = graphopt.optimize(proto, verify=False).model
    assert not {"SplitToSequence", "SequenceAt"} & {n.op_type for n in result.graph.node}
    check(proto, {"x0": np.arange(96, dtype=np.float32).reshape(2, 8, 6) - 40})


@pytest.mark.parametrize(
    "body", ["v = Shape(q) o = Expand(p, v)", "i = Shape(p) j = Shape(q) d = Sub(i, j) o = Cast<to=1>(d)"]
)
def test_elements_of_sequences_share_names_and_not_sizes(body: str) -> None:
    text = f"""g (float[3] x, int64[1] sp) => (float[K] y) {{
        z = Constant<value_int=0>() m = Constant<value_int=-1>() first = Constant<value_ints=[1]>()
        cuts = Concat<axis=0>(first, sp) s = SplitToSequence(x, cuts) a = SequenceErase(s, m) b = SequenceErase(s, z)
        r = SequenceMap(a, b) <body = bb (float[P] p, float[P] q) => (float[Q] o) {{ {body} }}>
        y = SequenceAt(r, z) }}"""
    check(model(text), {"x": X[0, :3], "sp": ints(2)})
