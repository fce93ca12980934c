"""Whether there is memory to execute a model: asked before it is loaded, since the system ends who takes too much."""

from __future__ import annotations

from pathlib import Path

from graphopt.errors import ExecutionError
from graphopt.graph import Model
from graphopt.save import INLINE_BYTES, constants, inline_bytes

_MEMINFO = Path("/proc/meminfo")
_KIB = 1024
# What a runtime holds of a model while it opens it: the message it is given, and its own copy of the weights.
COPIES = 2


def available_bytes() -> int | None:
    """Bytes of memory that new work may take without swapping, by Linux's estimate; None on other systems."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("MemAvailable:")), None)
    return int(found[1]) * _KIB if found is not None else None


def check_executable(model: Model) -> None:
    """Raises ExecutionError when `model` is too large to be executed here as a whole."""
    advice = "use --verify each, which compares every rewrite on its own, or --no-verify."
    weights, free = sum(constant.nbytes for constant in constants(model)), available_bytes()
    if inline_bytes(model) > INLINE_BYTES:
        raise ExecutionError(
            f"the weights that were changed pass 2 GiB, which no runtime takes as one object; {advice}"
        )
    if free is not None and COPIES * weights > free:
        raise ExecutionError(
            f"the weights take {weights / 1e9:.1f} GB, and to execute the model takes about {COPIES} times that, but "
            f"{free / 1e9:.1f} GB of memory are free; {advice}"
        )
