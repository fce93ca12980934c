from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from graphopt.errors import EngineError
from graphopt.tensorrt import flavour
from graphopt.tensorrt.flavour import FULL, RTX
from tests.graphopt.tensorrt.models import small_net


def installed(monkeypatch: pytest.MonkeyPatch, *names: str, origin: str | None = "somewhere/__init__.py") -> None:
    """Makes exactly these of the two packages look installed."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        if name in ("tensorrt", "tensorrt_rtx"):
            return SimpleNamespace(origin=origin) if name in names else None
        return real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.parametrize(
    ("names", "variable", "expected"),
    [
        ((), None, None),
        (("tensorrt_rtx",), None, RTX),
        (("tensorrt_rtx",), "0", RTX),
        (("tensorrt",), None, FULL),
        (("tensorrt",), "1", FULL),
        (("tensorrt", "tensorrt_rtx"), None, FULL),
        (("tensorrt", "tensorrt_rtx"), "0", FULL),
        (("tensorrt", "tensorrt_rtx"), "1", RTX),
    ],
)
def test_the_flavour_in_use(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], variable: str | None, expected: flavour.Flavour | None
) -> None:
    installed(monkeypatch, *names)
    monkeypatch.delenv("POLYGRAPHY_USE_TENSORRT_RTX", raising=False)
    if variable is not None:
        monkeypatch.setenv("POLYGRAPHY_USE_TENSORRT_RTX", variable)
    assert flavour.installed_flavour() is expected


def test_a_folder_named_like_the_package_is_not_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tensorrt", origin=None)
    assert flavour.installed_flavour() is None


def test_without_either_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(EngineError) as caught:
        flavour.load_tensorrt()
    assert "pip install 'graphopt[rtx]'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_entry_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt.tensorrt import build_engine, check_parse, default_shapes

    installed(monkeypatch)
    for entry in (build_engine, check_parse, default_shapes):
        with pytest.raises(EngineError, match="is not installed"):
            entry(small_net())


def test_a_package_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> Any:
        raise OSError("libcudart.so.13:\ncannot open shared object file")

    installed(monkeypatch, "tensorrt_rtx")
    monkeypatch.setattr(flavour.importlib, "import_module", import_module)
    monkeypatch.setattr(flavour, "prepare_polygraphy", lambda: RTX)
    with pytest.raises(EngineError, match=r"TensorRT-RTX is installed but cannot be loaded \(libcudart.so.13: cannot"):
        flavour.load_tensorrt()


# each in a fresh interpreter, since Polygraphy decides when it is first imported
PREPARE = "from graphopt.tensorrt import prepare_polygraphy; prepare_polygraphy()"
ORDERS = {
    "before": f"{PREPARE}\nimport polygraphy.backend.trt",
    "after its root": f"import polygraphy\n{PREPARE}",
    "after its comparator": f"import polygraphy.comparator\n{PREPARE}",
    "after its TensorRT part": f"import polygraphy.backend.trt\n{PREPARE}",
}


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_polygraphy_uses_the_flavour_whenever_it_was_imported(order: str) -> None:
    script = f"""
import importlib.util, os
os.environ.pop("POLYGRAPHY_USE_TENSORRT_RTX", None)
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "tensorrt" else real(name, package)
{order}
import polygraphy.config, polygraphy.backend.trt.loader as loader, polygraphy.util.util as util
assert polygraphy.config.USE_TENSORRT_RTX
assert loader.trt.Builder.__module__.startswith("tensorrt_rtx"), loader.trt.Builder.__module__
assert util.trt.Builder.__module__.startswith("tensorrt_rtx")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_none_of_the_three() -> None:
    script = """
import sys, graphopt.tensorrt
graphopt.tensorrt.prepare_polygraphy()
heavy = {"tensorrt", "tensorrt_rtx", "polygraphy", "onnxruntime"}
sys.exit(bool(heavy & {name.split(".")[0] for name in sys.modules}))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
