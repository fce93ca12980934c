"""Ten rules, each deliberately broken: the result is still right, the rule is named, and a reproducer is saved."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

import graphopt
from graphopt.cli import run as command
from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.pipeline import Pass, Pipeline
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from tests.support.models import feeds, model, run

pytestmark = pytest.mark.unchecked  # rules that are wrong on purpose

Edit = Callable[[Node, Rewriter], None]
DRAWN = np.random.default_rng(0)


def weight(*shape: int) -> Any:
    return DRAWN.standard_normal(shape).astype(np.float32)


CONV_WEIGHTS = {"w": weight(4, 3, 3, 3), "b": weight(4), "s": weight(1, 4, 1, 1), "v": weight(4, 3, 3, 3)}


def first(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def consumer(node: Node) -> Node:
    return next(iter(node.result.consumers))


def wrong_axis(node: Node, edit: Rewriter) -> None:
    edit.replace(node, edit.like(node, axis=0))


def forgotten_second_consumer(node: Node, edit: Rewriter) -> None:
    conv = first(node.inputs[0]).producer
    scale = first(node.inputs[1]).constant
    assert conv is not None
    assert scale is not None
    kernel = first(conv.inputs[1]).constant
    assert kernel is not None
    edit.set_input(conv, 1, edit.constant(kernel.array() * scale.array().reshape(4, 1, 1, 1)))
    edit.forward(node.result, conv.result)


def swapped_weights(node: Node, edit: Rewriter) -> None:
    sibling = next(n for n in first(node.inputs[0]).consumers if n is not node)
    mine, other = node.inputs[1], sibling.inputs[1]
    edit.replace(node, edit.like(node, [node.inputs[0], other]))
    edit.replace(sibling, edit.like(sibling, [node.inputs[0], mine]))


def dropped_bias(node: Node, edit: Rewriter) -> None:
    edit.replace(node, edit.like(node, node.inputs[:2]))


def wrong_pads(node: Node, edit: Rewriter) -> None:
    edit.replace(node, edit.like(node, pads=(2, 0, 0, 2)))


def stale_shape(node: Node, edit: Rewriter) -> None:
    edit.replace(node, edit.like(node, [node.inputs[0], edit.constant(np.array([2, 12], np.int64))]))


def lost_output(node: Node, edit: Rewriter) -> None:
    edit.forward(first(node.outputs[1]), first(node.outputs[0]))


def reordered_concat(node: Node, edit: Rewriter) -> None:
    edit.replace(node, edit.like(node, node.inputs[::-1]))


def changed_dtype(node: Node, edit: Rewriter) -> None:
    half = edit.node("Cast", node.inputs, {"to": int(TensorProto.FLOAT16)})
    back = edit.node("Cast", half.outputs, {"to": int(TensorProto.FLOAT)})
    edit.replace(node, edit.like(node, back.outputs))


def off_by_one_split(node: Node, edit: Rewriter) -> None:
    sizes = edit.constant(np.array([3, 1], np.int64))
    edit.replace(node, edit.like(node, [node.inputs[0], sizes]))


@dataclass(frozen=True)
class Plant:
    root: str
    edit: Edit
    text: str
    weights: dict[str, Any] | None = None
    exactness: Exactness = Exactness.REASSOCIATES


CONV = "g (float[2,3,8,8] x) => (float[2,4,A,B] y"
PLANTS = {
    "wrong axis": Plant("Softmax", wrong_axis, "g (float[3,4] x) => (float[3,4] y) { y = Softmax<axis = 1>(x) }"),
    "forgotten second consumer": Plant(
        "Mul",
        forgotten_second_consumer,
        f"{CONV}, float[2,4,C,D] z) {{ c = Conv(x, w) y = Mul(c, s) z = Relu(c) }}",
        CONV_WEIGHTS,
    ),
    "swapped weights": Plant(
        "Conv", swapped_weights, f"{CONV}, float[2,4,C,D] z) {{ y = Conv(x, w) z = Conv(x, v) }}", CONV_WEIGHTS
    ),
    "dropped bias": Plant("Conv", dropped_bias, f"{CONV}) {{ y = Conv(x, w, b) }}", CONV_WEIGHTS),
    "wrong pads": Plant("Conv", wrong_pads, f"{CONV}) {{ y = Conv<pads = [1, 1, 1, 1]>(x, w) }}", CONV_WEIGHTS),
    "stale shape": Plant(
        "Reshape",
        stale_shape,
        "g (float[N,3,4] x) => (float[N,12] y) { r = Reshape(x, t) y = Relu(r) }",
        {"t": np.array([0, 12], np.int64)},
    ),
    "lost output": Plant(
        "Split", lost_output, "g (float[4] x) => (float[2] y) { a, b = Split(x) c = Neg(b) y = Add(a, c) }"
    ),
    "reordered concat": Plant(
        "Concat",
        reordered_concat,
        "g (float[2] x, float[2] z) => (float[4] y) { c = Concat<axis = 0>(x, z) y = Relu(c) }",
    ),
    "changed dtype": Plant("Exp", changed_dtype, "g (float[9] x) => (float[9] y) { y = Exp(x) }"),
    "off-by-one split": Plant(
        "Split",
        off_by_one_split,
        "g (float[4] x) => (float y) { a, b = Split(x, k) c = ReduceMax<keepdims = 0>(a) y = Neg(c) }",
        {"k": np.array([2, 2], np.int64)},
    ),
}


class Planted(Rule[Node]):
    """A rule that is wrong on purpose."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.roots = (plant.root,)  # type: ignore[misc]
        self.exactness = plant.exactness  # type: ignore[misc]
        self.done = False

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        return NoMatch("made by this rule", node) if node.rule else node

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        self.plant.edit(found, edit)


class Sound(Rule[Node]):
    """Identity(x) = x: a right rule, whose work must stay."""

    roots = ("Identity",)

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        return node if facts.can_forward(node.result, first(node.inputs[0])) else NoMatch("no", node)

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        edit.forward(found.result, first(found.inputs[0]))


def planted_pass(plant: Plant) -> Pass:
    @dataclass(frozen=True)
    class Mixed(Pass):
        """A right rule and a broken one."""

        name = "mixed"
        rules = (Sound(), Planted(plant))

    return Mixed()


def with_identity(proto: ModelProto) -> ModelProto:
    """The model behind an Identity, so that the right rule has work."""
    name = proto.graph.input[0].name
    for node in proto.graph.node:
        for index, each in enumerate(node.input):
            if each == name:
                node.input[index] = "behind"
    proto.graph.node.insert(0, onnx.helper.make_node("Identity", [name], ["behind"]))
    return proto


@pytest.mark.parametrize("mode", ["model", "each"])
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_taken_back_named_and_saved(name: str, mode: str, tmp_path: Path) -> None:
    plant = PLANTS[name]
    before = with_identity(model(plant.text, plant.weights))
    result = graphopt.optimize(
        before,
        pipeline=Pipeline((planted_pass(plant),)),
        verify=mode,
        proving=graphopt.Proving(reproducers=tmp_path),
    )
    report = result.report
    assert report.verification["passed"]
    assert {w.rule for w in report.withdrawn} == {"planted"}
    assert all(n.op_type != "Identity" for n in result.model.graph.node), "the right rule's work was lost"
    given = feeds(before, N=3)
    for expected, got in zip(run(before, given), run(result.model, given), strict=True):
        np.testing.assert_array_equal(got, expected)
    saved = report.withdrawn[0].reproducer
    assert saved is not None
    with zipfile.ZipFile(saved) as archive:
        assert set(archive.namelist()) == {"before.onnx", "after.onnx", "inputs.npz", "reason.txt"}
        pair = [onnx.load_from_string(archive.read(f"{side}.onnx")) for side in ("before", "after")]
    assert [i.name for i in pair[0].graph.input] == [i.name for i in pair[1].graph.input]


@pytest.mark.parametrize("name", PLANTS)
def test_the_default_run_of_the_command_survives_it_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No options at all: the model written is right, the rule is named, a reproducer lies beside the output."""
    plant = PLANTS[name]
    before = with_identity(model(plant.text, plant.weights))
    onnx.save(before, tmp_path / "in.onnx")
    monkeypatch.setattr("graphopt.api.find_passes", lambda: {"mixed": type(planted_pass(plant))})
    monkeypatch.setattr("graphopt.api.PRESETS", {"default": "mixed"})
    assert command(["optimize", str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx")]) == 0
    assert "taken back: planted at" in capsys.readouterr().out
    after = onnx.load(tmp_path / "out.onnx")
    assert all(n.op_type != "Identity" for n in after.graph.node), "the right rule's work was lost"
    given = feeds(before, N=3)
    for expected, got in zip(run(before, given), run(after, given), strict=True):
        np.testing.assert_array_equal(got, expected)
    saved = list((tmp_path / "out.reproducers").iterdir())
    assert saved
    assert all(path.name.startswith("planted-") for path in saved)
