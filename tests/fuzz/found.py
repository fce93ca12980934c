"""Saved failures: the model, its inputs and the reason, three files with one name."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from tests.fuzz.inputs import Feeds
from tests.fuzz.oracle import Failure, Setting

_FOLDERS = re.compile(r"(?:/[^/\s\"']+)+/(?=(?:graphopt|graphopt_passes|tests|site-packages|lib)/)")
UNSET = ("died", "time-out", "fuzzer")  # kinds of failures that tell no setting
FOLDER = Path(__file__).parent / "found"


@dataclass(frozen=True)
class Saved:
    """A failure read back."""

    name: str
    model: onnx.ModelProto
    feeds: list[Feeds]
    reason: str
    setting: Setting | None  # in which it failed; None where that is not known


def save(folder: Path, model: onnx.ModelProto, feeds: list[Feeds], failure: Failure, origin: str) -> Path:
    """Writes NAME.onnx, NAME.npz and NAME.json; NAME is a hash of the model. Returns the path without the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    data = model.SerializeToString(deterministic=True)
    path = folder / hashlib.sha256(data).hexdigest()[:12]
    path.with_suffix(".onnx").write_bytes(data)
    names = [list(inputs) for inputs in feeds]
    arrays = {f"{at}_{k}": value for at, inputs in enumerate(feeds) for k, value in enumerate(inputs.values())}
    np.savez(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
    reason = {
        "kind": failure.kind,
        "setting": asdict(failure.setting),
        "key": failure.key,
        "detail": _FOLDERS.sub("", failure.detail),
        "origin": origin,
        "inputs": names,
    }
    path.with_suffix(".json").write_text(json.dumps(reason, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    return path


def load(path: Path) -> Saved:
    """Reads what `save` wrote; `path` names any of the three files."""
    reason = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    with np.load(path.with_suffix(".npz")) as arrays:
        feeds = [{n: arrays[f"{at}_{k}"] for k, n in enumerate(names)} for at, names in enumerate(reason["inputs"])]
    model = onnx.load(path.with_suffix(".onnx"))
    given = {**reason["setting"], "forbid": tuple(reason["setting"].get("forbid", ()))}
    setting = None if reason["kind"] in UNSET else Setting(**given)
    return Saved(path.stem, model, feeds, f"{reason['kind']}: {reason['detail'][:200]}", setting)
