"""The ward that all tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.graphopt.hostile.ward import Ward


@pytest.fixture(scope="session")
def ward() -> Iterator[Ward]:
    """A process that runs each job in a child under limits."""
    ward = Ward()
    yield ward
    ward.close()
