"""Which TensorRT there is: `tensorrt` where it is installed, else `tensorrt_rtx`.

Polygraphy decides between the two when its modules are first imported, by `POLYGRAPHY_USE_TENSORRT_RTX`. Whatever
imports Polygraphy calls `prepare_polygraphy()` before; it is cheap and imports neither of the three.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from graphopt.errors import EngineError

_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"


@dataclass(frozen=True)
class Flavour:
    """One of the two packages: its import name, its name for readers, whether it builds without a GPU."""

    module: str
    title: str
    builds_without_gpu: bool


FULL = Flavour("tensorrt", "TensorRT", builds_without_gpu=False)
RTX = Flavour("tensorrt_rtx", "TensorRT-RTX", builds_without_gpu=True)


def installed_flavour() -> Flavour | None:
    """The flavour in use: the only one installed, or of two the full one unless Polygraphy's variable asks for RTX."""
    found = [flavour for flavour in (FULL, RTX) if _is_installed(flavour.module)]
    if len(found) == 2 and os.environ.get(_SWITCH, "0") != "0":
        return RTX
    return found[0] if found else None


def prepare_polygraphy() -> Flavour | None:
    """Makes Polygraphy use the flavour in use, which it returns. Right before or after Polygraphy's first import."""
    flavour = installed_flavour()
    if flavour is not None:
        os.environ[_SWITCH] = "1" if flavour is RTX else "0"
        config = sys.modules.get("polygraphy.config")
        if config is not None and vars(config)["USE_TENSORRT_RTX"] != (flavour is RTX):
            _switch_loaded(config, flavour)
    return flavour


def load_tensorrt() -> tuple[Any, Flavour]:
    """TensorRT's Python module and its flavour.

    Raises EngineError when neither package is installed, or when the one that is cannot be imported.
    """
    flavour = prepare_polygraphy()
    if flavour is None:
        raise EngineError(
            "TensorRT is not installed: install it with `pip install 'graphopt[rtx]'`, "
            "or with `pip install 'graphopt[tensorrt]'` where NVIDIA's package index is within reach."
        )
    try:
        return importlib.import_module(flavour.module), flavour
    except (ImportError, OSError) as error:
        raise EngineError(
            f"{flavour.title} is installed but cannot be loaded ({' '.join(str(error).split())}): "
            f"install its package '{flavour.module}' again."
        ) from error


def _is_installed(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    # a folder of that name without `__init__.py` on the path makes a spec without an origin
    return spec is not None and spec.origin is not None


def _switch_loaded(config: ModuleType, flavour: Flavour) -> None:
    """Switches a Polygraphy that is imported already: its flag, and the lazy module that each of its files holds."""
    vars(config)["USE_TENSORRT_RTX"] = flavour is RTX
    importer = importlib.import_module("polygraphy.mod.trt_importer")
    fresh = importer.lazy_import_trt()
    for name, module in list(sys.modules.items()):
        if name.startswith("polygraphy.") and type(vars(module).get("trt")).__name__ == "LazyModule":
            vars(module)["trt"] = fresh
