"""Harvested graphs as snippets: one for each rule and opset, which puts one of the rule's graphs behind a tensor."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper

from tests.fuzz.builder import Builder, RejectedError, Tensor
from tests.fuzz.draw import Draw
from tests.fuzz.harvest import INDEX, OPSETS, is_valid
from tests.fuzz.reference import runner
from tests.fuzz.registry import ANY, SNIPPETS, Function, Made, Snippet
from tests.fuzz.retype import retyped

WEIGHT = 16
_FEW = 3
_AT_HOME = 4  # so much more a graph is drawn in the opset in which it was found
_UNKNOWN_SIZE = 2
_RETYPED = 10  # of a hundred


@dataclass(frozen=True)
class Seed:
    """One harvested graph and what it is good for."""

    proto: ModelProto
    fired: frozenset[str]
    tested: frozenset[str]
    opsets: frozenset[int]
    own: int

    @cached_property
    def in_other_types(self) -> list[Seed]:
        """The graph in float64 and in float16, where it holds floats and its operators take these types."""
        made = [retyped(self.proto, kind) for kind in (TensorProto.DOUBLE, TensorProto.FLOAT16)]
        others = [proto for proto in made if proto != self.proto]
        return [replace(self, proto=p, opsets=frozenset(v for v in self.opsets if is_valid(p, v))) for p in others]

    @cached_property
    def results(self) -> list[tuple[int, tuple[int, ...]]] | None:
        """The outputs' types as they come out when each unknown dimension of an input is one number.

        What the graph itself declares is not asked: a test of a rule may declare what is not so. None where it does
        not run, and where shapes depend on values.
        """
        copy = ModelProto()
        copy.CopyFrom(self.proto)
        for info in copy.graph.output:
            info.type.tensor_type.ClearField("shape")
        for info in copy.graph.input:
            for dim in info.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value"):
                    dim.dim_value = _UNKNOWN_SIZE
        given = {init.name for init in copy.graph.initializer}
        inputs = [info for info in copy.graph.input if info.name not in given]
        try:
            run = runner(copy)
            runs = [run({info.name: _values(info, largest) for info in inputs}) for largest in (0, 1)]
        except Exception:  # the runtime raises several unrelated types
            return None
        if any(not isinstance(one, np.ndarray) or one.shape != two.shape for one, two in zip(*runs, strict=True)):
            return None
        kinds = [info.type.tensor_type.elem_type for info in copy.graph.output]
        return [(kind, one.shape) for kind, one in zip(kinds, runs[0], strict=True)]


def read(folder: Path) -> list[Seed]:
    """The graphs of the folder, in the order of its index."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return [_seed(folder / name, uses) for name, uses in index.items()]


def register(folder: Path) -> None:
    """A snippet for each rule and opset that has graphs in the folder: three in four fire the rule, one nearly does."""
    seeds = read(folder)
    for rule in sorted({rule for seed in seeds for rule in seed.fired}):
        firing = [seed for seed in seeds if rule in seed.fired]
        nearly = [seed for seed in seeds if rule in seed.tested and rule not in seed.fired]
        reach = {opset for seed in firing for opset in seed.opsets}
        scarce = len(OPSETS) // max(1, len(reach))  # rules of few opsets are drawn more in these
        weight = WEIGHT * min(4, max(1, scarce))
        if len(firing) <= _FEW:
            weight *= 3  # no other rule's graphs help this one
        for opset in sorted(reach):
            _register(rule, opset, weight, firing, nearly)


def _seed(path: Path, uses: dict[str, Any]) -> Seed:
    return Seed(
        onnx.load(path), frozenset(uses["fired"]), frozenset(uses["tested"]), frozenset(uses["opsets"]), uses["own"]
    )


def _register(rule: str, opset: int, weight: int, firing: list[Seed], nearly: list[Seed]) -> None:
    """Graphs are surest to fire in their own opset: there they and the snippet are drawn more."""
    here = [seed for seed in firing if opset in seed.opsets]
    home = [seed for seed in here if seed.own == opset]
    close = [seed for seed in nearly if opset in seed.opsets]
    name = f"graphs of {rule} ({opset})"
    function = _grafting([*here, *home * (_AT_HOME - 1)], close or here)
    weight *= _AT_HOME if home else 1
    SNIPPETS[name] = Snippet(name, weight, ANY, opset, opset + 1, (rule,), function)


def _grafting(firing: list[Seed], nearly: list[Seed]) -> Function:
    def graft(d: Draw, b: Builder, x: Tensor) -> Made:
        if b.shared.ir_version < 4:
            return None
        seed = d.choice(nearly if d.chance(25) else firing)
        others = [other for other in seed.in_other_types if b.opset in other.opsets] if d.chance(_RETYPED) else []
        return _graft(d, b, d.choice(others) if others else seed)

    return graft


def _graft(d: Draw, b: Builder, seed: Seed) -> list[Tensor]:
    """The graph's nodes under fresh names; its inputs are tensors of the pool where type and shape fit."""
    proto, results = seed.proto, seed.results
    if results is None:
        raise RejectedError("a graph that does not run, or whose shapes depend on values")
    names: dict[str, str] = {}
    given = {init.name for init in proto.graph.initializer}
    for info in proto.graph.input:
        if info.name not in given:
            names[info.name] = _source(d, b, info).name
    for init in proto.graph.initializer:
        names[init.name] = b.fresh(init.name)
        copy = onnx.TensorProto()
        copy.CopyFrom(init)
        copy.name = names[init.name]
        b.initializers.append(copy)
    for node in proto.graph.node:
        b.nodes.append(_renamed(b, node, names))
    outputs = zip(proto.graph.output, results, strict=True)
    return [Tensor(names[output.name], kind, shape) for output, (kind, shape) in outputs]


def _size(info: onnx.ValueInfoProto) -> tuple[int, ...]:
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else _UNKNOWN_SIZE for dim in dims)


def _values(info: onnx.ValueInfoProto, largest: int) -> np.ndarray:
    """Numbers from 0 to `largest`: small ones are valid where indices are asked for."""
    kind = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    return np.random.default_rng(0).integers(0, largest, _size(info), endpoint=True).astype(kind)


def _source(d: Draw, b: Builder, info: onnx.ValueInfoProto) -> Tensor:
    kind, shape = info.type.tensor_type, _size(info)
    free = any(not dim.HasField("dim_value") for dim in kind.shape.dim)
    fitting = [t for t in b.pool if not free and t.dtype == kind.elem_type and t.shape == shape]
    if fitting and d.chance(60):
        return d.choice(fitting)
    if not kind.HasField("shape") or not kind.elem_type:
        raise RejectedError("an input without a type")
    tensor = b.input(kind.elem_type, shape, (0, 1))
    if free:
        named = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in kind.shape.dim]
        b.shared.symbols[tensor.name] = named
    b.pool.append(tensor)
    return tensor


def _renamed(b: Builder, node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for at, name in enumerate(node.input):
        copy.input[at] = names.get(name, name)
    for attribute in copy.attribute:
        if attribute.HasField("g"):
            _rename_body(b, attribute.g, dict(names))
    for at, name in enumerate(node.output):
        if name:
            names[name] = copy.output[at] = b.fresh(name)
    copy.name = b.shared.names.node(node.op_type, copy.output[0])
    return copy


def _rename_body(b: Builder, graph: GraphProto, names: dict[str, str]) -> None:
    for message in [*graph.input, *graph.initializer]:
        names[message.name] = message.name = b.fresh(message.name)
    nodes = [_renamed(b, node, names) for node in graph.node]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    for output in graph.output:
        output.name = names.get(output.name, output.name)
