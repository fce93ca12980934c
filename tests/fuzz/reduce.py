"""Smaller models that still fail: whatever a failure does not need is cut off, node by node."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import ModelProto, helper

from tests.fuzz.inputs import Feeds
from tests.fuzz.reference import runner

Fails = Callable[[ModelProto, list[Feeds]], bool]


def reduce(model: ModelProto, feeds: list[Feeds], fails: Fails, seconds: float) -> tuple[ModelProto, list[Feeds]]:
    """The smallest model found within the time, with its inputs. `fails` says whether a candidate still shows it."""
    end, values = time.process_time() + seconds, _all_values(model, feeds)
    progress = True
    while progress and time.process_time() < end:
        progress = False
        for candidate in _candidates(model, values[0] if values else {}):
            if time.process_time() > end:
                break
            pruned = _pruned(candidate)
            given = [_fitting(pruned, known) for known in values] if values else feeds
            if _size(pruned) < _size(model) and _valid(pruned) and fails(pruned, given):
                model, feeds, progress = pruned, given, True
                break
    return model, feeds


def _size(model: ModelProto) -> tuple[int, int, int]:
    return len(model.graph.node), len(model.graph.output), len(model.SerializeToString())


def _valid(model: ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:
        return False
    return True


def _all_values(model: ModelProto, feeds: list[Feeds]) -> list[Feeds]:
    """Every tensor's value for each set of inputs; empty when the model does not run."""
    exposed = _copy(model)
    names = [name for node in model.graph.node for name in node.output if name]
    shown = {output.name for output in model.graph.output}
    extra = [name for name in names if name not in shown]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
    order = [output.name for output in exposed.graph.output]
    found = []
    try:
        run = runner(exposed)
    except Exception:
        return []
    for inputs in feeds:
        with contextlib.suppress(Exception):  # a set that the model does not take
            found.append({**inputs, **dict(zip(order, run(inputs), strict=True))})
    return [{name: value for name, value in known.items() if isinstance(value, np.ndarray)} for known in found]


def _candidates(model: ModelProto, known: Feeds) -> Iterator[ModelProto]:
    """Copies with something cut off, the boldest first."""
    produced = [name for node in model.graph.node for name in node.output if name in known]
    for name in produced[:-1]:
        yield _with_outputs(model, [name], known)
    if len(model.graph.output) > 1:
        for output in model.graph.output:
            yield _with_outputs(model, [output.name], known)
        for output in model.graph.output:
            yield _with_outputs(model, [o.name for o in model.graph.output if o.name != output.name], known)
    for at in reversed(range(len(model.graph.node))):
        if all(name in known for name in model.graph.node[at].output if name):
            yield _cut_above(model, at, known)
    for at, node in enumerate(model.graph.node):
        yield from _bypasses(model, at, node, known)
    if model.graph.value_info:
        bare = _copy(model)
        del bare.graph.value_info[:]
        yield bare
    for field in ("metadata_props", "functions"):
        if getattr(model, field):
            bare = _copy(model)
            bare.ClearField(field)
            yield bare


def _with_outputs(model: ModelProto, names: list[str], known: Feeds) -> ModelProto:
    copy = _copy(model)
    old = {output.name: output for output in model.graph.output}
    del copy.graph.output[:]
    copy.graph.output.extend(old.get(name) or _info(name, known[name], loose=True) for name in names)
    return copy


def _cut_above(model: ModelProto, at: int, known: Feeds) -> ModelProto:
    """Without a node: what it made becomes inputs."""
    copy = _copy(model)
    names = [name for name in copy.graph.node[at].output if name]
    del copy.graph.node[at]
    outputs = {output.name for output in copy.graph.output}
    copy.graph.input.extend(_info(name, known[name]) for name in names)
    kept = [output for output in copy.graph.output if output.name not in names]
    if kept and outputs & set(names):
        del copy.graph.output[:]
        copy.graph.output.extend(kept)
    return copy


def _bypasses(model: ModelProto, at: int, node: onnx.NodeProto, known: Feeds) -> Iterator[ModelProto]:
    """Without a node: what read its result reads its input of the same type and shape."""
    if len(node.output) != 1 or node.output[0] not in known:
        return
    result = known[node.output[0]]
    for name in dict.fromkeys(node.input):
        if name in known and known[name].dtype == result.dtype and known[name].shape == result.shape:
            copy = _copy(model)
            del copy.graph.node[at]
            for reader in copy.graph.node:
                for k, read in enumerate(reader.input):
                    if read == node.output[0]:
                        reader.input[k] = name
            yield copy


def _info(name: str, value: np.ndarray, loose: bool = False) -> onnx.ValueInfoProto:
    shape = [None] * value.ndim if loose else value.shape
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)


def _pruned(model: ModelProto) -> ModelProto:
    """Without nodes, initializers and inputs that no output needs."""
    needed = {output.name for output in model.graph.output}
    keep = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            keep.append(node)
            needed |= _reads(node)
    copy = _copy(model)
    del copy.graph.node[:], copy.graph.input[:], copy.graph.initializer[:], copy.graph.value_info[:]
    copy.graph.node.extend(reversed(keep))
    copy.graph.input.extend(i for i in model.graph.input if i.name in needed)
    copy.graph.initializer.extend(i for i in model.graph.initializer if i.name in needed)
    made = needed | {name for node in keep for name in node.output}
    copy.graph.value_info.extend(i for i in model.graph.value_info if i.name in made)
    return copy


def _reads(node: onnx.NodeProto) -> set[str]:
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                names |= _reads(inner)
            names |= {output.name for output in attribute.g.output}
    return names


def _fitting(model: ModelProto, known: Feeds) -> Feeds:
    given = {t.name for t in model.graph.initializer}
    wanted = [info.name for info in model.graph.input]
    return {name: known[name] for name in wanted if name in known and name not in given}


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
