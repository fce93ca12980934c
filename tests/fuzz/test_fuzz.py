"""A small campaign in every test run: the same models each time."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.inputs import feeds
from tests.fuzz.models import Case, cases
from tests.fuzz.oracle import examine


@settings(
    max_examples=120,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
@given(cases())
def test_random_models_stay_right(case: Case) -> None:
    outcome = examine(case.model, feeds(case), case.seed)
    assert not outcome.failures, outcome.failures[0].detail
