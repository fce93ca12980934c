"""The zoo: `load`, `materialise` and `inputs` of the models that `models/manifest.json` lists.

No weights are kept in the repository. A model is drawn by seed when it is asked for, or written to a folder:

    python -m models.zoo googlenet --folder build/models
    python -m models.zoo --all --folder build/models
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from models.weights import draw_by_role, draw_by_statistics, generator

HERE = Path(__file__).parent
WHEEL_GRAPHS = Path("backend", "test", "data", "light")  # inside the installed onnx package


@dataclass(frozen=True)
class Input:
    """An input that suits a model: its shape, its dtype, and for integers the bound that they stay below."""

    shape: tuple[int, ...]
    dtype: str
    below: int | None = None


@dataclass(frozen=True)
class Entry:
    """One model of the manifest: where its graph comes from, under which licence, and what to feed it."""

    name: str
    source: str
    graph: str
    origin: str
    licence: str
    inputs: Mapping[str, Input]

    @property
    def is_from_wheel(self) -> bool:
        """Whether the graph ships in the onnx wheel, rather than in `models/graphs`."""
        return self.source == "onnx-wheel"


@cache
def manifest() -> Mapping[str, Entry]:
    """Every model of the zoo by name, in the manifest's order."""
    listed = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))["models"]
    return {each["name"]: _entry(each) for each in listed}


def _entry(listed: dict[str, Any]) -> Entry:
    inputs = {
        name: Input(tuple(each["shape"]), each["dtype"], each.get("below")) for name, each in listed["inputs"].items()
    }
    return Entry(**{**listed, "inputs": inputs})


def find(name: str) -> Entry:
    """The entry of that name. Raises KeyError with the names that there are."""
    try:
        return manifest()[name]
    except KeyError:
        raise KeyError(f"There is no model {name!r} in the zoo; it has {', '.join(manifest())}.") from None


def load(name: str, seed: int = 0) -> ModelProto:
    """The model with its weights, which depend on the name and the seed alone. Raises KeyError for an unknown name."""
    entry = find(name)
    model = load_graph(name)
    if entry.is_from_wheel:
        draw_by_role(model, seed)
    else:
        draw_by_statistics(model, seed)
    return model


def load_graph(name: str) -> ModelProto:
    """The graph as it is kept, its weights still missing. Raises KeyError for an unknown name."""
    path = graph_path(find(name))
    data = path.read_bytes()
    return onnx.load_model_from_string(lzma.decompress(data) if path.suffix == ".xz" else data)


def graph_path(entry: Entry) -> Path:
    """Where the entry's graph is kept: in the installed onnx package or in `models/graphs`."""
    folder = Path(onnx.__file__).parent / WHEEL_GRAPHS if entry.is_from_wheel else HERE / "graphs"
    return folder / entry.graph


def materialise(name: str, folder: str | os.PathLike[str], seed: int = 0) -> Path:
    """Writes the model to `folder`/`name`.onnx, unless it is there and newer than what it is made of; returns the path.

    The file appears whole or not at all, so that several processes may ask for the same model at once.
    A seed other than 0 is part of the file's name.
    """
    path = Path(folder) / (f"{name}.onnx" if seed == 0 else f"{name}.seed{seed}.onnx")
    sources = [graph_path(find(name)), HERE / "manifest.json", HERE / "weights.py", Path(__file__)]
    if not path.exists() or path.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(load(name, seed).SerializeToString())
            os.replace(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise
    return path


def inputs(name: str, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Inputs that suit the model: floats from a standard normal, integers from 0 up to what they index.

    An `attention_mask` keeps the first token of each row, so that no row attends to nothing.
    """
    return {key: _draw_input(key, each, generator(seed, f"{name}/{key}")) for key, each in find(name).inputs.items()}


def _draw_input(name: str, wanted: Input, draw: np.random.Generator) -> NDArray[Any]:
    if wanted.below is None:
        return draw.standard_normal(wanted.shape).astype(wanted.dtype)
    values = draw.integers(0, wanted.below, wanted.shape).astype(wanted.dtype)
    if name == "attention_mask":
        values[:, 0] = 1
    return values


def main() -> None:
    """Writes the named models, or all, to a folder."""
    parser = argparse.ArgumentParser(prog="python -m models.zoo", description="Draws the weights of the zoo's models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(manifest())}")
    parser.add_argument("--all", action="store_true", help="every model of the manifest")
    parser.add_argument("--folder", default="build/models", help="where to write them (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the weights (default: %(default)s)")
    wanted = parser.parse_args()
    names = list(manifest()) if wanted.all else wanted.names
    if not names or (unknown := [name for name in names if name not in manifest()]):
        parser.error("name a model, or --all" if not names else f"no such model: {', '.join(unknown)}")
    for name in names:
        materialise(name, wanted.folder, wanted.seed)


if __name__ == "__main__":
    main()
