"""Grouped and depthwise siblings: channels interleaved by group, told apart again exactly."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt_passes.siblings.grouped import Interleave, MergeGroupedSiblingConvs
from tests.passes.siblings.test_convs import two, weights
from tests.support.rewrites import check_rewrite, check_untouched

ARRAYS = weights(v=(4, 2, 3, 3), w=(8, 2, 3, 3), b=(8,), d=(4, 1, 3, 3), e=(12, 1, 3, 3), s=(4, 1, 1), t=(12, 1, 1))
GIVEN = "float[N,4,6,6] x"
AFTER = ["Conv", "Reshape", "Reshape", "Reshape", "Split"]


def test_interleaves_group_by_group() -> None:
    joined = Interleave(2)([np.array([0, 1, 2, 3]), np.array([10, 11])])
    np.testing.assert_array_equal(joined, [0, 1, 10, 2, 3, 11])


def test_two_groups_with_unequal_outputs_and_mixed_bias() -> None:
    before = two(
        "y = Conv<group=2, pads=[1,1,1,1]>(x, v)  z = Conv<group=2, pads=[1,1,1,1]>(x, w, b)",
        "(float[N,4,6,6] y, float[N,8,6,6] z)",
        GIVEN,
        ARRAYS,
    )
    check_rewrite(MergeGroupedSiblingConvs(), before, AFTER)


def test_depthwise_with_followers_and_an_old_opset() -> None:
    body = """a = Conv<group=4, strides=[2,2]>(x, d)  c = Conv<group=4, strides=[2,2]>(x, e)
        f = Mul(a, s)  h = Mul(t, c)  y = Relu(f)  z = Relu(h)"""
    before = two(body, "(float[N,4,2,2] y, float[N,12,2,2] z)", GIVEN, ARRAYS, opset=11)
    check_rewrite(MergeGroupedSiblingConvs(), before, sorted([*AFTER, "Mul", "Relu"]))


def test_results_that_meet_in_a_concat() -> None:
    body = "a = Conv<group=2>(x, v)  c = Conv<group=2>(x, w)  y = Concat<axis=1>(c, a)"
    before = two(body, "(float[N,12,4,4] y)", GIVEN, ARRAYS)
    check_rewrite(MergeGroupedSiblingConvs(), before, sorted([*AFTER, "Concat"]))


@pytest.mark.parametrize(
    ("why", "first", "second", "given"),
    [
        ("other groups", "Conv<group=2>(x, v)", "Conv<group=4>(x, d)", GIVEN),
        ("no groups", "Conv(x, f)", "Conv(x, g)", GIVEN),
        ("unknown spatial sizes", "Conv<group=4>(x, d)", "Conv<group=4>(x, e)", "float[N,4,H,6] x"),
    ],
)
def test_leaves_alone(why: str, first: str, second: str, given: str) -> None:
    arrays = {**ARRAYS, **weights(f=(2, 4, 3, 3), g=(3, 4, 3, 3))}
    before = two(f"y = {first}  z = {second}", "(float[N,A,H1,W1] y, float[N,B,H2,W2] z)", given, arrays)
    because = "spatial sizes are known" if "unknown" in why else None
    check_untouched(MergeGroupedSiblingConvs(), before, because)
