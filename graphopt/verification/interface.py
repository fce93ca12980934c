"""Whether two models can be used in each other's place: the same inputs and outputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

import onnx

from graphopt.verification import source
from graphopt.verification.values import Array, Value

Dim: TypeAlias = "int | str | None"  # fixed; a symbol; unknown


def dims(value: onnx.ValueInfoProto) -> list[Dim] | None:
    """The dimensions that the model declares for a tensor; None without a rank, or when it is no tensor.

    A negative size, which some exporters write for a free dimension, counts as unknown.
    """
    return type_dims(value.type)


def type_dims(type_: onnx.TypeProto) -> list[Dim] | None:
    """The dimensions of a tensor type, as for `dims`."""
    kind = type_.WhichOneof("value")
    if kind not in ("tensor_type", "sparse_tensor_type"):
        return None
    tensor = getattr(type_, kind)
    if not tensor.HasField("shape"):
        return None
    return [_dim(dim) for dim in tensor.shape.dim]


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def type_name(type_: onnx.TypeProto) -> str | None:
    """The type without its shape: `FLOAT`, `sequence of INT64`, `map of STRING`; None where it is not declared."""
    kind = type_.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        element = getattr(type_, kind).elem_type
        name = onnx.TensorProto.DataType.Name(element) if element else "UNDEFINED"
        return name if kind == "tensor_type" else f"sparse {name}"
    if kind == "sequence_type":
        return f"sequence of {type_name(type_.sequence_type.elem_type)}"
    if kind == "optional_type":
        return f"optional of {type_name(type_.optional_type.elem_type)}"
    if kind == "map_type":
        return f"map of {onnx.TensorProto.DataType.Name(type_.map_type.key_type)}"
    return None


def required_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that the caller must give: those without a default."""
    defaults = source.initializer_names(proto.graph)
    return [value for value in proto.graph.input if value.name not in defaults]


def overridable_inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs with a default that the caller may give: initializers listed as inputs, from IR version 4 on.

    Source: ONNX IR specification, "Graphs": before IR version 4 every initializer had to be listed, and is constant.
    """
    if 0 < proto.ir_version < 4:
        return []
    defaults = source.initializer_names(proto.graph)
    return [value for value in proto.graph.input if value.name in defaults]


def interface_problems(original: onnx.ModelProto, candidate: onnx.ModelProto, fixed: Collection[str] = ()) -> list[str]:
    """Sentences that say where the candidate's inputs and outputs differ from the original's; empty when nowhere.

    Names, order, element types and defaults must be the same. An input may accept more shapes than before, never
    fewer, but for inputs named in `fixed`, whose shape the user set. Declared shapes of outputs are left to
    `declaration_problems`: the original's own may be false.
    """
    problems = _name_problems("input", _once(required_inputs(original)), _once(required_inputs(candidate)))
    problems += _default_problems(original, candidate)
    problems += _name_problems("output", original.graph.output, candidate.graph.output)
    if problems:
        return problems
    theirs = {value.name: value for value in candidate.graph.input}
    for mine in original.graph.input:
        if mine.name in theirs:
            problems += _input_problems(mine, theirs[mine.name], is_fixed=mine.name in fixed)
    for mine, their in zip(original.graph.output, candidate.graph.output, strict=True):
        problems += _type_problems("output", mine, their)
    return problems


def _name_problems(kind: str, mine: Sequence[onnx.ValueInfoProto], theirs: Sequence[onnx.ValueInfoProto]) -> list[str]:
    before, after = [value.name for value in mine], [value.name for value in theirs]
    problems = [f"The {kind} {name} is missing." for name in before if name not in after]
    problems += [f"The {kind} {name} is new." for name in after if name not in before]
    if not problems and before != after:
        problems.append(f"The {kind}s come in another order: {', '.join(after)} instead of {', '.join(before)}.")
    return problems


def _once(values: Sequence[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    """The inputs without those that a flawed model lists once more: a caller gives them by name."""
    return list({value.name: value for value in values}.values())


def _default_problems(original: onnx.ModelProto, candidate: onnx.ModelProto) -> list[str]:
    before = [value.name for value in overridable_inputs(original)]
    after = {value.name for value in overridable_inputs(candidate)}
    return [f"The input {name}, which has a default, can no longer be given." for name in before if name not in after]


def _type_problems(kind: str, mine: onnx.ValueInfoProto, their: onnx.ValueInfoProto) -> list[str]:
    before, after = type_name(mine.type), type_name(their.type)
    if before is None or after is None or before == after or "UNDEFINED" in before:
        return []
    return [f"The {kind} {mine.name} is of type {after} instead of {before}."]


def _input_problems(mine: onnx.ValueInfoProto, their: onnx.ValueInfoProto, *, is_fixed: bool) -> list[str]:
    problems = _type_problems("input", mine, their)
    before, after = dims(mine), dims(their)
    if problems or after is None:
        return problems
    if before is None:
        accepts = is_fixed or after is None
    else:
        accepts = len(before) == len(after) and all(
            not isinstance(new, int) or old == new or (is_fixed and not isinstance(old, int))
            for old, new in zip(before, after, strict=True)
        )
    if accepts:
        return []
    return [f"The input {mine.name} takes the shape {shape(after)} only, instead of {shape(before)}."]


def shape(dimensions: Sequence[Dim] | None) -> str:
    """Dimensions in a sentence: `[batch, 3, ?]`."""
    if dimensions is None:
        return "of any rank"
    return "[" + ", ".join("?" if d is None else str(d) for d in dimensions) + "]"


def declaration_problems(output: onnx.ValueInfoProto, value: Value) -> list[str]:
    """Where the shape declared for an output contradicts the one computed."""
    declared = dims(output)
    if declared is None or value is None or isinstance(value, (list, dict)):
        return []
    computed: Array = value
    fits = len(declared) == computed.ndim and all(
        not isinstance(d, int) or d == n for d, n in zip(declared, computed.shape, strict=True)
    )
    if fits:
        return []
    return [f"The output {output.name} is declared {shape(declared)} but computed as {shape(list(computed.shape))}."]
