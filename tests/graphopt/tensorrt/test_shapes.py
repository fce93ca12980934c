from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from graphopt.errors import EngineError, ShapeError
from graphopt.tensorrt.shapes import ShapeRange, ShapeSpec, parse_shape, profile_for


def network(*, is_shape_tensor: bool = False, **inputs: list[int | str]) -> Any:
    """A parsed network with these inputs; a dimension given as text is known at run time and has that name."""

    def tensor(name: str, dims: list[int | str]) -> Any:
        return SimpleNamespace(
            name=name,
            shape=tuple(-1 if isinstance(dim, str) else dim for dim in dims),
            is_shape_tensor=is_shape_tensor,
            get_dimension_name=lambda axis: dims[axis],
        )

    tensors = [tensor(name, dims) for name, dims in inputs.items()]
    return SimpleNamespace(num_inputs=len(tensors), get_input=tensors.__getitem__)


def test_one_shape() -> None:
    expected = ShapeRange((1, 3), (1, 3), (1, 3))
    assert parse_shape("1x3") == parse_shape([1, 3]) == parse_shape(expected) == expected
    assert str(expected) == "1x3"


def test_a_range() -> None:
    expected = ShapeRange((1, 3), (4, 3), (8, 3))
    assert parse_shape("1x3/4x3/8x3") == expected
    assert parse_shape(str(expected)) == expected


@pytest.mark.parametrize("text", ["axb", "1x", "1x-3", "1x3/2x3", "2x3/1x3/4x3", "1x3/1x3x1/1x3", "1,3", "1x3/4x3/2x3"])
def test_no_shape(text: str) -> None:
    with pytest.raises(ShapeError):
        parse_shape(text)


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ([1, 3, 8, 8], "1x3x8x8"),
        (["batch", 3, 224, 224], "1x3x224x224/1x3x224x224/8x3x224x224"),
        (["N", 3, "height", "width"], "1x3x224x224/1x3x224x224/8x3x224x224"),
        (["batch_size", "sequence_length"], "1x1/1x128/8x512"),
        (["batch", "past_sequence + 1"], "1x2/1x129/8x513"),
        (["batch", "past_len+seq_len"], "1x2/1x256/8x1024"),
        (["?", 3, "?", "?"], "1x3x224x224/1x3x224x224/8x3x224x224"),
        (["", "unk__1"], "1x1/1x128/8x512"),
        ([], ""),
    ],
)
def test_the_default_follows_the_dimensions_names(dims: list[int | str], expected: str) -> None:
    assert str(profile_for(network(x=dims), {})["x"]) == expected


def test_a_shape_given_wins() -> None:
    found = profile_for(network(x=["batch", 3], z=["batch", 4]), {"x": "2x3/4x3/6x3"})
    assert {name: str(shapes) for name, shapes in found.items()} == {"x": "2x3/4x3/6x3", "z": "1x4/1x4/8x4"}


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ({"x": "2x4"}, "does not fit input 'x', which is \\?x3"),
        ({"x": "2x3x1"}, "does not fit"),
        ({"x": "2x2/2x3/2x3"}, "does not fit"),
        ({"no\nsuch": "1"}, "the model has no input 'no.such'; its inputs are: x"),
    ],
)
def test_a_shape_that_does_not_fit(shapes: Mapping[str, ShapeSpec], why: str) -> None:
    with pytest.raises(ShapeError, match=why) as caught:
        profile_for(network(x=["batch", 3]), shapes)
    assert "\n" not in str(caught.value)


def test_an_input_that_carries_a_shape_is_named() -> None:
    with pytest.raises(EngineError, match="input 's' carries a shape"):
        profile_for(network(is_shape_tensor=True, s=[2]), {})
