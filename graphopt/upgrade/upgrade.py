"""A whole model to a newer opset: which nodes change, what stands in their place, what stands in the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache

import onnx
from onnx import FunctionProto, NodeProto, defs, helper, numpy_helper

from graphopt.errors import OpsetError
from graphopt.external import printable
from graphopt.graph import ArrayConstant, Graph, Model, Node, Tensor
from graphopt.graph.edits import Journal
from graphopt.graph.graph import Upgraded
from graphopt.graph.node import decode_attribute
from graphopt.graph.standard import UNKNOWN, is_defined
from graphopt.upgrade.conversion import Converted, convert, plain_proto
from graphopt.upgrade.corrections import correct, own_way

UPGRADE = "upgrade-opset"  # in the report and as provenance, like a rule's name
OLDEST = 7
# their bodies are upgraded here; they themselves only took more types from version to version (Scan: from 9 on)
_HOLDERS = ("If", "Loop", "Scan")
_SCAN_SINCE = 9


def upgrade(model: Model, version: int) -> None:
    """Brings a model, its types inferred, to opset `version`, bodies and functions too. Nothing at that opset already.

    Linear in the nodes. Raises OpsetError, in one sentence, for an older or unknown opset and where an operator has no
    way there; the model is then half done and no more to be used.
    """
    current = model.graph.opset
    if current == version:
        return
    _check(current, version)
    started, nodes = time.perf_counter(), model.node_count()
    rewritten = sum(_upgrade_graph(g, version) for g in (model.graph, *model.graph.bodies()))
    model.opsets[""] = version
    for function in model.functions.values():
        body = function.body
        if 0 < body.opset < version:
            rewritten += sum(_upgrade_graph(g, version) for g in (body, *body.bodies()))
            body.opsets[""] = version
            function.proto = _with_opset(function.proto, version)
    needed = helper.find_min_ir_version_for([helper.make_opsetid("", version)], ignore_unknown=True)
    model.ir_version = max(model.ir_version, needed)
    seconds = time.perf_counter() - started
    model.upgraded = Upgraded(current, version, rewritten, nodes, model.node_count(), seconds)


def _check(current: int, version: int) -> None:
    newest = onnx.defs.onnx_opset_version()
    if version > newest:
        raise OpsetError(f"there is no opset {version}: the newest that onnx {onnx.__version__} knows is {newest}.")
    if current == 0:
        raise OpsetError(f"the model has no operators of the standard that could be brought to opset {version}.")
    if current > version:
        raise OpsetError(f"the model is of opset {current} and is not taken back to {version}; --opset goes up only.")
    if current < OLDEST:
        raise OpsetError(f"the model is of opset {current}; --opset starts from {OLDEST} on, export the model anew.")


def _upgrade_graph(graph: Graph, version: int) -> int:
    """Upgrades the nodes of one graph; returns how many changed."""
    before = graph.opset
    own = {node: own_way(node, before, version) for node in graph.sorted_nodes() if _changes(node, before, version)}
    nodes = [node for node, made in own.items() if made is None]
    found = {node: made for node, made in own.items() if made is not None}
    for node, made in zip(nodes, _converted(nodes, before, version), strict=True):
        problem = correct(node, made, before, version)
        if problem is not None:
            raise _stands_in_the_way(node, before, version, problem)
        found[node] = made
    changed = [(node, made) for node, made in found.items() if not _is_same(node, made)]
    for node, made in changed:
        _replace(node, made, version)
    return len(changed)


def _changes(node: Node, before: int, after: int) -> bool:
    """Whether the operator's definition is another one at the new opset. Raises OpsetError where that is not known."""
    if node.domain or node.op.startswith("function::"):
        return False
    if node.op.startswith(f"{UNKNOWN}::"):
        if is_defined(node.op_type, after):
            raise _stands_in_the_way(node, before, after, f"ONNX has no such operator at opset {before}")
        return False
    if node.op == "Constant" or _since(node.op_type, before) == _since(node.op_type, after):
        return False
    if node.bodies:
        if node.op not in _HOLDERS or (node.op == "Scan" and before < _SCAN_SINCE):
            raise _stands_in_the_way(node, before, after, "the form of its body changed")
        return False
    if node.op.startswith("attr-ref::"):
        raise _stands_in_the_way(node, before, after, "an attribute of it is the caller's to give")
    return True


@lru_cache(maxsize=1 << 12)
def _since(op_type: str, version: int) -> int:
    return int(defs.get_schema(op_type, version, "").since_version)


def _converted(nodes: Sequence[Node], before: int, after: int) -> list[Converted]:
    try:
        return convert(nodes, before, after)
    except Exception:  # onnx raises what its C++ threw, which does not say for which node
        for node in nodes:
            try:
                convert([node], before, after)
            except Exception as error:
                raise _stands_in_the_way(node, before, after, _last_clause(error)) from None
        raise


def _last_clause(error: Exception) -> str:
    """What the converter complains of, without the place in its source."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return printable(text.rpartition("failed: ")[2].rstrip("."), 200)


def _stands_in_the_way(node: Node, before: int, after: int, why: str) -> OpsetError:
    return OpsetError(
        f"operator {node.op_type} stands in the way from opset {before} to {after} (node '{printable(node.label)}'): "
        f"{why}; take a lower --opset, or none."
    )


def _is_same(node: Node, made: Converted) -> bool:
    """Whether the converter left the node as it was."""
    if len(made.nodes) != 1 or made.constants:
        return False
    old, new = plain_proto(node), made.nodes[0]
    return (
        new.op_type == node.op_type
        and list(new.input) == list(old.input)
        and list(new.output) == list(old.output)
        and _plain_attributes(new) == _plain_attributes(old)
    )


def _plain_attributes(node: NodeProto) -> dict[str, object]:
    """The attributes; of tensors only that they are there: the converter changes none."""
    return {a.name: "tensor" if a.HasField("t") else decode_attribute(a) for a in node.attribute}


def _replace(node: Node, made: Converted, version: int) -> None:
    """Puts what was made in the place of `node`."""
    graph, journal = node.owner, Journal()
    tensors: dict[str, Tensor | None] = {"": None}
    tensors.update((f"i{k}", t) for k, t in enumerate(node.inputs))
    tensors.update((f"o{k}", t) for k, t in enumerate(node.outputs))
    outputs = set(node.outputs)
    journal.detach(node)
    for name, stored in made.constants.items():
        constant = ArrayConstant(numpy_helper.to_array(stored))
        tensor = Tensor(graph.model.fresh_name(f"{node.label}.constant"), graph)
        tensor.constant, tensor.dtype, tensor.shape = constant, constant.dtype, constant.shape
        journal.add_initializer(tensor)
        tensors[name] = tensor
    for proto in made.nodes:
        if not is_defined(proto.op_type, version) or defs.get_schema(proto.op_type, version, "").deprecated:
            raise _stands_in_the_way(node, graph.opset, version, "onnx's converter has nothing to put in its place")
        for name in proto.output:
            if name not in tensors:
                tensors[name] = Tensor(graph.model.fresh_name(f"{node.label}.{proto.op_type}"), graph)
        attrs = {a.name: decode_attribute(a) for a in proto.attribute}
        new = Node(proto.op_type, attrs=attrs)
        new.inputs = tuple(tensors[name] for name in proto.input)
        new.outputs = tuple(tensors[name] for name in proto.output)
        makes_result = any(t in outputs for t in new.outputs if t is not None)
        new.name = node.name if makes_result else ""
        new.position, new.rule, new.origins = node.position, UPGRADE, (node,)
        journal.attach(new, graph)


def _with_opset(function: FunctionProto, version: int) -> FunctionProto:
    result = FunctionProto()
    result.CopyFrom(function)
    for opset in result.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = version
    return result
