"""Shapes that follow from shape arithmetic: what is found is what comes out, for every number that a symbol may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from graphopt.facts import Facts
from graphopt.graph import Model, Shape, Tensor, import_model
from graphopt.inference import infer_types
from graphopt.pipeline import Context, Options
from graphopt.rewrite import Rewriter
from graphopt_passes.constants import FoldConstants
from tests.support.models import model, run

FIRST = np.array([0], np.int64)
ONE = np.array([1], np.int64)


def refined(proto: ModelProto) -> Model:
    graph = import_model(proto)
    infer_types(graph)
    FoldConstants().run(Context(graph, Facts(graph), Rewriter(graph), Options()))
    return graph


def shape_of(graph: Model, name: str) -> Shape | None:
    tensors: list[Tensor | None] = [t for node in graph.graph.nodes for t in node.outputs]
    return next(t.shape for t in tensors if t is not None and t.name == name)


def cut(
    axis: int = 0, rows: int = 8, starts: Any = FIRST, steps: Any = ONE, inputs: str = "float[N,T,3] x"
) -> ModelProto:
    """Rows of a table are added to x: as many as a dimension of x says."""
    return model(
        f"""g ({inputs}) => (float[A,B,3] y) {{
            s = Shape(x) d = Gather<axis = 0>(s, axis) c = Slice(table, starts, d, zero, steps) y = Add(x, c) }}""",
        {
            "table": np.ones((rows, 3), np.float32),
            "axis": np.array([axis]),
            "starts": starts,
            "steps": steps,
            "zero": FIRST,
        },
    )


@pytest.mark.parametrize("length", [0, 1, 2, 8])
def test_rows_of_a_table_as_many_as_there_are(length: int) -> None:
    before = cut(axis=1)
    assert shape_of(refined(before), "y") == ("N", "T", 3)
    (found,) = run(before, {"x": np.zeros((2, length, 3), np.float32)})
    assert found.shape == (2, length, 3)


def test_what_is_found_holds_for_later_inference() -> None:
    graph = refined(cut(axis=1))
    infer_types(graph)
    assert shape_of(graph, "y") == ("N", "T", 3)


@pytest.mark.parametrize(
    ("why", "proto"),
    [
        ("as many rows as there are in the batch", cut(axis=0)),
        ("a table of one row broadcasts", cut(axis=1, rows=1)),
        ("the first row is left out", cut(axis=1, starts=ONE)),
        ("every other row", cut(axis=1, steps=ONE * 2)),
    ],
)
def test_no_other_rows_are_as_many(why: str, proto: ModelProto) -> None:
    shape = shape_of(refined(proto), "y")
    assert shape is not None, why
    assert shape[1] != "T", why


def test_broadcasting_by_an_attribute_is_another() -> None:
    """Before opset 7 the second operand may lie along the first axis of the first operand."""
    proto = model(
        """g (float[12] x, int64[2] s) => (float[A,B] y) {
            r = Reshape(x, s) y = Add<broadcast = 1, axis = 0>(r, w) }""",
        {"w": np.ones(2, np.float32)},
        opset=6,
    )
    shape = shape_of(refined(proto), "y")
    assert shape is None or shape[1] != 2


def quotient(inputs: str, second: str) -> ModelProto:
    """0, 1, ... up to N times T divided by N."""
    return model(
        f"""g ({inputs}) => (int64[K] y) {{
            n = Shape<start = 0, end = 1>(x) t = Shape<start = 1, end = 2>({second})
            p = Mul(t, n) q = Div(p, n) k = Squeeze(q) y = Range(zero, k, one) }}""",
        {"zero": np.int64(0), "one": np.int64(1)},
    )


def test_a_product_divided_by_a_factor() -> None:
    before = quotient("float[N,T] x", "x")
    assert shape_of(refined(before), "y") == ("T",)
    (found,) = run(before, {"x": np.zeros((3, 5), np.float32)})
    assert found.shape == (5,)


def test_a_square_divided_by_its_root() -> None:
    before = quotient("float[N,N] x", "x")
    assert shape_of(refined(before), "y") == ("N",)


@pytest.mark.parametrize("inputs", ["float[N,3] x, float[3,T] z", "float[N,0] x, float[N,T,0] z"])
def test_a_product_that_may_overflow_is_not_divided(inputs: str) -> None:
    """Dimensions of two tensors, or of one without elements, have a product of any size."""
    shape = shape_of(refined(quotient(inputs, "z")), "y")
    assert shape is not None
    assert shape[0] != "T"


@pytest.mark.parametrize(
    ("target", "dims", "expected"),
    [
        ([1, -1, 1], "1,T,1,1", (1, "T", 1)),
        ([0, 1, -1], "N,T,1", ("N", 1, "T")),
        ([2, -1], "2,T,3", None),  # three times T
        ([-1, 1], "N,T", None),  # N times T
        ([-1, 0], "T,0", None),  # of nothing, any number is left
    ],
)
def test_what_the_other_dimensions_leave(target: list[int], dims: str, expected: Shape | None) -> None:
    letters = ",".join("ABC"[: len(target)])
    proto = model(f"g (float[{dims}] x) => (float[{letters}] y) {{ y = Reshape(x, n) }}", {"n": np.array(target)})
    shape = shape_of(refined(proto), "y")
    assert shape is not None
    assert shape == expected or (expected is None and "T" not in shape)


def test_a_slice_to_the_end_keeps_the_dimension() -> None:
    proto = model(
        "g (float[N,T] x) => (float[A,B] y) { c = Slice(x, zero, end, one) y = Neg(c) }",
        {"zero": FIRST, "end": np.array([np.iinfo(np.int64).max]), "one": ONE},
    )
    assert shape_of(refined(proto), "y") == ("N", "T")
