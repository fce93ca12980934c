"""Batches that are flattened for a MatMul and put back; transposes past constants that are dequantized."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.layout.batches import DropReshapesAroundMatMul
from graphopt_passes.layout.literal_reshapes import SkipReshapeBeforeLiteral
from graphopt_passes.layout.sinking import SinkTransposeBelowPointwise
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched


def product(
    a: str, b: str, first: list[int] | None, second: list[int] | None, last: list[int], extra: str = "", out: str = ""
) -> ModelProto:
    left = "p = Reshape(a, s)" if first is not None else "p = Neg(a)"
    right = "q = Reshape(b, t)" if second is not None else "q = Neg(b)"
    rank = ",".join("mnopqr"[: len(last)])
    text = (
        f"g ({a} a, {b} b) => (float[{rank}] y{out})"
        f"{{ {left} \n {right} \n m = MatMul(p, q) \n y = Reshape(m, u) {extra} }}"
    )
    given = {"s": first, "t": second, "u": last}
    return model(text, {name: np.array(value, np.int64) for name, value in given.items() if value is not None})


@pytest.mark.parametrize(
    ("a", "b", "first", "second", "last", "expected"),
    [
        ("float[1,4,3,5]", "float[1,4,5,2]", [4, 3, 5], [4, 5, 2], [1, 4, 3, 2], ["MatMul"]),
        ("float[2,3,3,5]", "float[2,3,5,2]", [6, 3, 5], [6, 5, 2], [2, 3, 3, 2], ["MatMul"]),
        ("float[4,3,5]", "float[4,5,2]", [2, 2, 3, 5], [2, 2, 5, 2], [4, 3, 2], ["MatMul"]),
        ("float[1,3,5]", "float[1,5,2]", [3, 5], [5, 2], [1, 3, 2], ["MatMul"]),
    ],
)
def test_the_batch_stays_as_it_was(
    a: str, b: str, first: list[int], second: list[int], last: list[int], expected: list[str]
) -> None:
    check_rewrite(DropReshapesAroundMatMul(), product(a, b, first, second, last), expected)


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        (
            "the result gets another batch",
            product("float[2,3,3,5]", "float[2,3,5,2]", [6, 3, 5], [6, 5, 2], [3, 2, 3, 2]),
            "not given the batch",
        ),
        (
            "one batch is broadcast",
            product("float[2,3,3,5]", "float[1,6,5,2]", [6, 3, 5], [6, 5, 2], [2, 3, 3, 2]),
            "batches are not equal",
        ),
        (
            "one matrix for all",
            product("float[2,3,5]", "float[1,5,2]", [6, 5], [5, 2], [2, 3, 2]),
            "batches are not equal",
        ),
        (
            "other matrices",
            product("float[1,4,3,5]", "float[1,4,3,2]", [4, 5, 3], [4, 3, 2], [1, 4, 5, 2]),
            "changes the matrices",
        ),
        ("nothing before", product("float[2,3,5]", "float[2,5,2]", None, None, [2, 1, 3, 2]), "nothing was reshaped"),
        (
            "a second reader",
            product("float[1,3,5]", "float[1,5,2]", [3, 5], [5, 2], [1, 3, 2], "\n z = Neg(m)", ", float[v,w] z"),
            "feeds it alone",
        ),
        (
            "an unknown dimension",
            product("float[?,3,5]", "float[?,5,2]", [-1, 1, 3, 5], [-1, 1, 5, 2], [-1, 3, 2]),
            "a shape is not known",
        ),
    ],
)
def test_other_products_stay(why: str, before: ModelProto, because: str) -> None:
    check_untouched(DropReshapesAroundMatMul(), before, because=because)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    batch=st.sampled_from([[1, 4], [2, 2], [4], [2, 1, 2]]),
    flat=st.sampled_from([[4], [2, 2], [1, 4]]),
    back=st.sampled_from([[1, 4], [2, 2], [4], [2, 1, 2]]),
)
def test_whatever_is_dropped_the_numbers_are_equal(batch: list[int], flat: list[int], back: list[int]) -> None:
    text = ",".join(str(n) for n in batch)
    before = product(f"float[{text},3,5]", f"float[{text},5,2]", [*flat, 3, 5], [*flat, 5, 2], [*back, 3, 2])
    after, log = apply(DropReshapesAroundMatMul(), before)
    assert bool(log.applications) == (batch == back and len(after.graph.node) == 1)
    check_numbers(before, after, exact=False)


@pytest.mark.parametrize(
    ("inner", "target"),
    [("Reshape(x, s)", [2, 3, 2]), ("Squeeze(x, one)", [2, -1]), ("Unsqueeze(x, one)", [-1]), ("Flatten(x)", [12])],
)
def test_a_target_without_copies_says_the_same_for_any_input(inner: str, target: list[int]) -> None:
    for text, weights in (("", {"t": np.array(target, np.int64)}), (f", int64[{len(target)}] t", {})):
        rank = ",".join("mno"[: len(target)])
        before = model(
            f"g (float[2,1,6] x{text}) => (float[{rank}] y) {{ a = {inner} \n y = Reshape<allowzero=1>(a, t) }}",
            {"s": np.array([6, 2], np.int64), "one": np.array([1], np.int64), **weights},
        )
        after, log = apply(SkipReshapeBeforeLiteral(), before)
        assert [a.rule for a in log.applications] == ["skip-reshape-before-literal"]
        assert [n.op_type for n in after.graph.node] == ["Reshape"]
        if weights:
            check_numbers(before, after, exact=True)


@pytest.mark.parametrize(
    ("why", "kind", "first", "last"),
    [
        ("a zero in the source", "float[0,6,2]", [3, 2, -1], [0, 0, 3]),
        ("and none", "float[3,0,8]", [4, 2, 0, 0], [3, 0]),
    ],
)
def test_zeros_are_literal(why: str, kind: str, first: list[int], last: list[int]) -> None:
    rank = ",".join("mno"[: len(last)])
    before = model(
        f"g ({kind} x) => (float[{rank}] y) {{ a = Reshape<allowzero={int(0 in first)}>(x, s) \n"
        "y = Reshape<allowzero=1>(a, t) }",
        {"s": np.array(first, np.int64), "t": np.array(last, np.int64)},
    )
    check_rewrite(SkipReshapeBeforeLiteral(), before, ["Reshape"])


def test_a_zero_that_copies_depends_on_the_input() -> None:
    before = model(
        "g (float[2,3] x) => (float[a,b] y) { a = Reshape(x, s) \n y = Reshape(a, t) }",
        {"s": np.array([3, 2], np.int64), "t": np.array([0, -1], np.int64)},
    )
    check_untouched(SkipReshapeBeforeLiteral(), before, because="copies a dimension")


def dequantizing(scale: object, inputs: str = "", outputs: str = "") -> ModelProto:
    text = (
        f"g (float[1,2,3] x{inputs}) => (float[1,3,2] y{outputs})"
        "{ r = Relu(x) \n t = Transpose<perm=[0,2,1]>(r) \n d = DequantizeLinear<axis=0>(q, s) \n y = Add(t, d) }"
    )
    weights = {"s": np.array(scale, np.float32), "q": np.array([[1], [-7], [3]], np.int8)}
    return model(text, {name: value for name, value in weights.items() if f" {name}" not in inputs})


def test_a_transpose_passes_a_constant_that_is_dequantized() -> None:
    after = check_rewrite(
        SinkTransposeBelowPointwise(), dequantizing(0.5), ["Relu", "DequantizeLinear", "Add", "Transpose"]
    )
    (values,) = (t for t in after.graph.initializer if t.data_type == 3)
    assert list(values.dims) == [1, 1, 3]


@pytest.mark.parametrize(
    ("why", "before"),
    [
        ("a scale for each row", dequantizing([0.5, 1.0, 2.0])),
        ("its values are an input", dequantizing(0.5, inputs=", int8[3,1] q")),
        ("an output needs it as well", dequantizing(0.5, outputs=", float[3,1] d")),
    ],
)
def test_other_dequantized_tensors_hold_it(why: str, before: ModelProto) -> None:
    check_untouched(SinkTransposeBelowPointwise(), before, because="neither transposed nor constant")
