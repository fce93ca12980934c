"""The search with a meter that is told what things cost: what it tries, keeps, and when it stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import pytest

from graphopt.cost import Decision
from graphopt.errors import EngineError
from graphopt.pipeline import Verdict
from graphopt.tune import Budget, Comparison
from graphopt.tune.search import Made, Tuning, search


@dataclass(frozen=True)
class Told:
    """A meter for models whose documentation lists the trades that were made; each has its price."""

    prices: Mapping[str, float]
    refuses: str = ""

    @property
    def name(self) -> str:
        return "told"

    def prepare(self, model: onnx.ModelProto) -> float:
        made = model.doc_string.split()
        if self.refuses in made:
            raise EngineError("the runtime does not take the model.")
        return 100.0 + sum(self.prices[key] for key in made)

    def compare(self, current: float, candidate: float) -> Comparison:
        return Comparison(candidate / current, 0.01)


def tuned(
    prices: Mapping[str, float],
    default: Mapping[str, bool],
    budget: Budget | None = None,
    refuses: str = "nothing",
    fixed: frozenset[str] = frozenset(),
) -> Tuning:
    def make(verdicts: Mapping[str, Verdict]) -> Made:
        taken = {key: verdicts[key].take if key in verdicts else answer for key, answer in default.items()}
        decisions = [Decision(*key.split("@"), 1.0, 0.9, answer, "") for key, answer in taken.items()]
        return Made(onnx.ModelProto(doc_string=" ".join(k for k, answer in taken.items() if answer)), decisions)

    return search(make, Told(prices, refuses), budget or Budget(), fixed=fixed)


def test_a_rule_that_wins_everywhere_is_one_trial() -> None:
    found = tuned({"r@a": -5, "r@b": -5}, {"r@a": False, "r@b": False})
    assert {k: v.take for k, v in found.verdicts.items()} == {"r@a": True, "r@b": True}
    assert [t.ratio for t in found.trials] == [pytest.approx(0.9)]
    assert found.stop == "done"


def test_where_a_rule_wins_only_at_one_place_the_place_is_found() -> None:
    found = tuned({"r@a": -5, "r@b": 20, "r@c": 20, "r@d": 20}, dict.fromkeys(("r@a", "r@b", "r@c", "r@d"), False))
    assert {k: v.take for k, v in found.verdicts.items()} == {"r@a": True}


def test_what_was_taken_and_does_not_pay_is_left_out() -> None:
    found = tuned({"r@a": 10, "s@a": -10}, {"r@a": True, "s@a": True})
    assert {k: v.take for k, v in found.verdicts.items()} == {"r@a": False}


def test_a_gain_within_noise_is_none() -> None:
    assert not tuned({"r@a": -0.5}, {"r@a": False}).verdicts


def test_no_part_is_tried_of_what_makes_no_difference() -> None:
    assert len(tuned({"r@a": 0, "r@b": 0}, {"r@a": False, "r@b": False}).trials) == 1


def test_a_candidate_that_the_runtime_refuses_is_not_kept() -> None:
    found = tuned({"r@a": -50}, {"r@a": False}, refuses="r@a")
    assert [(t.ratio, t.kept) for t in found.trials] == [(None, False)]


def test_forced_rules_are_not_tried() -> None:
    assert not tuned({"r@a": 10}, {"r@a": True}, fixed=frozenset({"r"})).trials


@pytest.mark.parametrize(
    ("budget", "stop", "most"), [(Budget(trials=3), "trials", 3), (Budget(seconds=0), "seconds", 0)]
)
def test_the_budget_bounds_the_search(budget: Budget, stop: str, most: int) -> None:
    keys = [f"r@{i}" for i in range(64)]
    found = tuned(dict.fromkeys(keys, 1.0), dict.fromkeys(keys, False), budget)
    assert (found.stop, len(found.trials)) == (stop, most)


def test_without_trades_nothing_is_measured() -> None:
    assert tuned({}, {}).trials == ()
