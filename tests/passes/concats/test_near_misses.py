"""What looks like parts of one tensor, or like equal operators, and is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from graphopt.rule import Rule
from graphopt.targets import Target
from graphopt_passes.concats.focus import FocusToSpaceToDepth
from graphopt_passes.concats.permuted import PermutedPartsToGather
from graphopt_passes.concats.repeated import RepeatedPartsToTile
from graphopt_passes.concats.sinking import SinkBelowConcat
from graphopt_passes.concats.summed import JoinSummedConvs
from tests.passes.vertical.weights import normal
from tests.support.models import Arrays, model
from tests.support.rewrites import check_rewrite, check_untouched

F = np.float32
ENDS = {k: np.array([v]) for k, v in {"i0": 0, "i2": 2, "i4": 4}.items()}
TWO = "a = Slice(x, i2, i4, i0) b = Slice(x, i0, i2, i0) y = Concat<axis=0>(a, b)"


def test_an_axis_of_unknown_length_may_end_within_a_part() -> None:
    """With three rows the first Slice is clamped to one."""
    check_untouched(PermutedPartsToGather(), model(f"g (float[N,4] x) => (float[M,4] y) {{ {TWO} }}", ENDS), "borders")
    check_rewrite(PermutedPartsToGather(), model(f"g (float[4,4] x) => (float[M,4] y) {{ {TWO} }}", ENDS), ["Gather"])


def test_strings_are_not_gathered() -> None:
    check_untouched(PermutedPartsToGather(), model(f"g (string[4] x) => (string[M] y) {{ {TWO} }}", ENDS), "strings")


def sinking(inputs: str, text: str, weights: Arrays, opset: int = 17) -> ModelProto:
    return model(f"g ({inputs}) => (float[A,B,C,D] y) {{ {text} y = Concat<axis=1>(c, d) }}", weights, opset=opset)


@pytest.mark.parametrize("size", ["1", "P"])
def test_a_constant_that_widens_stays_before_the_concat(size: str) -> None:
    pair = {"k": normal(1, 2, 1, 1), "l": normal(1, 2, 1, 1, seed=1)}
    inputs, text = f"float[1,{size},4,4] a, float[1,{size},4,4] b", "c = Add(a, k) d = Add(b, l)"
    check_untouched(SinkBelowConcat(), sinking(inputs, text, pair), "may widen")
    check_rewrite(SinkBelowConcat(), sinking(inputs.replace(size + ",4", "2,4"), text, pair), ["Add", "Concat"])


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ("int32[1,2,4,4] a, int64[1,2,4,4] b", "c = Cast<to=1>(a) d = Cast<to=1>(b)"),
        ("int8[1,2,4,4] a, uint8[1,2,4,4] b", "c = DequantizeLinear(a, s) d = DequantizeLinear(b, s)"),
        ("float8e4m3fn[1,2,4,4] a, float8e4m3fn[1,2,4,4] b", "c = Cast<to=1>(a) d = Cast<to=1>(b)"),
    ],
)
def test_types_that_concat_does_not_join(inputs: str, text: str) -> None:
    weights: Arrays = {"s": F(0.1)} if " s)" in text else {}
    check_untouched(SinkBelowConcat(), sinking(inputs, text, weights, opset=19), "Concat does not join")


@pytest.mark.parametrize(
    ("one", "other", "because"), [(3e38, 3e38, "not finite"), (1.5 * 2**23, -1.5 * 2**23, "meant")]
)
def test_biases_whose_sum_says_something_else(one: float, other: float, because: str) -> None:
    weights = {"v": normal(4, 4, 1, 1), "w": normal(4, 4, 1, 1), "b": np.full(4, one, F), "c": np.full(4, other, F)}
    text = "a = Conv(x, v, b) d = Conv(z, w, c) y = Add(a, d)"
    before = model(f"g (float[1,4,8,8] x, float[1,4,8,8] z) => (float[A,B,C,D] y) {{ {text} }}", weights)
    check_untouched(JoinSummedConvs(), before, because, target=Target.PORTABLE)


@pytest.mark.parametrize(("kind", "fires"), [("float", True), ("uint8", True), ("int32", False), ("bool", False)])
def test_space_to_depth_is_made_of_types_that_runtimes_have(kind: str, fires: bool) -> None:
    starts = {"s00": [0, 0], "s01": [0, 1], "s10": [1, 0], "s11": [1, 1], "e": [99, 99], "axes": [2, 3], "two": [2, 2]}
    text = " ".join(f"a{p} = Slice(x, s{p}, e, axes, two)" for p in ("00", "01", "10", "11"))
    before = model(
        f"g ({kind}[1,2,4,4] x) => ({kind}[A,B,C,D] y) {{ {text} y = Concat<axis=1>(a00, a01, a10, a11) }}",
        {k: np.array(v) for k, v in starts.items()},
    )
    rule: Rule[Any] = FocusToSpaceToDepth()
    if fires:
        check_rewrite(rule, before, ["SpaceToDepth"])
    else:
        check_untouched(rule, before, "no SpaceToDepth of its type")


def test_a_scale_of_one_block_is_no_scale_of_two() -> None:
    text = "c = QuantizeLinear<axis = 1, block_size = 2>(a, s, z) d = QuantizeLinear<axis = 1, block_size = 2>(b, s, z)"
    weights = {"s": np.full((1, 1, 4, 4), 0.1, F)[:, :, :1, :1], "z": np.zeros((1, 1, 1, 1), np.int8)}
    before = model(
        f"g (float[1,2,1,1] a, float[1,2,1,1] b) => (int8[A,B,C,D] y) {{ {text} y = Concat<axis = 1>(c, d) }}",
        weights, opset=21,
    )  # fmt: skip
    check_untouched(SinkBelowConcat(), before, "could be done below")


def test_bfloat16_is_not_tiled() -> None:
    before = model("g (bfloat16[2] x) => (bfloat16[A] y) { a = Abs(x) y = Concat<axis = 0>(a, a) }")
    check_untouched(RepeatedPartsToTile(), before, "no Tile of bfloat16")
