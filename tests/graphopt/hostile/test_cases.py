"""Each hostile model, under limits: by the command line, by the library, with each way of proving."""

from __future__ import annotations

import os
import re
from pathlib import Path

import onnx
import pytest

from tests.graphopt.hostile import files, graphs, sizes
from tests.graphopt.hostile.cases import Case
from tests.graphopt.hostile.ward import Outcome, Ward

CASES = {**files.CASES, **sizes.CASES, **graphs.CASES}
# loops end by the watch that counts seconds; tests need not wait as long as users
SHORT = {"graphopt.verification.watch.MOST_SECONDS": 1.0, "graphopt.verification.small.MOST_SECONDS": 0.5}
# what cannot be executed as a whole may still be optimized when the whole need not be
WITHOUT_THE_WHOLE = (False, "each")


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_model_is_one_sentence_or_a_right_result(name: str, tmp_path: Path, ward: Ward) -> None:
    case = CASES[name]
    folder = tmp_path / "model"
    folder.mkdir()
    source = folder / "model.onnx"
    source.write_bytes(case.write(folder).SerializeToString())
    before = listing(tmp_path)
    for verify in (True, False, "each"):
        output = tmp_path / f"library-{verify}.onnx"
        outcome = ward.run("library", source=str(source), output=str(output), verify=verify, patches=SHORT)
        check(case, outcome, output, may_pass=verify in WITHOUT_THE_WHOLE)
    output = tmp_path / "command.onnx"
    outcome = ward.run("command_line", arguments=["optimize", str(source), "-o", str(output)], patches=SHORT)
    check(case, outcome, output, may_pass=False)
    made = {path for path in listing(tmp_path) if not path.startswith(("library-", "command"))}
    assert made == before, "something else was written"


def check(case: Case, outcome: Outcome, output: Path, *, may_pass: bool) -> None:
    """`may_pass`: whether a right result is as good as the sentence."""
    assert outcome.code in (0, 1), outcome
    assert "Traceback" not in outcome.out + outcome.err
    if outcome.code == 1:
        assert case.says is not None, outcome
        assert re.search(case.says, outcome.err), outcome
        assert len(outcome.err.strip().splitlines()) == 1, outcome
        assert not output.exists()
    else:
        assert not case.says or may_pass, outcome
        assert outcome.err == ""
        onnx.load(output)


def listing(folder: Path) -> set[str]:
    return {os.path.relpath(os.path.join(place, name), folder) for place, _, names in os.walk(folder) for name in names}


@pytest.mark.parametrize("command", ["inspect", "explain", "why", "verify"])
@pytest.mark.parametrize("name", ["a parent folder", "dimensions of exabytes", "a loop without end", "a cycle of two",
                                  "doubling sixty times", "functions that call each other",
                                  "functions that double forty times"])  # fmt: skip
def test_other_commands_survive_it_too(name: str, command: str, tmp_path: Path, ward: Ward) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    source = folder / "model.onnx"
    source.write_bytes(CASES[name].write(folder).SerializeToString())
    more = {"why": ["--rule", "drop-identity"], "verify": [str(source)]}.get(command, [])
    outcome = ward.run("command_line", arguments=[command, str(source), *more], patches=SHORT)
    assert outcome.code in (0, 1), outcome
    assert "Traceback" not in outcome.out + outcome.err
    assert outcome.code == 0 or len(outcome.err.strip().splitlines()) == 1


def test_a_thousand_graphs_in_each_other(tmp_path: Path, ward: Ward) -> None:
    outcome = ward.run("in_memory", case="thousand_graphs_in_each_other", output=str(tmp_path / "out.onnx"))
    assert outcome.code == 1
    assert "deep in each other" in outcome.err
    assert not (tmp_path / "out.onnx").exists()


def test_the_limits_are_real(ward: Ward) -> None:
    """A test under limits that never bite would prove nothing."""
    assert "MemoryError" in ward.run("hungry").err
    assert ward.run("endless", seconds=1).is_late
