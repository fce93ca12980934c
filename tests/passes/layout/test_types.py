"""Rules that move or drop operators, where the types that these take or pass through decide."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from graphopt.graph import numpy_dtype
from graphopt_passes.common.types import runs
from graphopt_passes.layout import SimplifyLayout
from tests.support.models import Arrays, model, run
from tests.support.rewrites import apply, check_rewrite, check_untouched

RULES = {rule.name: rule for rule in SimplifyLayout.rules}


@pytest.mark.parametrize(
    ("down", "up"), [("<output_dtype=10>", ""), ("", "<precision=10>")], ids=["dequantized to float16", "in float16"]
)
@pytest.mark.parametrize(("kind", "dtype", "scale"), [("int8", np.int8, 1e6), ("uint16", np.uint16, 0.01)])
def test_what_is_quantized_again_was_float32_between(down: str, up: str, kind: str, dtype: type, scale: float) -> None:
    """float16 overflows beyond 65504, and has 11 bits for the 16 of uint16."""
    before = model(
        f"g ({kind}[3] x) => ({kind}[3] y) {{ a = DequantizeLinear{down}(x, s, z) y = QuantizeLinear{up}(a, s, z) }}",
        {"s": np.float32(scale), "z": np.array(0, dtype)},
        opset=23,
    )
    check_untouched(RULES["drop-requantization"], before, "not float32 between")


@pytest.mark.parametrize("casts", ["<to=11>(x) <to=6>", "<to=1>(x) <to=2>"])
def test_integers_that_pass_through_a_float_to_less_room(casts: str) -> None:
    """uint32 → double → int32 of 3·10⁹, int8 → float → uint8 of −1: ONNX defines no result of the second Cast."""
    source, (first, second) = ("uint32" if "11" in casts else "int8"), casts.split("(x) ")
    result = "int32" if second == "<to=6>" else "uint8"
    text = f"g ({source}[3] x) => ({result}[3] y) {{ a = Cast{first}(x) y = Cast{second}(a) }}"
    check_untouched(RULES["compose-casts"], model(text), "undefined")


@pytest.mark.parametrize(
    ("rule", "opset", "text", "kind"),
    [
        ("sink-reshape-below-pointwise", 8, "a = Flatten(x) b = Cast<to=7>(a) y = Reshape(b, s)", "int64"),
        ("sink-transpose-below-pointwise", 19,
         "a = Transpose<perm=[1,0,2]>(x) b = Cast<to=17>(a) y = Cast<to=1>(b)", "float"),
        ("sink-reshape-below-pointwise", 21, "a = Flatten(x) b = Cast<to=17>(a) y = Reshape(b, s)", "float8e4m3fn"),
        ("sink-transpose-below-pointwise", 24,
         "a = Transpose<perm=[1,0,2]>(x) b = Cast<to=24>(a) c = Cast<to=1>(b) y = Transpose<perm=[1,0,2]>(c)", "float"),
    ],
)  # fmt: skip
def test_what_moves_takes_the_type_that_is_made(rule: str, opset: int, text: str, kind: str) -> None:
    weights: Arrays = {"s": np.array([4, -1])} if " s)" in text else {}
    before = model(
        f"g (float[2,3,4] x) => ({kind}[{'A,B' if weights else 'A,B,C'}] y) {{ {text} }}", weights, opset=opset
    )
    check_untouched(RULES[rule], before, "does not take the type")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a = Max(x, low) y = Relu(a)", "Max"),
        ("a = Relu(x) y = Max(a, low)", "Max"),
        ("a = Min(x, low) y = Min(a, high)", "Min"),
    ],
)
def test_what_leaves_infinity_alone_goes_on_doing_so(text: str, made: str) -> None:
    """A Clip without a bound clips to the largest finite number."""
    weights = {"low": np.float32(-1), "high": np.float32(2)}
    used = {name: value for name, value in weights.items() if f" {name})" in text}
    before = model(f"g (float[3] x) => (float[3] y) {{ {text} }}", used)
    after = check_rewrite(RULES["compose-clips"], before, [made])
    feeds = {"x": np.array([np.inf, -np.inf, 0.5], np.float32)}
    np.testing.assert_array_equal(run(before, feeds)[0], run(after, feeds)[0])


def test_numbers_of_four_bits_are_not_reshaped() -> None:
    """ONNX Runtime has no kernel for it."""
    text = "a = Cast<to = 21>(x) b = Transpose<perm = [1,0]>(a) y = DequantizeLinear(b, s)"
    before = model(f"g (float[2,1] x) => (float[A,B] y) {{ {text} }}", {"s": np.float32(0.5)}, opset=21)
    check_untouched(RULES["transpose-of-ones-to-reshape"], before, "4 bits")


@pytest.mark.parametrize(("opset", "to"), [(21, 21), (21, 22), (25, 25), (25, 26)], ids=["u4", "i4", "u2", "i2"])
def test_what_has_no_identity_is_not_copied(opset: int, to: int) -> None:
    """ONNX Runtime transposes numbers of 4 and 2 bits, and has no Identity of them."""
    kind = TensorProto.DataType.Name(to).lower()
    text = f"a = Cast<to = {to}>(x) b = Transpose<perm = [1,0]>(a) y = Transpose<perm = [1,0]>(b)"
    before = model(f"g (float[2,3] x) => ({kind}[2,3] a, {kind}[2,3] y) {{ {text} }}", opset=opset)
    check_untouched(RULES["compose-transposes"], before, "no Identity")
    one_name = model(f"g (float[2,3] x) => ({kind}[2,3] y) {{ {text} }}", opset=opset)
    after, _ = apply(RULES["compose-transposes"], one_name)
    assert [n.op_type for n in after.graph.node] == ["Cast"]


@pytest.mark.parametrize(
    ("op", "opset", "dtype", "expected"),
    [
        ("Transpose", 20, TensorProto.FLOAT8E5M2, False),
        ("Transpose", 21, TensorProto.FLOAT8E5M2, True),
        ("Transpose", 21, TensorProto.INT4, True),
        ("Transpose", 24, TensorProto.FLOAT8E8M0, False),
        ("Reshape", 19, TensorProto.FLOAT8E4M3FN, False),
        ("Reshape", 21, TensorProto.FLOAT8E4M3FN, True),
        ("Reshape", 21, TensorProto.UINT4, False),
        ("Squeeze", 21, TensorProto.FLOAT8E4M3FNUZ, False),
        ("Unsqueeze", 21, TensorProto.FLOAT8E4M3FNUZ, False),
        ("Flatten", 21, TensorProto.BFLOAT16, True),
        ("Identity", 19, TensorProto.FLOAT8E4M3FN, True),
        ("Identity", 25, TensorProto.INT2, False),
        ("Identity", 25, None, False),
    ],
)
def test_what_the_standard_allows_runtimes_may_lack(op: str, opset: int, dtype: int | None, expected: bool) -> None:
    assert runs(op, opset, dtype) is expected


def quantized(opset: int, scale: str) -> ModelProto:
    """Transposes around a quantization to float8; what is quantized has one scale, what comes of it has `scale`."""
    return model(
        f"""g (float[2,3] x, float[1] k, int64[R] r) => (float[2,3] y) {{
            t = {scale} a = Transpose(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, t) y = Transpose(d) }}""",
        {"s": np.float32(0.5), "z": np.array(0, numpy_dtype(TensorProto.FLOAT8E4M3FN))},
        opset=opset,
    )


@pytest.mark.parametrize(
    ("opset", "scale", "moves"),
    [(19, "Reshape(k, r)", 0), (20, "Reshape(k, r)", 0), (21, "Reshape(k, r)", 1), (19, "Abs(k)", 2)],
)
def test_float8_is_transposed_from_opset_21_on(opset: int, scale: str, moves: int) -> None:
    """Before, the Transpose must come out behind the DequantizeLinear: not where its scale is of unknown shape."""
    rule, before = RULES["sink-transpose-below-quantization"], quantized(opset, scale)
    if moves == 0:
        check_untouched(rule, before, "does not take the quantized type")
    else:
        _, log = apply(rule, before)
        assert len(log.applications) == moves
