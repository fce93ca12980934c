"""Shape and type inference, by onnx's own, without serialising weights.

The model is exported as a skeleton in which every large constant is an input of the same type, sent through
`onnx.shape_inference`, and the types are noted on the tensors. What the file says of inner tensors is not believed,
since files are often stale; only for operators without a schema it is all there is.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    defs,
    helper,
)
from onnx.external_data_helper import _get_all_tensors

from graphopt.elements import forget_shapes, tensor_types
from graphopt.graph import (
    Constant,
    Dim,
    Graph,
    Model,
    Node,
    ProtoConstant,
    Shape,
    SparseConstant,
    Tensor,
    export_model,
    value_info,
)
from graphopt.graph.exporter import as_dim, inline_initializer
from graphopt.graph.standard import is_unknown
from graphopt.inferring import infer
from graphopt.loop_claims import MADE_UP, forget_names, unproven_claims, withdraw
from graphopt.pieces import bodies_of
from graphopt.propagation import is_bounded

# A constant up to this many bytes goes into the skeleton: it may be a shape, an axis, a pad.
SKELETON_BYTES = 1 << 10
# The longest Range whose elements onnx may write down.
LONGEST_RANGE = 1 << 16
# Of what enters their bodies onnx infers what it may; what the bodies claim of it says no more.
_ENTERED = ("Scan", "SequenceMap")
_RUNS = itertools.count(1)


def skeleton(model: Model) -> ModelProto:
    """The model without its large weights, each of them an input of the same type. Checker and inference take it."""
    large = _large_constants(model)

    def write(tensor: Tensor, constant: Constant) -> TensorProto | None:
        if tensor in large or tensor.is_input:
            return None  # of an input it is a default, which a caller may override, and onnx takes it for a constant
        return inline_initializer(tensor, constant)

    with _own_names(model, [t for t in large if t.graph is not model.graph]):
        proto = export_model(model, write, frozenset(t.producer for t in large if t.producer is not None))
        infos = [info for t in large if (info := value_info(t)) is not None]
    if model.external:
        _take_in(proto, model.folder)
    listed = {i.name for i in proto.graph.input}
    proto.graph.input.extend(info for info in infos if info.name not in listed)
    _forget_negative_sizes(proto.graph)
    return proto


def _forget_negative_sizes(graph: GraphProto) -> None:
    """Makes dimensions below 0 unknown, in bodies too: some exporters write -1 for these, and onnx computes with it."""
    for info in (*graph.input, *graph.output, *graph.value_info):
        for kind in tensor_types(info.type):
            for dim in kind.tensor_type.shape.dim if kind is not None else ():
                if dim.dim_value < 0:
                    dim.ClearField("dim_value")
    for node in graph.node:
        for body in bodies_of(node):
            _forget_negative_sizes(body)


def _take_in(proto: ModelProto, folder: Path | None) -> None:
    """Writes the values of Constant nodes that are in other files into the nodes that are left, functions' too.

    onnx looks for such files in the working directory, not in the model's.
    """
    in_functions = (a.t for f in proto.functions for n in f.node for a in n.attribute if a.HasField("t"))
    for tensor in (*_get_all_tensors(proto), *in_functions):
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(ProtoConstant(tensor, folder).to_proto(tensor.name))


def _large_constants(model: Model) -> dict[Tensor, None]:
    """The weights of the main graph and of bodies, initializers and Constant nodes', that need not be in a skeleton."""
    large: dict[Tensor, None] = {}
    for graph in (model.graph, *model.graph.bodies()):
        made = [t for node in graph.nodes if node.op == "Constant" for t in node.outputs if t is not None]
        for tensor in (*graph.initializers, *made):
            constant = tensor.constant
            if constant is None or isinstance(constant, SparseConstant):
                continue
            # a Constant node is written as it is, and the checker does not find external data
            outside = tensor.producer is not None and isinstance(constant, ProtoConstant) and constant.is_external
            if constant.nbytes <= SKELETON_BYTES and not outside:
                continue
            if graph is model.graph or not tensor.is_output:
                large[tensor] = None
    return large


@contextlib.contextmanager
def _own_names(model: Model, tensors: Iterable[Tensor]) -> Iterator[None]:
    """While the block runs, tensors of bodies have names that nothing else has, so that they can be outer ones."""
    names = {tensor: tensor.name for tensor in tensors}
    for tensor, name in names.items():
        tensor.name = model.fresh_name(name)
    try:
        yield
    finally:
        for tensor, name in names.items():
            model.reserved.discard(tensor.name)
            tensor.name = name


def infer_types(model: Model, proto: ModelProto | None = None, proven: Mapping[Tensor, Shape] | None = None) -> None:
    """Notes dtype and shape on every tensor for which onnx can tell them; the others keep None.

    Functions' bodies stay unknown: their types differ from call to call. `proto` is the model's skeleton where the
    caller has one; it is changed. `proven` are shapes of tensors of the main graph that an analysis is sure of and
    onnx cannot tell; they are taken as given, in later calls too: a rewrite changes no value of a tensor that stays.
    """
    proto = proto if proto is not None else skeleton(model)
    forget_claims(proto.graph, model.graph.opset, frozenset((f.domain, f.name) for f in proto.functions))
    model.proven = {t: shape for t, shape in model.proven.items() if _is_made(t)}
    _claim(proto.graph, {**model.proven, **(proven or {})})
    model.proven.update({t: _lasting(shape) for t, shape in (proven or {}).items()})
    propagates = _propagates(model) and is_bounded(model)
    while True:
        try:
            inferred = infer(proto, len(model.graph.holders), propagates)
        except Exception:  # onnx raises what its C++ threw: no types is a correct answer
            return
        _note_graph(inferred.graph, model.graph, next(_RUNS))
        model.inferences += 1
        # each round takes at least one claimed dimension away, so there is an end
        claims = unproven_claims(model)
        if not claims:
            return
        withdraw(claims, proto.graph)


def refresh_types(model: Model) -> None:
    """Infers types once more where some are unclear: a graph that was rewritten may tell onnx more than it did before.

    What was known stays known, also where a rewrite knew it and onnx does not.
    """
    graphs = (model.graph, *model.graph.bodies())
    before = {t: (t.dtype, t.shape) for g in graphs for t in _tensors(g) if t.constant is None}
    if not any(is_unclear(t) for t in before):
        return
    infer_types(model)
    for tensor, (dtype, shape) in before.items():
        tensor.dtype = tensor.dtype if tensor.dtype is not None else dtype
        tensor.shape = _clearer(tensor.shape, shape)


def is_unclear(tensor: Tensor) -> bool:
    """Whether the type leaves a dimension unknown: without a name, or with one that inference made up."""
    if tensor.dtype is None or tensor.shape is None:
        return True
    return any(_is_made_up(d) for d in tensor.shape)


def _clearer(new: Shape | None, old: Shape | None) -> Shape | None:
    """What two true shapes of one tensor say together; of two names the model's, of two made-up ones the new."""
    if new is None or old is None or len(new) != len(old):
        return old if new is None else new
    pairs = zip(new, old, strict=True)
    return tuple([o if isinstance(o, int) or (_is_made_up(n) and not _is_made_up(o)) else n for n, o in pairs])


def _is_made_up(dim: Dim) -> bool:
    return dim is None or (isinstance(dim, str) and dim.startswith(MADE_UP))


def _propagates(model: Model) -> bool:
    """Whether onnx may propagate values: it writes down every element of a Range, however long that is."""
    ranges = (n for g in model.graphs() for n in g.nodes if n.op == "Range" and len(n.inputs) == 3)
    return all(_count(n) <= LONGEST_RANGE for n in ranges)


def _count(node: Node) -> float:
    """The number of elements of a Range between constants; 0 when they are not constant."""
    constants = [t.constant for t in node.inputs if t is not None]
    values = [c.array().reshape(-1) for c in constants if c is not None and c.size == 1]
    if len(values) != 3:
        return 0
    start, limit, delta = (float(v[0]) for v in values)
    return (limit - start) / delta if delta else 0


def _is_made(tensor: Tensor) -> bool:
    """Whether a node of the graph still makes it: after that, another tensor may have its name."""
    return tensor.constant is None and tensor.producer is not None and not tensor.producer.is_erased


def _lasting(shape: Shape) -> Shape:
    """The shape without names that inference made up: it may find better ones."""
    return tuple([None if _is_made_up(dim) else dim for dim in shape])


def _claim(graph: GraphProto, proven: Mapping[Tensor, Shape]) -> None:
    """Writes the proven shapes into the graph, where inference starts from them."""
    outputs = {o.name: o for o in graph.output}
    for tensor, shape in proven.items():
        if tensor.dtype is None:
            continue
        info = helper.make_tensor_value_info(tensor.name, tensor.dtype, list(shape))
        if tensor.name in outputs:
            outputs[tensor.name].CopyFrom(info)
        else:
            graph.value_info.append(info)


def forget_claims(graph: GraphProto, version: int, functions: frozenset[tuple[str, str]] = frozenset()) -> None:
    """Drops what the graph says of its inner tensors' and outputs' shapes, where onnx may infer them.

    It may by a schema, and of a call of one of the `functions`, (domain, name), by its body, as far as that tells.
    `version` is that of the standard's operator set.
    """
    nodes = [n for n in graph.node if (n.domain, n.op_type) not in functions and not _has_schema(n, version)]
    unknown = {o for n in nodes for o in n.output}
    claims = [info for info in graph.value_info if info.name in unknown]
    del graph.value_info[:]
    graph.value_info.extend(claims)
    # an output that is an input has that one's shape, and without its own onnx does not see an initializer's values
    kept = unknown | {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    forget_shapes(info for info in graph.output if info.name not in kept)
    for node in graph.node:
        for body in bodies_of(node):
            forget_claims(body, version, functions)
            if node.op_type in _ENTERED:
                forget_shapes(body.input)
            if node.op_type == "Loop":
                forget_names(body)


def _has_schema(node: NodeProto, version: int) -> bool:
    return defs.has(node.op_type, node.domain) and not is_unknown(node.op_type, node.domain, version)


def _note_graph(proto: GraphProto, graph: Graph, run: int) -> None:
    types = {i.name: i.type for infos in (proto.value_info, proto.output, proto.input) for i in infos}
    for tensor in _tensors(graph):
        if tensor.constant is None and tensor.name in types:
            note_type(tensor, types[tensor.name], run)
    if not graph.holders:
        return
    by_output = {n.output[0]: n for n in proto.node if n.output and n.attribute}
    for node in graph.holders:
        inferred = by_output.get(next((t.name for t in node.outputs if t is not None), ""))
        if inferred is not None:
            _note_bodies(inferred, node, run)


def _note_bodies(proto: NodeProto, node: Node, run: int) -> None:
    for attribute in proto.attribute:
        bodies = node.bodies.get(attribute.name, ())
        protos = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for body_proto, body in zip(protos, bodies, strict=False):
            _note_graph(body_proto, body, run)
            if node.op == "SequenceMap":
                _forget_dimension_names(body)


def _forget_dimension_names(body: Graph) -> None:
    """Of what is computed from a sequence's elements: the elements share names, and need not share sizes."""
    for graph in (body, *body.bodies()):
        for tensor in _tensors(graph):
            if tensor.shape is not None:
                tensor.shape = tuple([dim if isinstance(dim, int) else None for dim in tensor.shape])


def _tensors(graph: Graph) -> Iterable[Tensor]:
    yield from graph.inputs
    for node in graph.nodes:
        for tensor in node.outputs:
            if tensor is not None:
                yield tensor


def note_type(tensor: Tensor, type_proto: TypeProto, run: int = 0) -> None:
    """Sets the tensor's dtype and shape from a TypeProto; what is no tensor stays unknown.

    Names that onnx made up for unknown dimensions are equal within one `run` of inference only, so they get its number.
    """
    dtype, shape = _read_type(type_proto.SerializeToString(), run)
    if dtype is not None:
        tensor.dtype = dtype
    if shape is not None:
        tensor.shape = shape


@lru_cache(maxsize=1 << 12)
def _read_type(message: bytes, run: int) -> tuple[int | None, Shape | None]:
    """The dtype and shape of a serialized TypeProto: most tensors of a model have one of a few types."""
    type_proto = TypeProto.FromString(message)
    if not type_proto.HasField("tensor_type"):
        return None, None
    tensor_type = type_proto.tensor_type
    shape = tuple([_of_run(as_dim(d), run) for d in tensor_type.shape.dim]) if tensor_type.HasField("shape") else None
    return tensor_type.elem_type or None, shape


def _of_run(dim: Dim, run: int) -> Dim:
    made_up = isinstance(dim, str) and dim.startswith(MADE_UP) and dim[len(MADE_UP) :].isdigit()
    return f"{MADE_UP}{run}_{str(dim)[len(MADE_UP) :]}" if made_up else dim
