"""CUDA compute capabilities: of the GPU that is present, and as the user writes them."""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from collections.abc import Iterable
from typing import Any, TypeAlias

from graphopt.errors import EngineError
from graphopt.tensorrt.flavour import RTX, Flavour

Capability: TypeAlias = "tuple[int, int]"

DEFAULT_CAPABILITY: Capability = (8, 9)  # Ada: the newest that all of TensorRT-RTX's versions build for

# CUdevice_attribute of the CUDA driver API
_MAJOR, _MINOR = 75, 76


def text(capability: Capability) -> str:
    """A compute capability as NVIDIA writes it: `8.9`."""
    return f"{capability[0]}.{capability[1]}"


def parse_capability(spelling: str | Capability) -> Capability:
    """`8.9`, `sm89`, `SM_89` or (8, 9) as (8, 9). Raises EngineError."""
    if isinstance(spelling, tuple):
        return spelling
    match = re.fullmatch(r"(\d+)\.(\d)|(?i:sm)_?(\d+)(\d)", spelling.strip())
    if match is None:
        raise EngineError(f"'{spelling}' is no compute capability; write it like 8.9.")
    major, minor = [int(group) for group in match.groups() if group is not None]
    return major, minor


@functools.cache
def gpu_capability() -> Capability | None:
    """The compute capability of the first visible GPU, None without one. Asks the CUDA driver."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver: Any = ctypes.CDLL(name)
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (  # each call answers 0 when it went well; the first that fails ends the row
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    return None if failed else (major.value, minor.value)


def choose_capabilities(
    trt: Any, flavour: Flavour, named: Iterable[str | Capability] | None, gpu: Capability | None
) -> tuple[Capability, ...]:
    """What to build for: the named ones, else the GPU that is present, else `DEFAULT_CAPABILITY` with TensorRT-RTX.

    Full TensorRT builds on the GPU for that GPU: naming another raises EngineError, as does the absence of one.
    """
    wanted = tuple(dict.fromkeys(parse_capability(name) for name in named or ()))
    if flavour is not RTX:
        return (_of_this_gpu(flavour, wanted, gpu),)
    chosen = wanted or (gpu or DEFAULT_CAPABILITY,)
    known = _known(trt)
    for capability in chosen:
        if capability not in known:
            raise EngineError(
                f"TensorRT-RTX {trt.__version__} does not build for compute capability {text(capability)}; "
                f"name one of {', '.join(text(each) for each in known)}, or install full TensorRT."
            )
    return chosen


def _of_this_gpu(flavour: Flavour, wanted: tuple[Capability, ...], gpu: Capability | None) -> Capability:
    if gpu is None:
        raise EngineError(
            f"{flavour.title} builds only on a machine with an NVIDIA GPU, and none is visible; "
            "TensorRT-RTX builds without one: `pip install 'graphopt[rtx]'`."
        )
    if wanted and wanted != (gpu,):
        raise EngineError(
            f"{flavour.title} builds only for the GPU that is present (compute capability {text(gpu)}), "
            f"not for {', '.join(text(each) for each in wanted)}; leave the compute capability out."
        )
    return gpu


def _known(trt: Any) -> list[Capability]:
    names = [name for name in trt.ComputeCapability.__members__ if re.fullmatch(r"SM\d\d+", name)]
    return sorted((int(name[2:-1]), int(name[-1])) for name in names)
