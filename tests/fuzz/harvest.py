"""Graphs around the patterns of rules: those that the tests of rules use, and those that a rule offers.

As a pytest plug-in (`-p tests.fuzz.harvest`, the folder in FUZZ_SEEDS) it writes down every model that a test hands to
a rule, and skips the rest of the test. A rule may also have a method `fuzz_models()` that gives ModelProtos.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import onnx
import pytest
from onnx import ModelProto

FOLDER = "FUZZ_SEEDS"
INDEX = "index.json"
OPSETS = (8, 9, 11, 12, 13, 15, 16, 17, 18, 20, 21, 22, 23, 24, 25, 26)
_MOST_NODES = 40
_MOST_BYTES = 100_000
_MOST_ELEMENTS = 100_000
_DEEPEST = 3
_GROWING = {"ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "OneHot", "EyeLike", "Loop"}


def harvest(folder: Path) -> int:
    """Fills the folder with graphs and INDEX, which says what each is good for; returns how many there are."""
    from tests.fuzz.trial import deadly  # which reads what is harvested here

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
    subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=1200, check=False)
    for name, rule in _rules().items():
        for proto in getattr(rule, "fuzz_models", tuple)():
            write(folder, name, proto)
    index = {path.name: _uses(path) for path in sorted(folder.glob("*.onnx"))}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    for name in deadly(folder):
        del index[name]
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return len(index)


def _uses(path: Path) -> dict[str, Any]:
    """The rules that fire in a graph, those that its tests are about, its own opset, and all in which it is valid."""
    from tests.fuzz.oracle import Setting, homes, optimize, setting_around

    proto = onnx.load(path)
    tested = path.with_suffix(".txt").read_text(encoding="utf-8").split()
    settings = [Setting("default", "tensorrt", True), Setting("default", "onnxruntime", True)]
    around = (setting_around(rule, homes()[rule], "onnxruntime") for rule in tested if rule in homes())
    settings += dict.fromkeys(around)  # each once
    fired: set[str] = set()
    for setting in settings:
        with contextlib.suppress(Exception):  # the campaign itself will find out
            fired |= set(optimize(proto, setting).report.applied)
    own = proto.opset_import[0].version
    opsets = [v for v in sorted({*OPSETS, own}) if is_valid(proto, v)]
    return {"fired": sorted(fired), "tested": tested, "opsets": opsets, "own": own}


def is_valid(proto: ModelProto, opset: int) -> bool:
    """Whether the checker takes the model as one of that opset."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    copy.ir_version = 13
    copy.opset_import[0].version = opset
    if opset >= 18 and any(n.op_type == "Split" and len(n.input) < 2 and not _counts(n) for n in copy.graph.node):
        return False  # the checker does not see that
    try:
        onnx.checker.check_model(copy, full_check=True)
    except Exception:
        return False
    return True


def _is_huge(proto: ModelProto) -> bool:
    """Tests of limits ask for tensors that no machine holds."""
    values = [onnx.numpy_helper.to_array(init) for init in proto.graph.initializer if init.data_type == 7]
    values += [onnx.numpy_helper.to_array(a.t) for n in proto.graph.node for a in n.attribute if a.t.data_type == 7]
    largest = max((int(value.max()) for value in values if value.size), default=0)
    return largest > _MOST_ELEMENTS and any(node.op_type in _GROWING for node in proto.graph.node)


def _depth(graph: onnx.GraphProto) -> int:
    """How many loops lie in each other: their iterations multiply."""
    bodies = ((node.op_type, a.g) for node in graph.node for a in node.attribute if a.HasField("g"))
    return max(((op in ("Loop", "Scan")) + _depth(body) for op, body in bodies), default=0)


def _counts(split: onnx.NodeProto) -> bool:
    return any(attribute.name == "num_outputs" for attribute in split.attribute)


def write(folder: Path, rule: str, proto: ModelProto) -> None:
    """Keeps a small model of standard operators, and the name of the rule beside it."""
    data = proto.SerializeToString(deterministic=True)
    standard = len(proto.opset_import) == 1 and proto.opset_import[0].domain == "" and not proto.functions
    if not standard or len(proto.graph.node) > _MOST_NODES or len(data) > _MOST_BYTES:
        return
    if _is_huge(proto) or _depth(proto.graph) > _DEEPEST:
        return
    path = folder / f"{hashlib.sha256(data).hexdigest()[:12]}.onnx"
    path.write_bytes(data)
    with path.with_suffix(".txt").open("a", encoding="utf-8") as rules:
        rules.write(f"{rule}\n")


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
