"""Every failure that fuzzing found, again: it must not come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import found
from tests.fuzz.oracle import SETTINGS, examine

SAVED = sorted(found.FOLDER.glob("*.json"))


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_found_before(path: Path) -> None:
    saved = found.load(path)
    own = () if saved.setting is None or saved.setting in SETTINGS else (saved.setting,)
    outcome = examine(saved.model, saved.feeds, 0, [*SETTINGS, *own], repeated=True)
    assert not outcome.failures, f"{saved.reason}\nnow: {outcome.failures[0].detail}"
