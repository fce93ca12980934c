"""Graphs around the patterns of rules: those that the tests of rules use, and those that a rule offers.

As a pytest plug-in (`-p tests.fuzz.harvest`, the folder in FUZZ_SEEDS) it writes down every model that a test hands to
a rule, and skips the rest of the test. A rule may also have a method `fuzz_models()` that gives ModelProtos.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import onnx
import pytest
from onnx import ModelProto

FOLDER = "FUZZ_SEEDS"
_MOST_NODES = 40
_MOST_BYTES = 100_000


def harvest(folder: Path) -> int:
    """Fills the folder with RULE__HASH.onnx; returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/passes",
        "-q",
        "-p",
        "tests.fuzz.harvest",
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, FOLDER: str(folder)}
    root = Path(__file__).parents[2]
    subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=300, check=False)
    for name, rule in _rules().items():
        for proto in getattr(rule, "fuzz_models", tuple)():
            write(folder, name, proto)
    return len(list(folder.iterdir()))


def write(folder: Path, rule: str, proto: ModelProto) -> None:
    """Keeps a small valid model."""
    data = proto.SerializeToString(deterministic=True)
    if len(proto.graph.node) > _MOST_NODES or len(data) > _MOST_BYTES or proto.functions:
        return
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception:  # tests of what is not valid are of no use here
        return
    (folder / f"{rule}__{hashlib.sha256(data).hexdigest()[:8]}.onnx").write_bytes(data)


def _rules() -> dict[str, Any]:
    from graphopt.plugins import find_rules

    return find_rules()


def _record(rules: Any, proto: ModelProto, *_: Any, **__: Any) -> NoReturn:
    listed = rules if isinstance(rules, (list, tuple)) else getattr(rules, "rules", [rules])
    for rule in listed:
        write(Path(os.environ[FOLDER]), getattr(rule, "name", "some-rule"), proto)
    pytest.skip("its model is written down")


def pytest_configure() -> None:
    """Puts itself into the place of what applies rules in tests."""
    if FOLDER in os.environ:
        from tests.support import rewrites

        rewrites.apply = _record
        rewrites.apply_pass = _record
