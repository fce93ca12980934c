"""Drawing a model's inputs at random, within ranges and for chosen sizes of its free dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx.numpy_helper

from graphopt.errors import InputsError, ShapeError
from graphopt.verification import source
from graphopt.verification.interface import Dim, dims, overridable_inputs, shape, type_dims
from graphopt.verification.ranges import ANY, Range
from graphopt.verification.sessions import bits
from graphopt.verification.values import Array, Value, is_float

MOST_ELEMENTS = 2**31  # of one input; more is a mistake or malice, not a test
MOST_DRAWN = 2**22  # of one input whose size is ours to choose
_WORDS = ("a", "bc", "", "Hello", "x y", "z9", "été", "0")
_T = onnx.TensorProto


class TooLarge(InputsError):
    """An input would have more elements than are drawn; with other sizes it may not."""


@dataclass(frozen=True)
class Style:
    """How numbers are drawn where nothing is known about them."""

    name: str = "random numbers"
    floats: Range | None = None  # None draws from the normal distribution
    integers: Range = field(default=Range(0, 2))
    booleans: tuple[bool, ...] = (False, True)


STYLES = (
    Style(),
    Style("integers all 1", integers=Range(1, 1), booleans=(True,)),
    Style("integers all 0", integers=Range(0, 0), booleans=(False,)),
    Style("positive numbers", floats=Range(0.1, 1.1), integers=Range(0, 1)),
    Style("ones", floats=Range(1, 1), integers=Range(1, 2), booleans=(True,)),
    Style("integers all -1", integers=Range(-1, -1)),
    Style("larger integers", integers=Range(2, 8), booleans=(True,)),
)


@dataclass(frozen=True)
class Sizes:
    """The sizes chosen for free dimensions: of symbols by name, of nameless ones by kind.

    `leading` is for the first axis (the batch), `spatial` for axes from the third on of tensors of rank 4 and more,
    `other` for the rest (lengths of sequences). `known` has symbols that are settled.
    """

    leading: int = 2
    spatial: int = 64
    other: int = 6
    step: int = 0  # added once more for each further symbol, so that different symbols differ
    known: Mapping[str, int] = field(default_factory=dict)

    def of(self, axis: int, rank: int) -> int:
        """The size of a nameless dimension."""
        if axis == 0:
            return self.leading
        return self.spatial if rank >= 4 and axis >= 2 else self.other


# From the most telling to the most often accepted: symbols that differ show a rewrite that mixes them up.
SIZES = (
    Sizes(2, 64, 6, 1),
    Sizes(2, 64, 6),
    Sizes(2, 2, 2),
    Sizes(1, 1, 1),
    Sizes(1, 224, 16),
    Sizes(1, 32, 32),
    Sizes(4, 4, 4),
    Sizes(3, 3, 3),
    Sizes(8, 8, 8),
    Sizes(16, 16, 16),
)
# For the samples after the first, tried before what was right for the first.
OTHER_SIZES = (Sizes(3, 32, 9, 1), Sizes(1, 96, 12, 1))


def settle(inputs: Sequence[onnx.ValueInfoProto], sizes: Sizes, given: Mapping[str, Sequence[int]]) -> Sizes:
    """The sizes with every symbol of the inputs settled; the same symbol has the same size everywhere.

    `given` has whole shapes by input name, which go first. Raises `ShapeError` when they contradict the model or
    each other.
    """
    known = dict(sizes.known)
    for value in inputs:
        if value.name in given:
            _settle_given(value, given[value.name], known)
    further = 0
    for value in inputs:
        declared = dims(value) or []
        for axis, dim in enumerate(declared):
            if isinstance(dim, str) and dim not in known:
                known[dim] = sizes.of(axis, len(declared)) + (further * sizes.step if axis else 0)
                further += 1 if axis else 0
    return replace(sizes, known=known)


def _settle_given(value: onnx.ValueInfoProto, wanted: Sequence[int], known: dict[str, int]) -> None:
    declared = dims(value)
    if declared is None:
        return
    if len(declared) != len(wanted):
        raise ShapeError(f"The shape {shape(list(wanted))} given for {value.name} does not fit {shape(declared)}.")
    for dim, size in zip(declared, wanted, strict=True):
        if isinstance(dim, int) and dim != size and dim >= 0:
            raise ShapeError(f"The shape {shape(list(wanted))} given for {value.name} does not fit {shape(declared)}.")
        if isinstance(dim, str) and known.setdefault(dim, size) != size:
            raise ShapeError(f"The shapes given disagree about the dimension {dim}: {known[dim]} and {size}.")


def draw(
    inputs: Sequence[onnx.ValueInfoProto],
    rng: np.random.Generator,
    ranges: Mapping[str, Range],
    sizes: Sizes = SIZES[0],
    *,
    style: Style = STYLES[0],
    given: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Value]:
    """One value for each input, of its declared type and shape, within its range.

    Free dimensions take their size from `sizes`, whole shapes may be `given` by name. Raises `ShapeError` where
    these contradict the model, `InputsError` for a type that cannot be drawn or for more than 2^31 elements.
    """
    given = given or {}
    settled = settle(inputs, sizes, given)
    drawer = _Drawer(rng, settled, style)
    return {
        value.name: drawer.value(value.name, value.type, ranges.get(value.name, ANY), given.get(value.name))
        for value in inputs
    }


@dataclass(frozen=True)
class _Drawer:
    rng: np.random.Generator
    sizes: Sizes
    style: Style

    def value(self, name: str, type_: onnx.TypeProto, wanted: Range, given: Sequence[int] | None) -> Value:
        kind = type_.WhichOneof("value")
        if kind == "tensor_type":
            declared = type_dims(type_)
            size = tuple(given) if given is not None else self.shape(declared)
            is_ours = given is None and not all(isinstance(dim, int) for dim in declared or [None])
            if math.prod(size) > (MOST_DRAWN if is_ours else MOST_ELEMENTS):
                raise TooLarge(f"The input {name} of shape {shape(list(size))} is too large to be drawn.")
            return self.tensor(name, type_.tensor_type.elem_type, size, wanted)
        if kind == "sequence_type":
            return [self.value(name, type_.sequence_type.elem_type, wanted, None) for _ in range(2)]
        if kind == "optional_type":
            if self.rng.random() < 0.25:
                return None
            return self.value(name, type_.optional_type.elem_type, wanted, None)
        raise InputsError(f"The input {name} is no tensor and cannot be drawn; give inputs of your own.")

    def shape(self, declared: Sequence[Dim] | None) -> tuple[int, ...]:
        if declared is None:
            return (self.sizes.leading, 3)
        return tuple(
            dim if isinstance(dim, int) else self.sizes.known.get(dim or "", self.sizes.of(axis, len(declared)))
            for axis, dim in enumerate(declared)
        )

    def tensor(self, name: str, element: int, size: tuple[int, ...], wanted: Range) -> Array:
        if element == _T.STRING:
            words = np.array(_WORDS, dtype=object)
            return np.asarray(words[self.rng.integers(0, len(words), size)], dtype=object).reshape(size)
        if element == _T.BOOL:
            return np.asarray(self.rng.choice(np.array(self.style.booleans), size), dtype=bool)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
        if dtype.kind == "c":
            return np.asarray(self.rng.standard_normal(size) + 1j * self.rng.standard_normal(size)).astype(dtype)
        if wanted.is_target and self.style == STYLES[0]:  # -1, 1, 1, ... fits any number of elements
            return np.where(np.arange(math.prod(size)) == 0, -1, 1).astype(dtype).reshape(size)
        low, high = wanted.resolved(self.sizes.known)
        if is_float(dtype):
            return self.floats(size, low, high).astype(dtype)
        if low is None and high is None and "mask" in name.lower():
            low, high = 0, 1
        return self.integers(dtype, size, low, high).astype(dtype)

    def floats(self, size: tuple[int, ...], low: float | None, high: float | None) -> Array:
        if low is None and high is None and self.style.floats is None:
            return np.asarray(self.rng.standard_normal(size))
        floats = self.style.floats or Range(0, 1)
        bottom, top = _ends(low, high, floats.low or 0, floats.high or 1)
        return np.asarray(self.rng.uniform(bottom, top, size))

    def integers(
        self, dtype: np.dtype[np.generic], size: tuple[int, ...], low: float | None, high: float | None
    ) -> Array:
        usual = self.style.integers
        if low is None and high is None and bits(dtype) <= 8 and self.style == STYLES[0]:  # quantized numbers
            low, high = (
                (0, 2 ** bits(dtype) - 1)
                if "u" in dtype.name
                else (-(2 ** bits(dtype)) // 2, 2 ** bits(dtype) // 2 - 1)
            )
        elif self.style != STYLES[0] and usual.low == usual.high and _allows(low, high, usual):
            low, high = usual.low, usual.high
        bottom, top = _ends(low, high, usual.low or 0, usual.high or 0)
        if "u" in dtype.name:
            bottom = max(bottom, 0)
        return np.asarray(self.rng.integers(math.ceil(bottom), max(math.floor(top), math.ceil(bottom)) + 1, size))


def _allows(low: float | None, high: float | None, usual: Range) -> bool:
    value = usual.low or 0
    return (low is None or low <= value) and (high is None or value <= high)


def _ends(low: float | None, high: float | None, usual_low: float, usual_high: float) -> tuple[float, float]:
    """Both ends of a range of which one or both may be open: the usual span, moved to where it fits."""
    span = usual_high - usual_low
    if low is None and high is None:
        return usual_low, usual_high
    if low is None:
        assert high is not None
        return min(usual_low, high - span), min(usual_high, high)
    if high is None:
        return max(usual_low, low), max(usual_high, low + span)
    return low, high


def draw_overrides(proto: onnx.ModelProto, rng: np.random.Generator) -> dict[str, Value]:
    """Values for the inputs that have a default: floats near it, so that they differ, and nothing where it is no float.

    Integers and booleans keep their defaults: they are axes, shapes and switches more often than data.
    """
    wanted = {value.name for value in overridable_inputs(proto)}
    drawn: dict[str, Value] = {}
    for tensor in proto.graph.initializer:
        if tensor.name not in wanted or source.is_external(tensor):
            continue
        default = onnx.numpy_helper.to_array(tensor)
        if is_float(default.dtype) and default.dtype.kind != "c":
            wide = default.astype(np.float64)
            factor = 1 + 0.25 * rng.standard_normal(default.shape)
            drawn[tensor.name] = np.where(wide == 0, 0.1 * factor, wide * np.abs(factor)).astype(default.dtype)
    return drawn
