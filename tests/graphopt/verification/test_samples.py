from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from graphopt.errors import ExecutionError, InputsError
from graphopt.verification import verify
from graphopt.verification.samples import given_feeds
from tests.graphopt.verification.models import model

TWO = model("(float[n,3] x, int64[n] k) => (float[n,3] y) { y = Neg(x) }")
X, K = np.ones((2, 3), dtype=np.float32), np.zeros(2, dtype=np.int64)


def test_the_users_file_is_used(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    np.savez(path, x=X, k=K)
    found = verify(TWO, TWO, inputs=path)
    assert found.passed
    assert found.samples == 1
    assert found.how.startswith("1 given input,")


def test_several_sets_are_used_in_turn() -> None:
    same_where_positive = model("(float[n,3] x, int64[n] k) => (float[n,3] y) { a = Abs(x) y = Neg(a) }")
    positive, negative = {"x": X, "k": K}, {"x": -X, "k": K}
    assert verify(TWO, same_where_positive, inputs=positive).passed
    assert not verify(TWO, same_where_positive, inputs=[positive, negative]).passed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": X}, "lack k"),
        ({"x": X, "k": K, "z": K}, "no input z; its inputs are x, k"),
        ({"x": X[0], "k": K}, r"x is given as float32\[3\] but takes \[n, 3\]"),
        ({"x": np.ones((2, 4), np.float32), "k": K}, r"x is given as float32\[2,4\] but takes \[n, 3\]"),
        ({"x": X, "k": np.ones(2, np.float32)}, r"k is given as float32\[2\] but takes int64"),
        ({"x": X.astype(complex), "k": K}, "x is given as complex128"),
        ([], "are empty"),
    ],
)
def test_inputs_that_do_not_fit(given: object, message: str) -> None:
    with pytest.raises(InputsError, match=message):
        given_feeds(TWO, given)  # type: ignore[arg-type]


def test_types_are_cast_where_nothing_is_lost() -> None:
    (feeds,) = given_feeds(TWO, {"x": X.astype(np.float64), "k": K.astype(np.int8)})
    assert np.asarray(feeds["x"]).dtype == np.float32
    assert np.asarray(feeds["k"]).dtype == np.int64
    small = model("(uint8[2] x) => (uint8[2] y) { y = Identity(x) }")
    with pytest.raises(InputsError):
        given_feeds(small, {"x": np.array([1, 256])})


def test_bfloat16_survives_a_file(tmp_path: Path) -> None:
    narrow = model("(bfloat16[2] x) => (bfloat16[2] y) { y = Identity(x) }", opset=21, ir=10)
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.array([1, 2], dtype=ml_dtypes.bfloat16))
    (feeds,) = given_feeds(narrow, path)
    assert np.asarray(feeds["x"]).astype(np.float32).tolist() == [1, 2]
    assert verify(narrow, narrow, inputs=path).passed


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_a_file_that_is_no_archive(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "inputs.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputsError, match="cannot be read"):
        verify(TWO, TWO, inputs=path)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.array([object()], dtype=object), k=K)
    with pytest.raises(InputsError, match="cannot be read"):
        verify(TWO, TWO, inputs=path)


def test_inputs_on_which_the_original_fails() -> None:
    pick = model("(float[3] x, int64[1] i) => (float[1] y) { y = Gather(x, i) }")
    with pytest.raises(ExecutionError, match="original model itself does not run"):
        verify(pick, pick, inputs={"x": np.ones(3, np.float32), "i": np.array([9])})
