from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from graphopt.errors import EngineError
from graphopt.tensorrt.capability import Capability, choose_capabilities, gpu_capability, parse_capability
from graphopt.tensorrt.flavour import FULL, RTX

TRT = SimpleNamespace(
    __version__="1.7",
    ComputeCapability=SimpleNamespace(__members__=dict.fromkeys(["CURRENT", "NONE", "SM89", "SM120"])),
)


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [("8.9", (8, 9)), ("sm89", (8, 9)), ("SM_120", (12, 0)), ("12.1", (12, 1)), ((7, 5), (7, 5)), (" 8.6 ", (8, 6))],
)
def test_spellings(spelling: str | Capability, expected: Capability) -> None:
    assert parse_capability(spelling) == expected


@pytest.mark.parametrize("spelling", ["", "ada", "8", "8.9.1", "-8.9", "8,9"])
def test_no_capability(spelling: str) -> None:
    with pytest.raises(EngineError, match=r"write it like 8\.9"):
        parse_capability(spelling)


def test_rtx_builds_for_what_is_named_else_the_gpu_else_the_default() -> None:
    assert choose_capabilities(TRT, RTX, ["12.0", "8.9", "sm89"], (8, 9)) == ((12, 0), (8, 9))
    assert choose_capabilities(TRT, RTX, None, (12, 0)) == ((12, 0),)
    assert choose_capabilities(TRT, RTX, None, None) == ((8, 9),)


def test_rtx_never_builds_for_another_gpu_than_the_one_it_cannot_serve() -> None:
    with pytest.raises(EngineError, match=r"does not build for compute capability 9\.0; name one of 8\.9, 12\.0"):
        choose_capabilities(TRT, RTX, None, (9, 0))


def test_full_tensorrt_needs_the_gpu_that_it_builds_for() -> None:
    assert choose_capabilities(TRT, FULL, None, (9, 0)) == ((9, 0),)
    assert choose_capabilities(TRT, FULL, ["9.0"], (9, 0)) == ((9, 0),)
    with pytest.raises(EngineError, match="builds only on a machine with an NVIDIA GPU"):
        choose_capabilities(TRT, FULL, ["8.9"], None)
    with pytest.raises(EngineError, match="builds only for the GPU that is present"):
        choose_capabilities(TRT, FULL, ["8.9"], (9, 0))


class Driver:
    """The four calls of the CUDA driver that count; `failing` answers with an error."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self.failing:
                return 100  # CUDA_ERROR_NO_DEVICE
            if name == "cuDeviceGetAttribute":
                # 75 and 76: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
                arguments[0]._obj.value = {75: 12, 76: 1}[arguments[1]]
            return 0

        return call


@pytest.fixture
def fresh_gpu() -> Any:
    gpu_capability.cache_clear()
    yield
    gpu_capability.cache_clear()


@pytest.mark.usefixtures("fresh_gpu")
@pytest.mark.parametrize(
    ("failing", "expected"),
    [("", (12, 1)), ("cuInit", None), ("cuDeviceGet", None), ("cuDeviceGetAttribute", None)],
)
def test_the_gpu_that_is_present(monkeypatch: pytest.MonkeyPatch, failing: str, expected: Capability | None) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(failing))
    assert gpu_capability() == expected


@pytest.mark.usefixtures("fresh_gpu")
def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert gpu_capability() is None
