"""onnx follows shapes to Reshapes, as far as it is right about them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scale_models import FAMILIES
from graphopt.graph import Dim, Model, import_model
from graphopt.inference import infer_types
from graphopt.loop_claims import MADE_UP
from graphopt.propagated import without_copies
from tests.support.models import model
from tests.support.rewrites import find


def inferred(text: str, **weights: list[int]) -> Model:
    result = import_model(model(text, {name: np.array(value) for name, value in weights.items()}))
    infer_types(result)
    return result


def shape(graph: Model, name: str) -> tuple[Dim, ...]:
    """The shape, None for what is not known."""
    found = find(graph, name).result.shape
    assert found is not None
    return tuple(None if isinstance(d, str) and d.startswith(MADE_UP) else d for d in found)


def test_a_reshape_to_a_dimension_at_its_own_place() -> None:
    graph = inferred(
        "g (float[N,2,2] x) => (float[A,B] y) { s = Shape(x) n = Gather<axis = 0>(s, i) t = Concat<axis = 0>(n, f) "
        "y = Reshape(x, t) }",
        i=[0], f=[4],
    )  # fmt: skip
    assert shape(graph, "y") == ("N", 4)


def test_a_reshape_that_may_copy_another_dimension() -> None:
    graph = inferred(
        "g (float[N,4] x, float[M] v) => (float[A,B] y) { n = Shape(v) t = Concat<axis = 0>(n, f) y = Reshape(x, t) }",
        f=[4],
    )
    assert shape(graph, "y") == (None, 4)


@pytest.mark.parametrize(
    "steps",
    [
        "c = Cast<to = 2>(s) n = Cast<to = 7>(c)",
        "c = Cast<to = 9>(s) n = Cast<to = 7>(c)",
        "c = Cast<to = 1>(s) n = Cast<to = 7>(c)",  # 300 is a float32; not all dimensions are
        "u = Unsqueeze(s, i) n = Gather<axis = 0>(u, i0)",
    ],
)
def test_what_is_no_longer_the_shape(steps: str) -> None:
    """A dimension as 8 bits or as a truth value; a row of a matrix, of which onnx takes the first element."""
    weights: dict[str, list[int] | int] = {name: [0] for name in ("i",) if f" {name})" in steps}
    if "i0" in steps:
        weights["i0"] = 0
    graph = inferred(f"g (float[300] x) => (float[A] y) {{ s = Shape(x) {steps} y = ConstantOfShape(n) }}", **weights)
    assert shape(graph, "y") == (None,)


def test_many_layers_are_known_at_once() -> None:
    """Each layer's shapes rest on those before it: one inference has to follow them all."""
    graph = import_model(FAMILIES["transformer"](600))
    infer_types(graph)
    assert graph.inferences == 1
    unknown = [t for n in graph.graph.nodes for t in n.outputs if t is not None and t.shape is None]
    assert not unknown
    last = graph.graph.outputs[0].shape
    assert last is not None
    assert not any(isinstance(d, str) and d.startswith(MADE_UP) for d in last)


def reshape(**attributes: int) -> object:
    from onnx import helper

    return helper.make_node("Reshape", ["x", "s"], ["y"], **attributes)


@pytest.mark.parametrize(
    ("data", "found", "sure"),
    [
        (("N", 4), ("N", 4), ("N", 4)),
        (("M", 4), ("N", 4), (None, 4)),
        ((4, "N"), ("N", 4), ("N", 4)),  # the others are above 0: a 0 must be copied
        ((1, "N", "M"), ("N", 1, "M"), (None, 1, "M")),
        (("N",), (1, "N"), (1, "N")),  # there is none to be copied
        (("N", 4), ("new", 4), ("new", 4)),  # a name that inference made up for it
        (("N", 2, 3, "T", 8), ("N", 6, "T", 8), ("N", 6, "T", 8)),  # repeated heads
        (("N", 2, 1, "T", 8), ("N", 2, "T", 8), ("N", 2, None, 8)),
        (None, ("N", 4), (None, 4)),
    ],
)
def test_which_dimensions_are_sure(data: tuple[Dim, ...] | None, found: tuple[Dim, ...], sure: tuple[Dim, ...]) -> None:
    node = reshape()
    assert without_copies(node, data, found, {"N", "M", "T"}) == sure
    assert without_copies(reshape(allowzero=1), data, found, {"N", "M", "T"}) == found
