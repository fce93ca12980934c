"""Files that are no models, or only the beginnings of one, and files beyond protobuf's 2 GiB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.graphopt.hostile.ward import Ward
from tests.support.models import model

TEXT = """g (float[1,4,6,6] x) => (float[1,4,6,6] y) {
    a = Identity(x) c = Conv<pads = [1, 1, 1, 1]>(a, w) s = Mul(c, k) y = Relu(s)
}"""


def whole() -> bytes:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 4, 3, 3)), "k": rng.standard_normal((1, 4, 1, 1))}
    return model(TEXT, {name: array.astype(np.float32) for name, array in weights.items()}).SerializeToString()


def truncated() -> list[bytes]:
    content = whole()
    ends = np.random.default_rng(1).integers(0, len(content), 40)
    return [content[: int(end)] for end in sorted(ends)]


def flipped() -> list[bytes]:
    rng = np.random.default_rng(2)
    variants = []
    for _ in range(120):
        content = bytearray(whole())
        head = len(content) - 700 if rng.random() < 0.3 else 350  # most of the rest is weights
        for at in rng.integers(0, head, rng.integers(1, 5)):
            content[at] = rng.integers(0, 256)
        variants.append(bytes(content))
    return variants


def random() -> list[bytes]:
    rng = np.random.default_rng(3)
    return [rng.bytes(int(size)) for size in rng.integers(0, 3000, 40)]


@pytest.mark.parametrize("kind", [truncated, flipped, random])
def test_any_bytes_are_one_sentence_or_a_right_result(kind, tmp_path: Path, ward: Ward) -> None:  # type: ignore[no-untyped-def]
    for number, content in enumerate(kind()):
        (tmp_path / f"{number:03d}.onnx").write_bytes(content)
    outcome = ward.run("all_of", folder=str(tmp_path))
    assert outcome.code == 0, outcome
    counts = [int(word) for word in outcome.out.split()]
    assert sum(counts) == len(kind())
    if kind is random:
        assert counts[1] == 0, "random bytes passed for a model"


def test_a_file_over_two_gigabytes(tmp_path: Path, ward: Ward) -> None:
    source = tmp_path / "huge.onnx"
    with source.open("wb") as file:
        file.write(whole())
        file.truncate(3 << 30)  # sparse: it takes no room
    for outcome in (
        ward.run("command_line", arguments=["optimize", str(source), "-o", str(tmp_path / "out.onnx")]),
        ward.run("command_line", arguments=["inspect", str(source)]),
        ward.run("library", source=str(source), output=str(tmp_path / "out.onnx")),
    ):
        assert outcome.code == 1, outcome
        assert "larger than 2 GiB" in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "out.onnx").exists()
