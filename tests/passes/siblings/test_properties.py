"""Drawn siblings: whatever merges has equal numbers, a second run changes nothing, the interface stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.siblings import STAGES
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers

Arrays = dict[str, np.ndarray[Any, Any]]
SETTINGS = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)


@st.composite
def convs(draw: st.DrawFn) -> ModelProto:
    """Two to four convs on one tensor, near enough to be siblings often, with followers and readers of all kinds."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    kind = draw(st.sampled_from(["float", "float", "float16"]))
    dtype = np.float16 if kind == "float16" else np.float32
    group = draw(st.sampled_from([1, 1, 1, 2, 4]))
    stride, dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    follower = draw(st.sampled_from(["", "Relu", "LeakyRelu<alpha=0.1>", "Mul", "Silu", "Clip"]))
    body: list[str] = []
    arrays: Arrays = {"lo": np.asarray(-1, dtype), "hi": np.asarray(1, dtype)}
    ends = []
    for i in range(draw(st.integers(2, 4))):
        kernel = draw(st.sampled_from([1, 1, 3]))
        odd = draw(st.integers(0, 9))
        pad = dilation * (kernel - 1) // 2 + (odd == 0)
        strides = stride + (odd == 1)
        width = group * draw(st.integers(1, 3))
        arrays[f"w{i}"] = rng.standard_normal((width, 4 // group, kernel, kernel)).astype(dtype)
        inputs = f"x, w{i}"
        if draw(st.booleans()):
            arrays[f"b{i}"] = rng.standard_normal(width).astype(dtype)
            inputs += f", b{i}"
        attributes = f"pads=[{pad},{pad},{pad},{pad}], strides=[{strides},{strides}]"
        body.append(f"c{i} = Conv<group={group}, dilations=[{dilation},{dilation}], {attributes}>({inputs})")
        ends.append((i, width, _follow(draw, body, arrays, follower, i, width, rng, dtype)))
    return _finish(draw, body, arrays, ends, kind)


def _follow(
    draw: st.DrawFn,
    body: list[str],
    arrays: Arrays,
    follower: str,
    i: int,
    width: int,
    rng: np.random.Generator,
    dtype: type,
) -> str:
    """The operator behind conv `i`; now and then another one than its siblings have."""
    if follower and draw(st.integers(0, 7)) == 0:
        follower = "Tanh"
    if not follower:
        return f"c{i}"
    if follower == "Mul":
        shape = draw(st.sampled_from([(width, 1, 1), (1, width, 1, 1), (), (1,)]))
        arrays[f"m{i}"] = np.asarray(rng.standard_normal(shape)).astype(dtype)
        body.append(f"f{i} = Mul(c{i}, m{i})" if draw(st.booleans()) else f"f{i} = Mul(m{i}, c{i})")
    elif follower == "Silu":
        body.append(f"s{i} = Sigmoid(c{i})  f{i} = Mul(c{i}, s{i})")
    elif follower == "Clip":
        body.append(f"f{i} = Clip(c{i}, lo, hi)")
    else:
        body.append(f"f{i} = {follower}(c{i})")
    return f"f{i}"


def _finish(
    draw: st.DrawFn, body: list[str], arrays: Arrays, ends: list[tuple[int, int, str]], kind: str
) -> ModelProto:
    """The results meet in a Concat, behind a mean where their sizes differ; some are read elsewhere or outputs."""
    order = draw(st.permutations(ends))
    outputs = [f"{kind}[N,Y,H,W] y"]
    for i, _, end in ends:
        if draw(st.integers(0, 3)) == 0:
            body.append(f"o{i} = Identity({end})")
            outputs.append(f"{kind}[N,C{i},H{i},W{i}] o{i}")
        if draw(st.integers(0, 5)) == 0:
            body.append(f"p{i} = Neg(c{i})")
            outputs.append(f"{kind}[N,D{i},K{i},L{i}] p{i}")
    axis = draw(st.sampled_from([1, -3]))
    straight = f"y = Concat<axis={axis}>({', '.join(e for _, _, e in order)})"
    means = "  ".join(f"g{i} = GlobalAveragePool({end})" for i, _, end in order)
    meeting = (straight, f"{means}  y = Concat<axis={axis}>({', '.join(f'g{i}' for i, _, _ in order)})")
    texts = [f"g ({kind}[N,4,7,7] x) => ({', '.join(outputs)}) {{ {'  '.join([*body, end])} }}" for end in meeting]
    result = model(texts[0], arrays)
    try:
        onnx.checker.check_model(result, full_check=True)
    except onnx.shape_inference.InferenceError:  # their sizes differ
        return model(texts[1], arrays)
    return result


@st.composite
def products(draw: st.DrawFn) -> ModelProto:
    """Two to four products on one tensor, with biases of several shapes and readers of several kinds."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    gemm = draw(st.booleans())
    body, outputs, ends = [], [], []
    arrays: Arrays = {}
    for i in range(draw(st.integers(2, 4))):
        width = draw(st.integers(1, 4))
        turned = gemm and draw(st.integers(0, 3)) == 0
        arrays[f"w{i}"] = rng.standard_normal((width, 5) if turned else (5, width)).astype(np.float32)
        shape = draw(st.sampled_from([(width,), (1, width), (1,), (3, 1)]))
        arrays[f"b{i}"] = rng.standard_normal(shape).astype(np.float32)
        bias = draw(st.integers(0, 2))
        if gemm:
            body.append(f"c{i} = Gemm<transB={int(turned)}>(x, w{i}{f', b{i}' if bias else ''})")
        else:
            body.append(f"d{i} = MatMul(x, w{i})  c{i} = {f'Add(d{i}, b{i})' if bias else f'Identity(d{i})'}")
        body.append(f"f{i} = {draw(st.sampled_from(['Relu', 'Relu', 'Tanh']))}(c{i})")
        ends.append(f"f{i}")
        if draw(st.integers(0, 2)) == 0:
            body.append(f"o{i} = Neg(f{i})")
            outputs.append(f"float[3,V{i}] o{i}")
    body.append(f"y = Concat<axis={draw(st.sampled_from([1, -1]))}>({', '.join(draw(st.permutations(ends)))})")
    return model(f"g (float[3,5] x) => ({', '.join([*outputs, 'float[3,Y] y'])}) {{ {'  '.join(body)} }}", arrays)


def check(before: ModelProto) -> int:
    """Runs the stages in order and compares; returns how many rewrites there were."""
    after, applied = before, 0
    for stage in STAGES:
        after, log = apply(stage, after)
        again, second = apply(stage, after)
        assert not second.applications
        assert again == after
        applied += len(log.applications)
    if not applied:
        assert after == before
    check_numbers(before, after, exact=False)
    return applied


FIRED = {"convs": 0, "products": 0}


@SETTINGS
@given(convs())
def test_convs(before: ModelProto) -> None:
    FIRED["convs"] += check(before)


@SETTINGS
@given(products())
def test_products(before: ModelProto) -> None:
    FIRED["products"] += check(before)


def test_the_drawn_models_are_not_all_left_alone() -> None:
    for test in (test_convs, test_products):
        if not FIRED[test.__name__.removeprefix("test_")]:
            test()
    assert min(FIRED.values()) > 20
