"""What only moves elements is computed without a runtime, to the same result as with one."""

from __future__ import annotations

import numpy as np
import pytest

import graphopt
from graphopt.graph import Array, Node, import_model
from graphopt_passes.constants import evaluator
from graphopt_passes.constants.movement import move
from tests.support.models import model, run

DATA = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def nodes_of(body: str, opset: int = 17, **weights: Array) -> list[Node]:
    proto = model(f"g (float[1] x) => (float[1] x2) {{ x2 = Relu(x) \n {body} }}", {"d": DATA, **weights}, opset=opset)
    graph = import_model(proto).graph
    nodes = [node for node in graph.sorted_nodes() if node.op != "Relu"]
    for node in nodes:
        for tensor in node.outputs:
            assert tensor is not None
            tensor.dtype = 1
    return nodes


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


CASES = {
    "unsqueeze": ("y = Unsqueeze(d, a)", 17, {"a": ints(0, -1)}),
    "unsqueeze by attribute": ("y = Unsqueeze<axes=[1, 4]>(d)", 11, {}),
    "squeeze": ("t = Unsqueeze(d, a) \n y = Squeeze(t, b)", 17, {"a": ints(0, 2), "b": ints(-3)}),
    "squeeze all": ("t = Unsqueeze(d, a) \n y = Squeeze(t)", 17, {"a": ints(0, 2)}),
    "transpose": ("y = Transpose<perm=[2, 0, 1]>(d)", 17, {}),
    "transpose back to front": ("y = Transpose(d)", 17, {}),
    "concat": ("y = Concat<axis=-2>(d, d, d)", 17, {}),
    "reshape": ("y = Reshape(d, s)", 17, {"s": ints(4, -1)}),
    "expand": ("y = Expand(d, s)", 17, {"s": ints(5, 1, 1, 4)}),
    "slice": ("y = Slice(d, a, b)", 17, {"a": ints(0, 1), "b": ints(1, 99)}),
    "slice of the end": (
        "y = Slice(d, a, b, c, e)",
        17,
        {"a": ints(-99, -3), "b": ints(2**62, -1), "c": ints(-2, 2), "e": ints(2, 1)},
    ),
    "a chain": ("s = Transpose(d) \n t = Concat<axis=0>(s, s) \n y = Unsqueeze(t, a)", 17, {"a": ints(1)}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_the_runtime_computes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, opset, weights = CASES[name]
    nodes = nodes_of(body, opset, **weights)
    moved = move(nodes)
    assert moved is not None
    wanted = [nodes[-1].result]
    expected = evaluator._Batches(set(wanted)).run(nodes, {})[wanted[0]]
    got = moved[wanted[0]]
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(got, expected)
    assert got.base is None
    monkeypatch.setattr(evaluator, "_run", None)
    np.testing.assert_array_equal(evaluator.evaluate(nodes, wanted)[wanted[0]], expected)


@pytest.mark.parametrize(
    ("body", "opset", "weights"),
    [
        ("y = Sqrt(d)", 17, {}),
        ("t = Transpose(d) \n y = Sqrt(t)", 17, {}),
        ("y = Reshape(d, s)", 17, {"s": ints(0, -1)}),
        ("y = Reshape(d, s)", 17, {"s": ints(5, -1)}),
        ("y = Slice(d, a, b, c, e)", 17, {"a": ints(-99), "b": ints(-99), "c": ints(0), "e": ints(-1)}),
        ("y = Slice<starts=[0], ends=[1]>(d)", 9, {}),
        ("y = Squeeze(d, a)", 17, {"a": ints(1)}),
        ("y = Unsqueeze(d, a)", 17, {"a": ints(0, 0)}),
        ("y = Concat<axis=1>(d, e)", 17, {"e": np.zeros((1, 1, 1), np.float32)}),
        ("y = Transpose<perm=[0, 1]>(d)", 17, {}),
    ],
)
def test_the_rest_is_left_to_the_runtime(body: str, opset: int, weights: dict[str, Array]) -> None:
    assert move(nodes_of(body, opset, **weights)) is None


def test_a_type_that_is_not_the_expected_one_is_left_to_the_runtime() -> None:
    nodes = nodes_of("y = Transpose(d)")
    nodes[0].result.dtype = 11
    assert move(nodes) is None


def test_axes_as_a_single_number_are_left_to_the_runtime() -> None:
    before = model("g (float[1,3] x) => (float[1,3] y) { u = Unsqueeze(c, a) y = Add(x, u) }",
                   {"c": np.ones(3, np.float32), "a": np.array(0, np.int64)}, opset=13)  # fmt: skip
    after = graphopt.optimize(before, verify=False).model
    x = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(run(after, {"x": x})[0], run(before, {"x": x})[0])
