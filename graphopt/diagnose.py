"""Answers to "why not?" and "which one?": conditions that failed, the first bad rewrite, a minimal failing model."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graphopt.change import Application
from graphopt.engine import Run, Source, run_pipeline
from graphopt.errors import GraphoptError, PipelineError
from graphopt.facts import Facts
from graphopt.model import save, write_atomically
from graphopt.pipeline import Options, Pipeline, suggestion
from graphopt.plugins import find_rules
from graphopt.rule import ANY, NoMatch

# what a user's check command gets in place of these braces: the path of the model to judge
PLACE = "{}"


@dataclass(frozen=True)
class Why:
    """What became of one rule: where it was applied, and at each remaining candidate the condition that failed."""

    rule: str
    applied: tuple[str, ...]
    conditions: tuple[tuple[str, str], ...]  # (node, reason)


def why(source: Source, pipeline: Pipeline, options: Options, rule_name: str, node: str | None = None) -> Why:
    """Runs the pipeline, then asks the rule at every node that could be its root.

    `node` narrows the answer to the node of that name, or that makes the tensor of that name. Raises PipelineError
    for an unknown rule or a node that is not there.
    """
    rules = find_rules()
    if rule_name not in rules:
        raise PipelineError(
            f"there is no rule '{rule_name}'{suggestion(rule_name, rules)}; `graphopt passes` lists them."
        )
    rule = rules[rule_name]
    run = run_pipeline(source, pipeline, options)
    facts = Facts(run.model, options.target)
    refused = {n: reason for (name, reason), nodes in run.log.refusals.items() if name == rule_name for n in nodes}
    conditions = []
    for graph in run.model.graphs():
        for candidate in graph.sorted_nodes():
            if candidate.op not in rule.roots and ANY not in rule.roots:
                continue
            found = rule.match(candidate, facts)
            held = refused.get(candidate, "every condition holds; the pass that has this rule is not in the pipeline")
            conditions.append((candidate.label, found.reason if isinstance(found, NoMatch) else held))
    applied = tuple(a.at for a in run.log.applications if a.rule == rule_name)
    if node is not None:
        conditions = [(label, reason) for label, reason in conditions if label == node]
        applied = tuple(at for at in applied if at == node)
        if not conditions and not applied:
            raise PipelineError(f"no node called '{node}' is a candidate of rule '{rule_name}'; leave --node out.")
    return Why(rule_name, applied, tuple(conditions))


@dataclass(frozen=True)
class Bisection:
    """The first rewrite with which a check fails, of `total`; None where the check passes with all of them."""

    first_bad: Application | None
    total: int
    checks: int


def bisect(source: Source, pipeline: Pipeline, options: Options, check: Callable[[Run], bool]) -> Bisection:
    """Finds the first rewrite after which `check` (is this model good?) says no.

    Raises GraphoptError when the check already fails on the untouched model.
    """
    checks = 0

    def good(limit: int | None) -> tuple[bool, Run]:
        nonlocal checks
        checks += 1
        run = run_pipeline(source, pipeline, options, limit=limit)
        return check(run), run

    if not good(0)[0]:
        raise GraphoptError("the check fails on the model as it came, before any rewrite; mend the check first.")
    is_good, run = good(None)
    total = len(run.log.applications)
    if is_good:
        return Bisection(None, total, checks)
    right, wrong = 0, total
    while wrong - right > 1:
        middle = (right + wrong) // 2
        right, wrong = (middle, wrong) if good(middle)[0] else (right, middle)
    return Bisection(run.log.applications[wrong - 1], total, checks)


def command_check(command: str) -> Callable[[Run], bool]:
    """A check that runs a user's command on the model: exit code 0 is good. `{}` stands for the model's path.

    Raises PipelineError when the command names no `{}`.
    """
    words = split_command(command)

    def check(run: Run) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save(run.model, path)
            return run_command(words, path) == 0

    return check


def split_command(command: str) -> list[str]:
    """The words of a check command. Raises PipelineError for one that does not say where the model goes."""
    words = shlex.split(command)
    if not any(PLACE in word for word in words):
        raise PipelineError(
            f"the check command '{command}' does not say where the model goes; write {{}} for its path."
        )
    return words


def run_command(words: list[str], model: Path) -> int:
    """The exit code of a check command on a model. Raises PipelineError when it cannot be started."""
    try:
        done = subprocess.run([w.replace(PLACE, str(model)) for w in words], check=False, capture_output=True)
    except OSError as error:
        raise PipelineError(f"the check command '{words[0]}' cannot be started: {error.strerror}.") from None
    return done.returncode


# Polygraphy writes files of its own where it runs, so it runs elsewhere; the user's check still runs where the user is.
_CALL_IN = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[2:], cwd=sys.argv[1]))"


def reduce_model(model: Path, output: Path, command: str) -> None:
    """Writes a smaller model for which the check command still fails, by Polygraphy's `debug reduce`.

    Raises PipelineError for a command without `{}`, GraphoptError when the check passes on the whole model or
    Polygraphy finds nothing smaller.
    """
    words = split_command(command)
    if run_command(words, model) == 0:
        raise GraphoptError(
            "the check passes on the model, so there is no failure to reduce; it must exit with non-zero."
        )
    with tempfile.TemporaryDirectory() as folder:
        step = Path(folder) / "step.onnx"
        result = Path(folder) / "reduced.onnx"
        polygraphy = [sys.executable, "-c", "from polygraphy.tools import main; main()"]
        arguments = ["debug", "reduce", str(model.resolve()), "-o", str(result), "--iter-artifact", str(step)]
        check = ["--check", sys.executable, "-c", _CALL_IN, str(Path.cwd())]
        check += [w.replace(PLACE, str(step)) for w in words]
        done = subprocess.run(
            [*polygraphy, *arguments, "--mode=bisect", *check], check=False, capture_output=True, text=True, cwd=folder,
            env={**os.environ, "POLYGRAPHY_AUTOINSTALL_DEPS": "0"},
        )  # fmt: skip
        if not result.is_file():
            last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["no output"]
            raise GraphoptError(f"Polygraphy could not reduce the model ({last[0].strip()}); try another check.")
        write_atomically(output, result.read_bytes())
