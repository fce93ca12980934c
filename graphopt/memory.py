"""Whether there is memory to execute a model: asked before it is loaded, since the system ends who takes too much."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from graphopt.errors import ExecutionError
from graphopt.graph import Model, Tensor
from graphopt.graph.constant import bits_of
from graphopt.save import INLINE_BYTES, constants, inline_bytes

_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")
_CGROUP = Path("/sys/fs/cgroup")  # of the second version; in a container, its own
_KIB = 1024
# What a runtime holds of a model while it opens it: the message it is given, and its own copy of the weights.
COPIES = 2


def available_bytes() -> int | None:
    """Bytes of memory that new work may take: what Linux estimates to be free without swapping, within the limits of
    the container and of the process. None on other systems.
    """
    known = [free for free in (_free_of_the_machine(), _free_of_the_container(), _free_addresses()) if free is not None]
    return max(0, min(known)) if known else None


def _free_of_the_machine() -> int | None:
    return _entry(_MEMINFO, "MemAvailable:", _KIB)


def _free_of_the_container() -> int | None:
    limit, used = _entry(_CGROUP / "memory.max"), _entry(_CGROUP / "memory.current")
    if limit is None or used is None:
        return None
    return limit - used + (_entry(_CGROUP / "memory.stat", "inactive_file") or 0)  # cached files give way


def _free_addresses() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _entry(_STATM)
    return None if limit == resource.RLIM_INFINITY or pages is None else limit - pages * resource.getpagesize()


def _entry(file: Path, name: str = "", unit: int = 1) -> int | None:
    """The number behind `name` at the start of a line, or the file's first word; None where there is none."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    words = next((line.removeprefix(name).split() for line in lines if line.startswith(name)), [])
    return int(words[0]) * unit if words and words[0].isdigit() else None


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
    largest = max((_bytes(t) for node in model.graph.nodes for t in node.outputs if t is not None), default=0)
    if free is not None and largest > free:
        raise ExecutionError(
            f"one of its tensors takes {largest / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free; {advice}"
        )


def _bytes(tensor: Tensor) -> int:
    """What the tensor takes at least; 0 where its shape is not known."""
    if tensor.shape is None:
        return 0
    elements = math.prod(dim if isinstance(dim, int) else 1 for dim in tensor.shape)
    return elements * (bits_of(tensor.dtype or 0) or 0) // 8
