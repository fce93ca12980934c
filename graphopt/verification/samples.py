"""The inputs on which models are compared: the user's, or drawn until the original runs on them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto

from graphopt.errors import InputsError
from graphopt.verification.draw import OTHER_SIZES, SIZES, STYLES, Sizes, Style, TooLarge, draw, draw_overrides
from graphopt.verification.interface import dims, overridable_inputs, required_inputs, shape
from graphopt.verification.ranges import Range
from graphopt.verification.sessions import Failed, Unbounded
from graphopt.verification.values import Array, Feeds, Value, describe, is_custom, is_float, leaves, names

Inputs: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]]"
Run: TypeAlias = Callable[[Feeds], dict[str, Value]]

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
_MORE_TRIES = 3  # to find inputs without NaN among the outputs


@dataclass(frozen=True)
class Sample:
    """Inputs on which the original runs, and what it gives."""

    feeds: Feeds
    outputs: Mapping[str, Value]


def given_feeds(proto: onnx.ModelProto, inputs: Inputs) -> list[dict[str, Value]]:
    """The user's inputs as one or more full sets: of a `.npz` file, a mapping by name, or a list of mappings.

    Integers and floats are cast to the model's type where no value changes kind. Raises `InputsError` when a name is
    unknown or missing, or a type, rank or fixed dimension does not fit.
    """
    if isinstance(inputs, (str, os.PathLike)):
        sets: list[Mapping[str, Any]] = [_from_file(Path(inputs))]
    elif isinstance(inputs, Mapping):
        sets = [inputs]
    else:
        sets = list(inputs)
    if not sets:
        raise InputsError("The inputs given for the comparison are empty; give at least one set.")
    return [_fitted(proto, given) for given in sets]


def _from_file(path: Path) -> Mapping[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputsError(f"The inputs {path} cannot be read as a .npz file of arrays by input name.") from error


def _fitted(proto: onnx.ModelProto, given: Mapping[str, Any]) -> dict[str, Value]:
    required = {value.name: value for value in required_inputs(proto)}
    optional = {value.name: value for value in overridable_inputs(proto)}
    unknown = [name for name in given if name not in required and name not in optional]
    missing = [name for name, value in required.items() if name not in given and _needs_value(value)]
    if unknown:
        raise InputsError(
            f"The model has no input {names(unknown)}; its inputs are {names([*required, *optional]) or 'none'}."
        )
    if missing:
        raise InputsError(f"The inputs given for the comparison lack {names(missing)}.")
    return {name: _fit(value, given.get(name)) for name, value in (required | optional).items() if name in given}


def _needs_value(value: onnx.ValueInfoProto) -> bool:
    return not value.type.HasField("optional_type")


def _fit(value: onnx.ValueInfoProto, given: Any) -> Value:
    if value.type.WhichOneof("value") != "tensor_type" or given is None:
        fitted: Value = given
        return fitted
    array = np.asarray(given)
    declared = dims(value)
    if declared is not None and (
        len(declared) != array.ndim
        or any(isinstance(d, int) and 0 <= d != n for d, n in zip(declared, array.shape, strict=True))
    ):
        raise InputsError(f"The input {value.name} is given as {describe(array)} but takes {shape(declared)}.")
    element = value.type.tensor_type.elem_type
    if element == TensorProto.STRING:
        return array.astype(object)
    wanted = onnx.helper.tensor_dtype_to_np_dtype(element)
    if array.dtype.kind == "V" and array.dtype.itemsize == wanted.itemsize:  # what .npz makes of bfloat16
        return array.view(wanted)
    if array.dtype == wanted or _castable(array, wanted):
        return array.astype(wanted)
    raise InputsError(f"The input {value.name} is given as {describe(array)} but takes {wanted.name}.")


def _castable(array: Array, wanted: np.dtype[Any]) -> bool:
    if is_float(array.dtype):
        return is_float(wanted) and (array.dtype.kind != "c" or wanted.kind == "c")
    if is_custom(wanted) or wanted.kind not in "iu" or array.dtype.kind not in "iu":
        return array.dtype.kind in "iub" and is_float(wanted)
    limits = np.iinfo(wanted)
    return array.size == 0 or (int(array.min()) >= int(limits.min) and int(array.max()) <= int(limits.max))


def draw_samples(
    run: Run,
    proto: onnx.ModelProto,
    ranges: Mapping[str, Range],
    count: int,
    seed: int,
    shapes: Mapping[str, Sequence[int]],
) -> list[Sample]:
    """Draws inputs until the original runs on `count` of them; inputs that leave NaN behind only when others do too.

    Free dimensions have other sizes in each sample where the model runs with them; inputs with a default keep it
    in the first sample and are given in the others. A model without inputs has one sample. Raises `Failed`, with what
    the first try said, when the model runs on none.
    """
    if not proto.graph.input:
        return [Sample({}, run({}))]
    samples: list[Sample] = []
    liked: list[tuple[Sizes, Style]] = []
    for index in range(count):
        drawer = _Drawing(run, proto, ranges, np.random.default_rng([seed, index]), shapes, overriding=index > 0)
        sample, way = drawer.find(_ways(index, liked, proto))
        liked.append(way)
        samples.append(sample)
    return samples


def _ways(index: int, liked: Sequence[tuple[Sizes, Style]], proto: onnx.ModelProto) -> Iterator[tuple[Sizes, Style]]:
    """Sizes and styles in the order in which they are worth a try for the sample of this index."""
    inputs = required_inputs(proto)
    is_sized = all(all(isinstance(dim, int) for dim in dims(value) or [None]) for value in inputs)
    is_float_only = all(value.type.tensor_type.elem_type in _FLOATS for value in inputs)
    if index and liked:
        if index <= len(OTHER_SIZES) and not is_sized:
            yield OTHER_SIZES[index - 1], liked[0][1]
        yield from reversed(liked)
    styles = [style for style in STYLES if style.floats is not None or style == STYLES[0] or not is_float_only]
    yield from itertools.product(SIZES[:1], styles)
    if not is_sized:
        yield from itertools.product(SIZES[1:], styles[:5])


@dataclass(frozen=True)
class _Drawing:
    run: Run
    proto: onnx.ModelProto
    ranges: Mapping[str, Range]
    rng: np.random.Generator
    shapes: Mapping[str, Sequence[int]]
    overriding: bool

    def find(self, ways: Iterator[tuple[Sizes, Style]]) -> tuple[Sample, tuple[Sizes, Style]]:
        first_failure: Failed | TooLarge | None = None
        second_best: tuple[Sample, tuple[Sizes, Style]] | None = None
        tries = 0
        for sizes, style in ways:
            try:
                sample = self.sample(sizes, style)
            except Unbounded:
                raise
            except (Failed, TooLarge) as failure:
                first_failure = first_failure or failure
                continue
            if not _has_nan(sample.outputs):
                return sample, (sizes, style)
            second_best = second_best or (sample, (sizes, style))
            tries += 1
            if tries > _MORE_TRIES:
                break
        if second_best is None:
            raise first_failure or Failed("no inputs could be drawn")
        return second_best

    def sample(self, sizes: Sizes, style: Style) -> Sample:
        feeds = draw(required_inputs(self.proto), self.rng, self.ranges, sizes, style=style, given=self.shapes)
        if self.overriding:
            more = feeds | draw_overrides(self.proto, self.rng)
            try:
                return Sample(more, self.run(more))
            except Unbounded:
                raise
            except Failed:
                pass  # other values than the default may not fit the model
        return Sample(feeds, self.run(feeds))


def _has_nan(outputs: Mapping[str, Value]) -> bool:
    return any(is_float(array.dtype) and bool(np.any(array != array)) for array in leaves(outputs).values())
