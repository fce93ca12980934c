"""Python's search for unreachable objects, which large graphs make slow."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def few_collections() -> Iterator[None]:
    """While the block runs, Python looks for unreachable objects a hundred times less often.

    A graph is hundreds of thousands of objects that refer to each other and stay: to walk over all of them again and
    again takes a tenth of the time.
    """
    before = gc.get_threshold()
    gc.set_threshold(100 * before[0], *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
