"""The page of what is merged: its rows say what the report says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.merges import main, measure, row


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    page = tmp_path_factory.mktemp("merges") / "merges.md"
    assert main(["inception_siblings__legacy", "--markdown", str(page)]) == 0
    return Path(page).read_text()


def test_the_page_has_a_row_for_each_target(text: str) -> None:
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| inception")]
    assert [r[1] for r in rows] == ["tensorrt", "onnxruntime"]
    assert all("enlarge-adjacent-convs 1 (0." in r[3] and r[5] == "yes |" for r in rows)


def test_pairs_of_alexnet_become_grouped_convs() -> None:
    for merges in measure(["alexnet_split__legacy"], "h200"):
        pairs, nodes = (3, 36) if merges.target == "tensorrt" else (2, 43)  # two of them pay in ONNX Runtime on an H200
        assert merges.applied["group-convs"] == pairs
        assert merges.report.after.nodes <= nodes
        assert all(ratio < 1 for ratio in merges.trades(taken=True)["group-convs"])
        assert row(merges)[-1] == "yes"
