"""Kernels of different size: the smaller one grows where both compute at the same places, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from graphopt_passes.siblings.enlarge import EnlargeAdjacentConvs, EnlargeSiblingConvs
from tests.passes.siblings.test_convs import INPUT, two, weights
from tests.support.rewrites import check_rewrite, check_untouched

ARRAYS = weights(
    v=(4, 3, 1, 1),
    w=(2, 3, 3, 3),
    r=(2, 3, 5, 5),
    k=(2, 3, 1, 3),
    l=(4, 3, 3, 1),
    e=(2, 3, 2, 2),
    b=(2,),
    g=(3, 1, 3, 3),
)
JOINED = "(float[N,6,H,W] y)"


def test_expand_one_and_three_of_a_fire_module() -> None:
    before = two(
        "a = Conv(x, v)  d = Conv<pads=[1,1,1,1]>(x, w, b)  p = Relu(a)  q = Relu(d)  y = Concat<axis=1>(p, q)",
        JOINED,
        arrays=ARRAYS,
    )
    after = check_rewrite(
        EnlargeAdjacentConvs(),
        before,
        f"g ({INPUT}) => (float[N,6,H,W] y) {{ c = Conv<pads=[1,1,1,1]>(x, w, b)  y = Relu(c) }}",
    )
    merged = next(numpy_helper.to_array(t) for t in after.graph.initializer if list(t.dims) == [6, 3, 3, 3])
    np.testing.assert_array_equal(merged[:4, :, 1, 1], ARRAYS["v"][:, :, 0, 0])
    assert np.count_nonzero(merged[:4]) == 12


@pytest.mark.parametrize(
    ("why", "first", "second"),
    [
        ("3x3 in 5x5", "Conv<pads=[1,1,1,1]>(x, w)", "Conv<pads=[2,2,2,2]>(x, r)"),
        ("with strides", "Conv<strides=[2,2]>(x, v)", "Conv<strides=[2,2], pads=[1,1,1,1]>(x, w)"),
        ("a kernel of one tap has no dilation", "Conv(x, v)", "Conv<dilations=[2,2], pads=[2,2,2,2]>(x, w)"),
        ("dilated 3x3 in dilated 5x5", "Conv<dilations=[2,2]>(x, w)", "Conv<dilations=[2,2], pads=[2,2,2,2]>(x, r)"),
        ("at the corner", "Conv(x, v)", "Conv<pads=[0,0,2,2]>(x, w)"),
        ("same padding by name", 'Conv<auto_pad="SAME_LOWER">(x, v)', 'Conv<auto_pad="SAME_UPPER">(x, w)'),
    ],
)
def test_the_smaller_kernel_finds_its_place(why: str, first: str, second: str) -> None:
    width = 2 if "(x, w)" in first else 4
    given = "float[N,3,9,9] x"
    before = two(f"a = {first}  d = {second}  y = Concat<axis=1>(d, a)", f"(float[N,{width + 2},H,W] y)", given, ARRAYS)
    check_rewrite(EnlargeAdjacentConvs(), before, ["Conv"])


def test_without_a_concat_a_split_is_left() -> None:
    before = two("y = Conv(x, v)  z = Conv<pads=[1,1,1,1]>(x, w)", arrays=ARRAYS)
    check_rewrite(EnlargeSiblingConvs(), before, ["Conv", "Split"])


@pytest.mark.parametrize(
    ("why", "first", "second"),
    [
        ("no padding for the larger one", "Conv(x, v)", "Conv(x, w)"),
        ("too much padding", "Conv(x, v)", "Conv<pads=[2,2,2,2]>(x, w)"),
        ("other strides", "Conv(x, v)", "Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)"),
        ("neither holds the other", "Conv<pads=[0,1,0,1]>(x, k)", "Conv<pads=[1,0,1,0]>(x, l)"),
        ("other dilations", "Conv<dilations=[2,2], pads=[2,2,2,2]>(x, w)", "Conv<pads=[2,2,2,2]>(x, r)"),
        ("a pad between two taps", "Conv<pads=[1,1,1,1]>(x, v)", "Conv<dilations=[2,2], pads=[2,2,2,2]>(x, w)"),
        ("groups", "Conv(x, v)", "Conv<pads=[1,1,1,1], group=3>(x, g)"),
        ("equal sizes", "Conv(x, w)", "Conv(x, w, b)"),
        ("unequal padding by name", "Conv(x, v)", 'Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)'),
    ],
)
def test_leaves_alone(why: str, first: str, second: str) -> None:
    before = two(f"y = {first}  z = {second}", "(float[N,A,H,W] y, float[N,B,K,L] z)", arrays=ARRAYS)
    check_untouched([EnlargeAdjacentConvs(), EnlargeSiblingConvs()], before)


@pytest.mark.parametrize(
    ("why", "first", "second"),
    [
        ("equal sizes", "Conv<pads=[1,1,1,1]>(x, w)", "Conv<pads=[1,1,1,1]>(x, w, b)"),
        ("other dilations", "Conv<dilations=[2,2], pads=[2,2,2,2]>(x, w)", "Conv<pads=[1,1,1,1]>(x, w)"),
        (
            "other dilations in a larger kernel",
            "Conv<dilations=[2,2], pads=[2,2,2,2]>(x, w)",
            "Conv<pads=[2,2,2,2]>(x, r)",
        ),
        ("neither holds the other", "Conv<pads=[0,1,0,1]>(x, k)", "Conv<pads=[1,0,1,0]>(x, l)"),
    ],
)
def test_leaves_alone_what_meets_in_a_concat(why: str, first: str, second: str) -> None:
    before = two(f"a = {first}  d = {second}  y = Concat<axis=1>(a, d)", "(float[N,A,H,W] y)", arrays=ARRAYS)
    check_untouched(EnlargeAdjacentConvs(), before)


def test_of_three_neighbours_the_two_that_fit() -> None:
    body = """a = Conv<pads=[1,1,1,1]>(x, w)  c = Conv<dilations=[2,2], pads=[2,2,2,2]>(x, w)  d = Conv(x, v)
        y = Concat<axis=1>(a, c, d)"""
    check_rewrite(EnlargeAdjacentConvs(), two(body, "(float[N,8,6,6] y)", arrays=ARRAYS), ["Concat", "Conv", "Conv"])
