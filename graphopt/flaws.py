"""Flaws that ONNX's checker rejects and runtimes take: those that can be tidied without guessing are, others tolerated.

`docs/adr/0005-flawed-models-are-tidied-or-tolerated.md` says which is which.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper

from graphopt.elements import tensor_types
from graphopt.external import printable
from graphopt.graph import Graph, Model, Shape, Tensor
from graphopt.graph.standard import STANDARD, is_unknown
from graphopt.loop_claims import MADE_UP
from graphopt.pieces import bodies_of

# where operators that the standard lacks are put while the checker looks at the rest
_ELSEWHERE = "graphopt.unknown"
# domains whose versions differ: which one was meant would be a guess
_VERSIONED = (*STANDARD, "ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.training")
_OPTIONAL_INPUTS_IR = 4  # from here on an initializer need not be an input
_NAME = "graph"  # of a graph that has none
_MOST_NAMES = 3


def tidy(model: Model) -> None:
    """Mends what has one meaning only: names, imports, IR version, empty entries. `model.tidied` says what was."""
    _name_graphs(model)
    _import_domains(model)
    _raise_ir_version(model)
    _drop_untyped(model)
    if model.idle:
        model.tidied.append(f"{_listed('node', model.idle)} had no outputs and so did nothing; dropped")
    if any(_is_unsorted(graph) for graph in model.graphs()):
        model.tidied.append("nodes came before what they read; they are sorted")


def declare_outputs(model: Model) -> None:
    """Declares types and shapes of the model's outputs that the file lacks, as far as they were inferred.

    What still lacks a shape, inputs too, is noted in `model.tolerated`.
    """
    mended = []
    for index, (tensor, info) in enumerate(zip(model.graph.outputs, model.graph.declared, strict=True)):
        known = _completed(info, tensor)
        if known is not None:
            model.graph.declared[index] = known
            if tensor.info is info:
                tensor.info = known
            mended.append(tensor.name)
    if mended:
        model.tidied.append(f"{_listed('output', mended)} declared no type or no shape; the inferred one is declared")
    _tolerate_open(model, "input", [t.info for t in model.graph.inputs if t.info is not None])
    _tolerate_open(model, "output", model.graph.declared)


def check_tolerantly(proto: ModelProto) -> list[str]:
    """Runs the ONNX checker; returns sentences on operators that it rejects and that are tolerated.

    A missing shape of an input or output, and an operator that the standard lacks at the model's opset, are not held
    against a model: all else is checked without them. Raises what the checker raises.
    """
    try:
        onnx.checker.check_model(proto)
    except Exception:
        stand_in = ModelProto()
        stand_in.CopyFrom(proto)
        filled = [_fill(info) for info in (*stand_in.graph.input, *stand_in.graph.output)]
        unknown = _move_unknown(stand_in)
        if not unknown and not any(filled):
            raise
        onnx.checker.check_model(stand_in)
        return [_lacks(name, version, count) for (name, version), count in unknown.items()]
    return []


def _lacks(name: str, version: int, count: int) -> str:
    return (
        f"ONNX has no {printable(name)} at opset {version} ({_times(count, 'node')}), so its checker rejects it; "
        "a runtime may run it, so it stays as it is, like a custom operator"
    )


def _tolerate_open(model: Model, what: str, infos: Iterable[ValueInfoProto]) -> None:
    names = [info.name for info in infos if _is_open(info.type)]
    if names:
        verb = "declares" if len(names) == 1 else "declare"
        model.tolerated.append(f"{_listed(what, names)} {verb} no shape: ONNX's checker rejects that, runtimes take it")


def _name_graphs(model: Model) -> None:
    nameless = [g for top in (model.graph,) for g in (top, *top.bodies()) if not g.proto.name]
    nameless += [g for f in model.functions.values() for g in f.body.bodies() if not g.proto.name]
    for graph in nameless:
        head = GraphProto(name=_NAME, doc_string=graph.proto.doc_string)
        head.metadata_props.extend(graph.proto.metadata_props)
        head.quantization_annotation.extend(graph.proto.quantization_annotation)
        graph.proto = head
    if nameless:
        model.tidied.append(f"{_times(len(nameless), 'graph')} had no name; '{_NAME}' is its name now")


def _import_domains(model: Model) -> None:
    """Imports what the nodes are of, in the version 1 that domains without a history have.

    What a function's nodes are of is for the function to import: no runtime takes one that does not.
    """
    used = dict.fromkeys(n.domain for g in (model.graph, *model.graph.bodies()) for n in g.nodes)
    missing = [domain for domain in used if domain not in model.opsets and domain not in _VERSIONED]
    model.opsets.update(dict.fromkeys(missing, 1))
    model.tidied += [f"the operator set '{printable(d)}' was not imported; version 1 is" for d in missing]


def _raise_ir_version(model: Model) -> None:
    if not 0 < model.ir_version < _OPTIONAL_INPUTS_IR:
        return
    listed = {info.name for info in model.proto.graph.input}
    if any(t.name not in listed for t in model.graph.initializers):
        model.tidied.append(
            f"initializers that are no inputs need IR version {_OPTIONAL_INPUTS_IR}, "
            f"the model said {model.ir_version}; it says {_OPTIONAL_INPUTS_IR}"
        )
        model.ir_version = _OPTIONAL_INPUTS_IR


def _drop_untyped(model: Model) -> None:
    dropped = 0
    for graph in model.graphs():
        kept = [(info, tensor) for info, tensor in graph.claims if info.type.WhichOneof("value")]
        dropped += len(graph.claims) - len(kept)
        graph.claims = kept
    if dropped:
        said = "entry says" if dropped == 1 else "entries say"
        model.tidied.append(f"{dropped} value_info {said} no type; dropped")


def _is_unsorted(graph: Graph) -> bool:
    places = [node.position for node in graph.sorted_nodes()]
    return any(a > b for a, b in itertools.pairwise(places))


def _completed(info: ValueInfoProto, tensor: Tensor) -> ValueInfoProto | None:
    """The declaration with what it lacks of a tensor's type; None when it lacks nothing or nothing more is known."""
    kind = info.type.WhichOneof("value")
    if kind not in (None, "tensor_type") or tensor.dtype is None:
        return None
    said = info.type.tensor_type
    if said.elem_type and (said.HasField("shape") or tensor.shape is None):
        return None
    result = ValueInfoProto()
    result.CopyFrom(info)
    shape = _lasting(tensor.shape) if not said.HasField("shape") else None
    inferred = helper.make_tensor_type_proto(said.elem_type or tensor.dtype, shape)
    result.type.tensor_type.MergeFrom(inferred.tensor_type)
    return result


def _lasting(shape: Shape | None) -> list[int | str | None] | None:
    """The shape without the names that inference made up for one run."""
    if shape is None:
        return None
    return [None if isinstance(d, str) and d.startswith(MADE_UP) else d for d in shape]


def _is_open(kind: TypeProto) -> bool:
    """Whether a type, or the type of what is in a sequence, optional or map, lacks what the checker asks for."""
    return any(inner is None or not inner.tensor_type.HasField("shape") for inner in tensor_types(kind))


def _fill(info: ValueInfoProto) -> bool:
    """Gives an input or output a type and shape where it has none: some, for the checker not to stop at."""
    if not _is_open(info.type):
        return False
    for kind in tensor_types(info.type):
        if kind is None:
            info.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        else:
            kind.tensor_type.shape.SetInParent()
    return True


def _move_unknown(model: ModelProto) -> Counter[tuple[str, int]]:
    """Gives nodes of operators that the standard lacks another domain; returns how many of each there were."""
    found: Counter[tuple[str, int]] = Counter()
    local = {(f.domain, f.name) for f in model.functions}
    own = _version(model.opset_import)
    for nodes, version in [(model.graph.node, own), *((f.node, _version(f.opset_import)) for f in model.functions)]:
        for node in _all_nodes(nodes):
            if (node.domain, node.op_type) not in local and is_unknown(node.op_type, node.domain, version):
                found[node.op_type, version] += 1
                node.domain = _ELSEWHERE
    if found:
        for imports in (model.opset_import, *(f.opset_import for f in model.functions)):
            imports.append(helper.make_opsetid(_ELSEWHERE, 1))
    return found


def _version(imports: Iterable[onnx.OperatorSetIdProto]) -> int:
    return next((o.version for o in imports if o.domain in STANDARD), 0)


def _all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        for body in bodies_of(node):
            stack.extend(body.node)


def _listed(what: str, names: list[str]) -> str:
    """ "output 'a'", "outputs 'a', 'b', 'c' and 4 more"."""
    shown = ", ".join(f"'{printable(name)}'" for name in names[:_MOST_NAMES])
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{what}{'s' if len(names) > 1 else ''} {shown}{more}"


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
