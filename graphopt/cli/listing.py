"""`graphopt passes`: what there is to choose from."""

from __future__ import annotations

import dataclasses
import inspect

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.pipeline import Pass
from graphopt.plugins import PRESETS, find_passes


def list_passes() -> RenderableType:
    """All passes with their rules, then the named pipelines."""
    table = Table("pass or rule", "what it does", "exactness", box=None, pad_edge=False)
    for name, cls in sorted(find_passes().items()):
        table.add_row(Text(name + _options(cls), style="bold"), Text(_first_line(cls)), "")
        for rule in cls.rules:
            kind = f"{rule.exactness.value}{', trades' if rule.trades else ''}"
            table.add_row(Text(f"  {rule.name}"), Text(_first_line(type(rule))), kind)
    presets = Table("pipeline", "passes", box=None, pad_edge=False)
    for name, text in PRESETS.items():
        presets.add_row(Text(name, style="bold"), Text(text))
    return Group(table, Text(), presets)


def _options(cls: type[Pass]) -> str:
    names = [f.name.replace("_", "-") for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return f"{{{' '.join(names)}}}" if names else ""


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n")[0]
