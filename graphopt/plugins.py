"""Finding passes: every entry point of the group `graphopt.passes` names one tuple of Pass classes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from graphopt.errors import PipelineError, PluginError
from graphopt.pipeline import Pass, PassTypes, suggestion
from graphopt.rule import Rule

GROUP = "graphopt.passes"

# Pipelines with names: what `--pipeline` takes beside the names of passes.
PRESETS = {
    "clean": (
        "inline-functions, clean-up, fold-constants, clean-up, share-duplicates, simplify-layout, share-duplicates, "
        "clean-up"
    ),
    "default": (
        "inline-functions, clean-up, fold-constants, clean-up, share-duplicates, simplify-layout, elide-concats, "
        "recognize-blocks, fuse-vertical, merge-siblings, elide-concats, fold-constants, simplify-layout, "
        "fuse-for-onnxruntime, spell-for-tensorrt, share-duplicates, fuse-vertical, clean-up, spell-blocks"
    ),
}


@lru_cache(maxsize=1)
def find_passes() -> PassTypes:
    """All passes by name. Raises PluginError, naming the plug-in, when one cannot be loaded."""
    return collect(entry_points(group=GROUP))


def collect(points: Iterable[EntryPoint]) -> PassTypes:
    """The passes that `points` name. Raises PluginError for one that is broken, or a name that two of them claim."""
    found: PassTypes = {}
    for point in points:
        for cls in _load(point):
            if cls.name in found and found[cls.name] is not cls:
                raise PluginError(f"two plug-ins have a pass '{cls.name}'; uninstall one ('{point.value}').")
            found[cls.name] = cls
    return found


def _load(point: EntryPoint) -> tuple[type[Pass], ...]:
    try:
        classes = tuple(point.load())
    except Exception as error:  # a stranger's module may raise anything at import
        raise PluginError(
            f"plug-in '{point.name}' ({point.value}) cannot be loaded: {error!r}; fix or uninstall it."
        ) from error
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, Pass)):
            raise PluginError(
                f"plug-in '{point.name}' ({point.value}) lists {cls!r}, which is no Pass; fix or uninstall it."
            )
    return classes


def find_rules() -> dict[str, Rule[Any]]:
    """All rules of all passes by name."""
    return {rule.name: rule for cls in find_passes().values() for rule in cls.rules}


def check_rule_names(names: Iterable[str]) -> frozenset[str]:
    """The names as a set. Raises PipelineError for one that no rule has."""
    known = find_rules()
    for name in names:
        if name not in known:
            raise PipelineError(f"there is no rule '{name}'{suggestion(name, known)}; `graphopt passes` lists them.")
    return frozenset(names)
