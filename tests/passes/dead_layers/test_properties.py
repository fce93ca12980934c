"""Random chains of no-ops and of what only looks like one: the numbers stay, and a second run changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt_passes.dead_layers import CleanUp
from tests.support.models import run
from tests.support.rewrites import apply_pass, check_numbers
from tests.support.shapes import shaped_model

F = np.float32
Draw = Any

# values around the neutral elements, with every zero and every kind of number
NUMBERS = [0.0, -0.0, 1.0, -1.0, 2.0, float(np.nextafter(F(1), F(2)))]
SPECIAL = np.array([0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 1e-40, 2.5, -2.5, 3e38, 7.0], F)


def arithmetic(draw: Draw, name: str, last: str, shape: list[int]) -> tuple[str, dict[str, np.ndarray]]:
    dims = draw(st.sampled_from([[], [1], [1] * len(shape), shape, shape[-1:], [1, *shape]]))
    value = draw(st.sampled_from(NUMBERS))
    op = draw(st.sampled_from(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"]))
    operands = [last, f"{name}c"] if draw(st.booleans()) else [f"{name}c", last]
    return f"{name} = {op}({', '.join(operands)})", {f"{name}c": np.full(dims, value, F)}


def movement(draw: Draw, name: str, last: str, shape: list[int]) -> tuple[str, dict[str, np.ndarray]]:
    rank = len(shape)
    kind = draw(
        st.sampled_from(["slice", "pad", "gather", "tile", "expand", "reshape", "transpose", "reduce", "concat"])
    )
    axis = draw(st.integers(-rank, rank - 1))
    if kind == "slice":
        start, end = draw(st.sampled_from([0, -9, 1])), draw(st.sampled_from([99, shape[axis], 2**63 - 1, -1]))
        return f"{name} = Slice({last}, {name}s, {name}e, {name}a)", {
            f"{name}s": np.array([start]),
            f"{name}e": np.array([end]),
            f"{name}a": np.array([axis]),
        }
    if kind == "pad":
        pads = [0] * (2 * rank)
        pads[draw(st.integers(0, 2 * rank - 1))] = draw(st.sampled_from([0, 0, 1]))
        return f"{name} = Pad({last}, {name}p)", {f"{name}p": np.array(pads)}
    if kind == "gather":
        indices = np.arange(shape[axis]) if draw(st.booleans()) else np.arange(shape[axis])[::-1].copy()
        return f"{name} = Gather<axis={axis}>({last}, {name}i)", {f"{name}i": indices}
    if kind in ("tile", "expand"):
        times = [1] * rank
        times[axis] = draw(st.sampled_from([1, 1, 2])) if kind == "tile" else draw(st.sampled_from([1, shape[axis]]))
        return f"{name} = {kind.capitalize()}({last}, {name}r)", {f"{name}r": np.array(times)}
    if kind == "reshape":
        target = [0 if draw(st.booleans()) else d for d in shape]
        target[axis] = -1
        return f"{name} = Reshape({last}, {name}r)", {f"{name}r": np.array(target)}
    if kind == "transpose":
        return f"{name} = Transpose<perm={draw(st.permutations(range(rank)))}>({last})", {}
    if kind == "reduce":
        return f"{name} = ReduceMax<axes=[{axis}]>({last})", {}
    return f"{name} = Concat<axis={axis}>({last})", {}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_random_chains(data: st.DataObject) -> None:
    body, weights, last = [], {}, "x"
    for i in range(data.draw(st.integers(1, 5))):
        make = data.draw(st.sampled_from([arithmetic, movement, movement]))
        proto = shaped_model(f"g (float[3,4,1] x) => (float[] {last}) {{ " + "\n ".join(body) + " }", weights)
        shape = [d.dim_value for d in proto.graph.output[0].type.tensor_type.shape.dim] if body else [3, 4, 1]
        if len(shape) > 4 or 0 in shape:
            break
        line, more = make(data.draw, f"t{i}", last, shape)
        body.append(line)
        weights.update(more)
        last = f"t{i}"
    before = shaped_model(f"g (float[3,4,1] x) => (float[] {last}) {{ " + "\n ".join(body) + " }", weights)
    after, log = apply_pass(CleanUp(), before)
    assert len(after.graph.node) <= len(before.graph.node)
    inputs = {"x": SPECIAL.reshape(3, 4, 1)}
    check_numbers(before, after, exact=True, inputs=inputs)
    again, second = apply_pass(CleanUp(), after)
    assert not second.applications
    assert again == after
    if "drop-positive-zero" not in {a.rule for a in log.applications}:
        check_bits(before, after, inputs)


def check_bits(before: Any, after: Any, inputs: dict[str, np.ndarray]) -> None:
    """The sign of every zero is the same too."""
    for expected, got in zip(run(before, inputs), run(after, inputs), strict=True):
        np.testing.assert_array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(expected[~np.isnan(expected)]))
