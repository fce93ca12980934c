from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from polygraphy.comparator import Comparator, RunResults

from graphopt.errors import VerificationError
from graphopt.verification.comparison import compare
from graphopt.verification.execution import Execution
from graphopt.verification.measure import Measure
from graphopt.verification.samples import Sample
from graphopt.verification.sessions import Reference
from graphopt.verification.source import Located
from graphopt.verification.tolerance import Exact, Tolerance
from graphopt.verification.values import Value
from tests.graphopt.verification.models import model

MEASURE = Measure(Located(model("(float[2] x) => (float[2] y) { y = Neg(x) }")))
ONE: Mapping[str, Value] = {"y": np.ones(2, np.float32), "z": np.ones(2, np.float32)}


def execution(*pairs: tuple[Mapping[str, Value], Mapping[str, Value]]) -> Execution:
    return Execution([Sample({}, mine) for mine, _ in pairs], [theirs for _, theirs in pairs], "", Reference)


def test_polygraphys_own_verdict_is_not_to_be_trusted() -> None:
    """The traps that `compare` guards against: should these go, so may the guards."""
    nothing = RunResults()
    nothing.add([], runner_name="a")
    nothing.add([], runner_name="b")
    assert bool(Comparator.compare_accuracy(nothing))
    half = RunResults()
    half.add([dict(ONE)], runner_name="a")
    half.add([{"y": ONE["y"]}], runner_name="b")
    assert bool(Comparator.compare_accuracy(half))


@pytest.mark.parametrize("found", [execution(), Execution([Sample({}, ONE)], [], "", Reference)])
def test_nothing_compared_is_no_agreement(found: Execution) -> None:
    with pytest.raises(VerificationError, match="No outputs were compared"):
        compare(found, Tolerance(), (), MEASURE)


@pytest.mark.parametrize("theirs", [{"y": ONE["y"]}, {}, {**ONE, "w": ONE["y"]}, {"z": ONE["z"], "y": ONE["y"]}])
def test_other_names_are_no_agreement(theirs: Mapping[str, Value]) -> None:
    with pytest.raises(VerificationError, match="different names"):
        compare(execution((ONE, theirs)), Tolerance(), (), MEASURE)


def test_the_worst_sample_counts() -> None:
    off = {"y": ONE["y"], "z": np.array([1, 3], dtype=np.float32)}
    found = compare(execution((ONE, ONE), (ONE, off), (ONE, ONE)), Exact(), (), MEASURE)
    assert [(check.name, check.passed, check.worst) for check in found.outputs] == [("y", True, 0), ("z", False, 2)]
    assert found.problems == ("The output z differs: 1 of 2 numbers differ, by up to 2.",)


def test_every_kind_of_value_is_compared() -> None:
    values: dict[str, Value] = {
        "sequence": [np.ones(1), np.ones(2)],
        "map": [{"a": np.float32(1), "b": np.float32(2)}],
        "nothing": None,
        "words": np.array(["a", "b"], dtype=object),
        "empty": np.zeros((0, 2), np.float32),
    }
    assert all(check.passed for check in compare(execution((values, values)), Exact(), (), MEASURE).outputs)
    others: dict[str, Value] = {
        "sequence": [np.ones(1)],
        "map": [{"a": np.float32(1), "c": np.float32(2)}],
        "nothing": np.ones(1),
        "words": np.array(["a", "c"], dtype=object),
        "empty": np.zeros((2, 0), np.float32),
    }
    assert not any(check.passed for check in compare(execution((values, others)), Exact(), (), MEASURE).outputs)
