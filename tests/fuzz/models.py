"""Whole models: a strategy that strings snippets together and then makes the ends odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.builder import Builder, Names, RejectedError, Shared, Tensor, type_of
from tests.fuzz.draw import Draw
from tests.fuzz.registry import SNIPPETS, Snippet, usable
from tests.fuzz.snippets import __all__ as _built_in  # importing fills the table

assert _built_in, "the built-in snippets are missing"

NEWEST_OPSET = 26  # what both onnx and ONNX Runtime take
NEWEST_IR = 13
_TRIES = 4
_OPSETS = [(17, 12), (13, 10), (11, 8), (18, 6), (20, 6), (21, 6), (22, 5), (23, 6), (NEWEST_OPSET, 8)]
_OPSETS += [(version, 3) for version in (7, 8, 9, 10, 12, 14, 15, 16, 19, 24, 25)]


@dataclass
class Case:
    """A model, how its inputs are drawn, and what it was made of."""

    model: onnx.ModelProto
    sizes: dict[str, tuple[int, ...]]
    ranges: dict[str, tuple[int, int]]
    overridable: dict[str, tuple[int, tuple[int, ...]]]
    seed: int
    snippets: list[str] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    theme: str = ""


@st.composite
def cases(draw: st.DrawFn, only: tuple[str, ...] = (), opset: int | None = None, theme: str = "") -> Case:
    """Random models. `only` draws from these snippets; `opset` fixes the opset; `theme` is a rule that is to fire."""
    d = Draw(draw)
    version = opset or d.weighted(_opsets(theme))
    shared = Shared(version, _ir_version(d, version), _names(d))
    shared.special_values = d.chance(3)
    b = Builder(d, shared)
    case = Case(onnx.ModelProto(), {}, shared.ranges, {}, 0, theme=theme)
    table = [(SNIPPETS[name], 1) for name in only] or usable(version)
    steps = d.integer(1, 8) if only or not d.chance(2) else 0
    around = d.integer(0, steps) if theme else -1
    for step in range(steps + 1):
        if step == around:
            _around(d, b, usable(version, theme), case)
        if step < steps:
            _step(d, b, d.weighted(table), case)
    if not b.pool and not b.outputs:
        b.pool.append(b.input(TensorProto.FLOAT, (2, 3)))
    outputs = _outputs(d, b)
    case.model = _finish(d, b, outputs)
    case.sizes = {t.name: t.shape for t in b.inputs}
    case.overridable = {t.name: (t.dtype, t.shape) for t in b.overridable}
    case.seed = d.integer(0, 0xFFFF)
    return case


def _opsets(theme: str) -> list[tuple[int, int]]:
    """Opsets and their weights; with a theme those that have snippets of it, as much as these weigh."""
    if not theme:
        return _OPSETS
    found = [(version, sum(weight for _, weight in usable(version, theme))) for version, _ in _OPSETS]
    return [(version, weight) for version, weight in found if weight]


def _ir_version(d: Draw, opset: int) -> int:
    least = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7}.get(
        opset, 8 if opset < 19 else 9 if opset < 21 else 10
    )
    least = {23: 11, 24: 11, 25: 12, 26: 13}.get(opset, least)
    return d.choice([version for version in (8, 10, least, NEWEST_IR) if version >= least])


def _names(d: Draw) -> Names:
    tensors = d.weighted([("plain", 9), ("number", 2), ("path", 3), ("unicode", 1), ("generated", 3), ("hostile", 1)])
    nodes = d.weighted([("unique", 6), ("empty", 2), ("duplicate", 1), ("output", 1), ("op", 1)])
    return Names(tensors, nodes)


def _around(d: Draw, b: Builder, table: list[tuple[Snippet, int]], case: Case) -> None:
    """One of these snippets; another one where the first does not apply."""
    before = len(case.snippets)
    for _ in range(_TRIES):
        if table and len(case.snippets) == before:
            _step(d, b, d.weighted(table), case)


def _step(d: Draw, b: Builder, chosen: Snippet, case: Case) -> None:
    """Put one snippet behind a tensor that fits, or behind a new input; taken back when an operator refuses."""
    marks = _marks(b)
    fitting = [t for t in b.pool if chosen.takes.fits(t)]
    if not fitting or d.chance(10):
        dtype, shape = chosen.takes.fresh(d)
        tensor = b.input(dtype, shape)
        b.pool.append(tensor)
    else:
        tensor = fitting[-1] if d.chance(70) else d.choice(fitting)
    try:
        made = chosen.function(d, b, tensor)
    except RejectedError as error:
        _undo(b, marks)
        case.rejected[f"{chosen.name}: {str(error).splitlines()[0][:160]}"] += 1
        return
    if made is None:
        _undo(b, marks)
        case.rejected[f"{chosen.name}: does not apply"] += 1
        return
    case.snippets.append(chosen.name)
    kept = [made] if isinstance(made, Tensor) else list(made)
    if len(kept) > 1 and d.chance(20):  # outputs that nobody reads
        kept = d.some(kept, least=1)
    b.pool.extend(kept)


def _marks(b: Builder) -> list[tuple[list[object], int]]:
    lists: list[list[object]] = [b.nodes, b.initializers, b.inputs, b.overridable, b.pool, b.outputs, b.constants]  # type: ignore[list-item]
    lists.append(b.shared.functions)  # type: ignore[arg-type]
    return [(items, len(items)) for items in lists]


def _undo(b: Builder, marks: list[tuple[list[object], int]]) -> None:
    for items, length in marks:
        del items[length:]


def _outputs(d: Draw, b: Builder) -> list[Tensor]:
    """Ends of the graph, now and then also a tensor in the middle, an input or an initializer; some ends stay dead."""
    read = {name for node in b.nodes for name in node.input}
    made = {name for node in b.nodes for name in node.output}
    ends = [t for t in b.pool if t.name in made and t.name not in read]
    if len(ends) > 1 and d.chance(15):
        ends.remove(d.choice(ends))
    outputs = [*b.outputs, *ends]
    inner = [t for t in b.pool if t.name in made]
    if inner and d.chance(15):
        outputs.append(d.choice(inner))
    if b.inputs and (not outputs or d.chance(3)):
        outputs.append(d.choice(b.inputs))
    if b.constants and d.chance(2):
        outputs.append(d.choice(b.constants))
    unique = {t.name: t for t in outputs}
    if not unique:
        constant = b.constant(np.zeros(2, np.float32), structural=True)
        unique[constant.name] = constant
    chosen = list(unique.values())
    return [chosen[at] for at in d.order(len(chosen))] if d.chance(20) else chosen


def _finish(d: Draw, b: Builder, outputs: list[Tensor]) -> onnx.ModelProto:
    shared = b.shared
    dynamic = (_dynamic(d, b) if d.chance(40) else {}) | shared.symbols
    inputs = [helper.make_tensor_value_info(t.name, t.dtype, dynamic.get(t.name, t.shape)) for t in b.inputs]
    if d.chance(5):
        inputs.append(helper.make_tensor_value_info(b.fresh("unused"), TensorProto.FLOAT, [1]))
        b.inputs.append(Tensor(inputs[-1].name, TensorProto.FLOAT, (1,)))
    if d.chance(5):
        b.initializers.append(numpy_helper.from_array(np.ones(2, np.float32), b.fresh("unused")))
    inputs += [helper.make_value_info(t.name, type_of(t.dtype, t.shape)) for t in b.overridable]
    if shared.ir_version < 4:  # every initializer has to be an input
        inputs += [helper.make_tensor_value_info(i.name, i.data_type, i.dims) for i in b.initializers]
    if dynamic:
        _loosen(b.nodes)
    ends = [_output_info(t, bool(dynamic)) for t in outputs]
    graph = helper.make_graph(b.nodes, "fuzz", inputs, ends, b.initializers)
    imports = [helper.make_opsetid("", shared.opset)]
    imports += [helper.make_opsetid(domain, version) for domain, version in shared.imports.items()]
    if d.chance(5):
        imports.append(helper.make_opsetid("unused.domain", 3))
    model = helper.make_model(graph, opset_imports=imports, ir_version=shared.ir_version, functions=shared.functions)
    if d.chance(15):
        helper.set_model_props(model, {"author": "fuzz", "key": "value"})
        model.doc_string, model.producer_name, model.model_version = "a random model", "fuzz", 7
    if d.chance(30):
        model = onnx.shape_inference.infer_shapes(model)
    return model


def _output_info(tensor: Tensor, loose: bool) -> onnx.ValueInfoProto:
    shape = [None] * tensor.rank if loose else tensor.shape
    return helper.make_tensor_value_info(tensor.name, tensor.dtype, shape)


def _loosen(nodes: Iterable[onnx.NodeProto]) -> None:
    """Outputs of bodies no longer say how large they are: with other inputs they are not."""
    for graph in (attribute.g for node in nodes for attribute in node.attribute if attribute.HasField("g")):
        for output in graph.output:
            for dim in output.type.tensor_type.shape.dim:
                dim.Clear()
        _loosen(graph.node)


def _dynamic(d: Draw, b: Builder) -> dict[str, list[int | str | None]]:
    """Some dimensions of the inputs become symbols; equal sizes may share a symbol, a few have no name at all."""
    found: dict[str, list[int | str | None]] = {}
    for tensor in b.inputs:
        dims: list[int | str | None] = list(tensor.shape)
        for at, dim in enumerate(tensor.shape):
            if dim > 0 and d.chance(60 if at == 0 else 15):
                dims[at] = d.weighted([(f"N{dim}", 6), (f"d{len(found)}_{at}", 3), (None, 1)])
        found[tensor.name] = dims
    return found
