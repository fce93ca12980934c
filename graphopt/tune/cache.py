"""What was measured before, by graph and device: one small JSON file each, in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnx import ModelProto

from graphopt.errors import SaveError
from graphopt.graph import Model
from graphopt.inference import skeleton
from graphopt.model import write_atomically
from graphopt.pipeline import Options, Pipeline, Verdict
from graphopt.tune.search import Budget, Trial, Tuning
from graphopt.version import VERSION


def cache_folder() -> Path:
    """`$GRAPHOPT_CACHE`, else `graphopt` in `$XDG_CACHE_HOME` or `~/.cache`."""
    named = os.environ.get("GRAPHOPT_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphopt"


def cache_key(model: Model, pipeline: Pipeline, options: Options, budget: Budget, meter: str) -> str:
    """The graph (its large weights' types only, since numbers take no other time), and all that the search depends on.

    `model` is the model before any rewrite.
    """
    digest = hashlib.sha256()
    for part in (_structure(model).SerializeToString(deterministic=True), str(pipeline).encode(), meter.encode()):
        digest.update(len(part).to_bytes(8, "little") + part)
    settings = {
        "options": {k: sorted(v) if isinstance(v, frozenset) else str(v) for k, v in vars(options).items()},
        "budget": asdict(budget),
        "version": VERSION,
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()


def _structure(model: Model) -> ModelProto:
    """The model without large weights and without what does not matter to its speed."""
    proto = skeleton(model)
    proto.ClearField("producer_name")
    proto.ClearField("producer_version")
    proto.ClearField("doc_string")
    proto.ClearField("metadata_props")
    return proto


def load(folder: Path, key: str) -> Tuning | None:
    """What was found before; None when there is nothing, or it cannot be read."""
    try:
        stored = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        verdicts = {k: Verdict(bool(v["take"]), float(v["ratio"])) for k, v in stored["verdicts"].items()}
        trials = tuple(Trial(**{**t, "keys": tuple(t["keys"])}) for t in stored["trials"])
        return Tuning(str(stored["meter"]), verdicts, trials, str(stored["stop"]), from_cache=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def store(folder: Path, key: str, tuning: Tuning) -> None:
    """Remembers what was found. A folder that cannot be written is no reason to fail: the result stands."""
    content: dict[str, Any] = asdict(tuning)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{key}.json", json.dumps(content, indent=1).encode())
    except (OSError, SaveError):
        return
