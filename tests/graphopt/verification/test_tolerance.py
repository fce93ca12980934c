from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphopt.verification import Exact, Tolerance, verify
from graphopt.verification.floats import Pools
from graphopt.verification.tolerance import judge
from graphopt.verification.values import Array, leaves
from tests.graphopt.verification.models import model, with_weights


@dataclass
class Known:
    """Evidence that is at hand, and counts how often it was asked for."""

    truth: Array | None = None
    runs: Sequence[Array] = ()
    asked: list[str] = field(default_factory=list)
    has_loops: bool = False

    def exact(self) -> Array | None:
        self.asked.append("exact")
        return self.truth

    def perturbed(self) -> Sequence[Array]:
        self.asked.append("perturbed")
        return self.runs


def floats(*numbers: float) -> Array:
    return np.array(numbers, dtype=np.float32)


def test_equal_arrays_need_no_evidence() -> None:
    evidence = Known()
    assert judge(floats(1, np.nan, np.inf), floats(1, np.nan, np.inf), Tolerance(), evidence).how == "equal"
    assert judge(floats(0.0), floats(-0.0), Exact(), evidence).how == "equal"
    assert judge(floats(1.0), np.nextafter(floats(1.0), floats(2.0)), Tolerance(), evidence).how == "nearly equal"
    assert evidence.asked == []


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (floats(1), np.array([1.0]), "float64 instead of float32"),
        (floats(1, 2), floats(1), "its shape is [1] instead of [2]"),
        (floats(1, np.nan), floats(1, 0), "NaN or Inf in 1 places"),
        (floats(1, 0), floats(1, np.nan), "NaN or Inf in 1 places"),
        (floats(np.inf), floats(-np.inf), "NaN or Inf in 1 places"),
        (floats(np.inf), floats(3e38), "NaN or Inf in 1 places"),
        (np.array([1, 2]), np.array([1, 3]), "1 of 2 values differ"),
        (np.array(["a"], dtype=object), np.array(["b"], dtype=object), "1 of 1 values differ"),
        (np.array([True]), np.array([False]), "1 of 1 values differ"),
    ],
)
@pytest.mark.parametrize("criterion", [Tolerance(), Tolerance(rtol=1e9, atol=1e9), Exact()])
def test_what_no_tolerance_allows(before: Array, after: Array, reason: str, criterion: Tolerance | Exact) -> None:
    verdict = judge(before, after, criterion, Known())
    assert not verdict
    assert reason in verdict.reason


def test_an_error_as_large_as_the_originals_passes_and_one_much_larger_does_not() -> None:
    truth = np.linspace(1, 2, 1000)
    rng = np.random.default_rng(0)
    original = (truth * (1 + 1e-6 * rng.standard_normal(1000))).astype(np.float32)
    as_good = (truth * (1 + 2e-6 * rng.standard_normal(1000))).astype(np.float32)
    worse = (truth * (1 + 1e-5 * rng.standard_normal(1000))).astype(np.float32)
    assert judge(original, as_good, Tolerance(), Known(truth)).how == "float64"
    verdict = judge(original, worse, Tolerance(), Known(truth))
    assert not verdict
    assert verdict.original_error == pytest.approx(np.abs(original - truth).max())
    assert verdict.candidate_error == pytest.approx(np.abs(worse - truth).max())
    assert judge(original, worse, Tolerance(factor=20), Known(truth))


def test_many_small_errors_are_found_though_each_is_within_the_largest() -> None:
    truth = np.ones(10_000)
    original = truth.astype(np.float32)
    original[0] += np.float32(1e-3)
    shifted = (truth + 9e-4).astype(np.float32)
    assert not judge(original, shifted, Tolerance(), Known(truth))


def test_a_small_element_is_not_excused_by_large_ones() -> None:
    truth = np.concatenate([np.full(1000, 1e6), np.full(1000, 1e-3)])
    original = truth.astype(np.float32)
    original[:1000] += np.float32(0.1)
    wrong = original.copy()
    wrong[1500] *= np.float32(1.5)
    assert not judge(original, wrong, Tolerance(), Known(truth))


def test_an_original_that_is_right_by_luck_is_measured_by_what_rounding_can_do() -> None:
    truth = np.array([0.1])
    original, candidate = np.array([0.1], dtype=np.float32), np.array([0.1 + 3e-7], dtype=np.float32)
    truth = original.astype(np.float64)
    assert not judge(original, candidate, Tolerance(), Known(truth))
    assert judge(original, candidate, Tolerance(), Known(truth, [truth + 1e-7])).how == "perturbed"


def test_a_float64_run_that_computes_something_else_is_no_measure() -> None:
    original = np.linspace(1, 2, 100).astype(np.float32)
    wrong = original * np.float32(1.01)
    elsewhere = original.astype(np.float64) * 1.5
    verdict = judge(original, wrong, Tolerance(), Known(elsewhere))
    assert verdict.how == "unmeasured"
    assert not verdict
    close = judge(original, original * np.float32(1 + 5e-5), Tolerance(), Known(elsewhere))
    assert close.how == "unmeasured"
    assert close


def test_integers_that_rounding_can_flip_are_not_compared() -> None:
    original, candidate = np.array([3, 1, 2]), np.array([7, 1, 2])
    steady = judge(original, candidate, Tolerance(), Known(original, [original, original]))
    assert not steady
    assert "rounding alone does not explain it" in steady.reason
    flipping = judge(original, candidate, Tolerance(), Known(original, [np.array([7, 1, 2]), original]))
    assert flipping
    assert flipping.uncompared == 1
    assert not judge(original, np.array([7, 5, 2]), Tolerance(), Known(original, [np.array([7, 1, 2])]))
    assert not judge(original, candidate, Exact(), Known(original, [np.array([7, 1, 2])]))


def test_half_precision_and_bfloat16() -> None:
    for dtype in (np.float16, ml_dtypes.bfloat16):
        eps = float(ml_dtypes.finfo(dtype).eps)
        truth = np.linspace(1, 2, 500)
        original = truth.astype(dtype)
        assert judge(original, (truth * (1 + eps)).astype(dtype), Tolerance(), Known(truth))
        assert not judge(original, (truth * (1 + 64 * eps)).astype(dtype), Tolerance(), Known(truth))


def test_complex_numbers() -> None:
    numbers = np.array([1 + 2j, 3 - 1j], dtype=np.complex64)
    assert judge(numbers, numbers.copy(), Tolerance(), Known())
    assert not judge(numbers, numbers.conj(), Tolerance(), Known(numbers.astype(np.complex128)))


def test_arrays_without_elements() -> None:
    nothing = np.zeros((0, 3), dtype=np.float32)
    assert judge(nothing, nothing.copy(), Tolerance(), Known())
    assert not judge(nothing, nothing.T, Tolerance(), Known())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_a_pool_holds_at_least_the_element_itself(numbers: list[float]) -> None:
    array = np.array(numbers)
    errors = np.arange(len(array), dtype=np.float64)
    pools = Pools(array)
    assert (pools.levels(errors) >= errors).all()


def test_leaves_show_the_structure() -> None:
    found = leaves({"y": [np.zeros(1), [np.ones(2)]], "n": None, "m": {"b": np.zeros(1), "a": np.zeros(2)}})
    assert list(found) == ["y[0]", "y[1][0]", "m['a']", "m['b']"]


def reassociated(size: int, seed: int, dtype: str = "float") -> tuple[object, object]:
    """Sum(x * w) as one matrix product, and as the sum of two over the halves in the other order."""
    w = np.random.default_rng(seed).standard_normal((size, 8)).astype(np.float32)
    half = size // 2
    one = with_weights(model(f"(float[4,{size}] x) => (float[4,8] y) {{ y = MatMul(x, w) }}"), w=w)
    text = (
        f"(float[4,{size}] x) => (float[4,8] y) {{ a, b = Split<axis=1>(x, sizes) p = MatMul(a, v) q = MatMul(b, u)"
        " y = Add(q, p) }"
    )
    two = with_weights(model(text), v=w[:half], u=w[half:], sizes=np.array([half, size - half]))
    return one, two


@given(st.integers(2, 2000), st.integers(0, 99))
def test_sums_in_another_order_pass(size: int, seed: int) -> None:
    one, two = reassociated(size, seed)
    assert verify(one, two, seed=seed).passed  # type: ignore[arg-type]


@given(st.integers(2, 500), st.integers(0, 99))
def test_sums_in_another_order_pass_in_float64_and_half_precision_too(size: int, seed: int) -> None:
    for kind, off in (("double", 1e-12), ("float16", 0.1)):
        code = {"double": 11, "float16": 10}[kind]

        def total(body: str, number: float, kind: str = kind, code: int = code) -> onnx.ModelProto:
            return model(
                f"({kind}[4,{size}] x) => ({kind}[4] y) {{ axis = Constant<value_ints=[1]>()"
                f" d = Constant<value = double {{{number!r}}}>() n = Cast<to={code}>(d) t = {body} y = Mul(t, n) }}"
            )

        one = total("ReduceSum<keepdims=0>(x, axis)", 1.0)
        assert verify(one, total("ReduceMean<axes=[1], keepdims=0>(x)", float(size)), seed=seed).passed
        assert not verify(one, total("ReduceSum<keepdims=0>(x, axis)", 1.0 + off), seed=seed).passed


@given(st.integers(2, 2000), st.integers(0, 99), st.sampled_from([1e-4, -1e-3, 1e-2]))
def test_weights_that_are_a_little_off_fail(size: int, seed: int, error: float) -> None:
    one, _ = reassociated(size, seed)
    wrong = type(one)()
    wrong.CopyFrom(one)  # type: ignore[attr-defined]
    weights = np.frombuffer(wrong.graph.initializer[0].raw_data, dtype=np.float32)  # type: ignore[attr-defined]
    wrong.graph.initializer[0].raw_data = (weights * np.float32(1 + error)).tobytes()  # type: ignore[attr-defined]
    assert not verify(one, wrong, seed=seed).passed  # type: ignore[arg-type]


@given(st.integers(0, 99))
def test_batch_norm_folded_into_a_conv_passes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, b = rng.standard_normal((6, 3, 3, 3)).astype(np.float32), rng.standard_normal(6).astype(np.float32)
    scale, bias, mean = (rng.standard_normal(6).astype(np.float32) for _ in range(3))
    var = (rng.random(6) + 0.05).astype(np.float32)
    before = with_weights(
        model(
            "(float[1,3,8,8] x) => (float[1,6,6,6] y) { c = Conv(x, w, b)"
            " n = BatchNormalization(c, scale, bias, mean, var) y = Relu(n) }"
        ),
        w=w,
        b=b,
        scale=scale,
        bias=bias,
        mean=mean,
        var=var,
    )
    factor = scale / np.sqrt(var + np.float32(1e-5))
    folded = {"w": w * factor[:, None, None, None], "b": (b - mean) * factor + bias}
    text = "(float[1,3,8,8] x) => (float[1,6,6,6] y) { c = Conv(x, w, b) y = Relu(c) }"
    assert verify(before, with_weights(model(text), **folded), seed=seed).passed
    forgotten = folded | {"b": b * factor + bias}
    assert not verify(before, with_weights(model(text), **forgotten), seed=seed).passed


def test_a_tie_that_rounding_decides_is_said_not_to_be_compared() -> None:
    w = np.random.default_rng(0).standard_normal((400, 1)).astype(np.float32)
    tied = np.concatenate([w, w[::-1] * 0 + w], axis=1)
    text = "(float[200,400] x) => (int64[200] y) {{ {} y = ArgMax<axis=1,keepdims=0>(z) }}"
    swap = np.random.default_rng(1).permutation(400)
    one = with_weights(model(text.format("z = MatMul(x, w)")), w=tied)
    split = "a = MatMul(x, u) g = Gather<axis=1>(x, swap) b = MatMul(g, v) z = Concat<axis=1>(b, a)"
    two = with_weights(model(text.format(split)), u=tied[:, 1:], v=tied[swap][:, :1], swap=swap.astype(np.int64))
    found = verify(one, two)
    assert found.passed
    if found.outputs[0].how != "equal":
        assert "Rounding alone can change" in found.not_checked[0]
    opposite = with_weights(model(text.format("n = Neg(x) z = MatMul(n, w)")), w=np.concatenate([w, w + 1], axis=1))
    straight = with_weights(model(text.format("z = MatMul(x, w)")), w=np.concatenate([w, w + 1], axis=1))
    assert not verify(straight, opposite).passed


@pytest.mark.parametrize(
    ("before", "after", "passes"),
    [
        ((0, 0, 0), (0, 2, 3), True),
        ((0, 2, 0), (0, 2, 3), True),
        ((0, 2), (0, 3), False),
        ((0, 3), (3, 0), False),
        ((0, 0), (0, 0, 0), False),
        ((0, 2), (1, 2), False),
    ],
)
def test_of_nothing_a_dimension_may_be_unknown(before: tuple[int, ...], after: tuple[int, ...], passes: bool) -> None:
    """What a loop without an iteration collects: ONNX Runtime takes 0 for a dimension that it cannot infer."""
    one, other = (np.zeros(shape, np.float32) for shape in (before, after))
    for criterion in (Tolerance(), Exact()):
        assert bool(judge(one, other, criterion, Known(has_loops=True))) is passes
        assert not judge(one, other, criterion, Known()), "without a loop, shapes are shapes"
