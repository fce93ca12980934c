"""Calls of model-local functions, written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from onnx import AttributeProto, NodeProto

from graphopt.facts import Facts
from graphopt.graph import AttributeRef, Function, Graph, Node, Tensor
from graphopt.graph.copies import Copier
from graphopt.graph.exporter import attribute_proto
from graphopt.graph.importer import constant_of
from graphopt.graph.node import decode_attribute
from graphopt.node_types import infer_node
from graphopt.pipeline import Context, Pass
from graphopt.rewrite import Rewriter
from graphopt.rule import ANY, NoMatch, Refused, Rule
from graphopt_passes.dead_layers.bodies import forwarded

# Functions in which `spell-blocks` wrote blocks down: they are wanted.
_BLOCKS = "graphopt.block"
# How the operator of a node begins that refers to its function's attributes, once for each.
_REFERS = "attr-ref::"
# A graph of more nodes grows no more.
_MOST_NODES = 1 << 16


@dataclass(frozen=True)
class Call:
    """A call of `function` by `node`; `attributes` are what its nodes may refer to."""

    node: Node
    function: Function
    attributes: Mapping[str, Any]


class InlineFunction(Rule[Call]):
    """f(x, ...) = the nodes of f, reading x, where f is a function of the model.

    The function's operators must be of the versions that the caller imports, its inputs all given. References to its
    attributes become the call's values, or the defaults, or are left out. Blocks that this tool spelled as functions
    stay. IR version 8 on. Exact. Source: ONNX IR.md, "Functions".
    """

    roots = (ANY,)

    def match(self, node: Node, facts: Facts) -> Call | NoMatch:
        if not node.op.startswith("function::") or node.domain == _BLOCKS:
            return NoMatch("it calls no function", node)
        if not any(t is not None and t.is_used for t in node.outputs):
            return NoMatch("nothing reads it at all", node)
        overload = node.proto.overload if node.proto is not None else ""
        function = facts.model.functions.get((node.domain, node.op_type, overload))
        if function is None or _outermost(node.owner) is not facts.model.graph:
            return NoMatch("it is inside a function, or calls one that is not there", node)
        body = function.body
        if len(node.inputs) != len(body.inputs) or None in node.inputs or len(node.outputs) > len(body.outputs):
            return Refused("it leaves out an input of the function", node)
        inner = list(_all_nodes(body))
        if any(body.opsets.get(n.domain) != node.owner.opsets.get(n.domain) for n in inner):
            return Refused("the function's operators are of other versions than the model's", node)
        if len(node.owner.nodes) + len(inner) > _MOST_NODES:
            return Refused(f"written out, the graph would have more than {_MOST_NODES} nodes", node)
        given = {a.name: decode_attribute(a) for a in function.proto.attribute_proto} | node.attrs
        if any(isinstance(value, (AttributeRef, AttributeProto)) for value in given.values()):
            return NoMatch("an attribute is a graph or a reference", node)
        return Call(node, function, given)

    def rewrite(self, found: Call, edit: Rewriter) -> None:
        node, body = found.node, found.function.body
        given = {inside: t for inside, t in zip(body.inputs, node.inputs, strict=True) if t is not None}
        copier = _Inliner(given, found.attributes, edit)
        for constant in body.initializers:
            edit.place_constant(copier.tensor(constant, node.owner))
        for inner in body.sorted_nodes():
            copy = copier.node(inner, node.owner)
            copy.position = node.position
            copy.name = f"{node.label}/{inner.name}" if inner.name else ""
            _note_types(edit.place(copy), edit)
        for old, inside in zip(node.outputs, body.outputs, strict=False):
            forwarded(old, copier.read(inside), edit)


class _Inliner(Copier):
    """Copies a function's nodes, references to its attributes replaced by what they stand for."""

    def __init__(self, given: dict[Tensor, Tensor], attributes: Mapping[str, Any], edit: Rewriter) -> None:
        super().__init__(given, edit.model.fresh_name)
        self.attributes = attributes

    def bare(self, node: Node) -> Node:
        if not any(isinstance(value, AttributeRef) for value in node.attrs.values()):
            return super().bare(node)
        made = Node(node.op_type, node.domain, name=node.name, proto=self._filled_in(node))
        made.op = node.op
        while made.op.startswith(_REFERS):
            made.op = made.op.removeprefix(_REFERS)
        return made

    def _filled_in(self, node: Node) -> NodeProto:
        """What the file says of the node, overload and metadata included, with values for references."""
        assert node.proto is not None  # only nodes of the file refer to attributes
        result = NodeProto()
        result.CopyFrom(node.proto)
        del result.attribute[:]
        for attribute in node.proto.attribute:
            if not attribute.ref_attr_name:
                result.attribute.append(attribute)
            elif attribute.ref_attr_name in self.attributes:
                value = self.attributes[attribute.ref_attr_name]
                result.attribute.append(attribute_proto(attribute.name, value, node.op_type))
        return result

    def node(self, node: Node, graph: Graph) -> Node:
        made = super().node(node, graph)
        result = made.output(0)
        if made.op == "Constant" and result is not None and result.constant is None:
            result.constant = constant_of(made, graph.model.folder)
            if result.constant is not None:
                result.dtype, result.shape = result.constant.dtype, result.constant.shape
        return made


def _note_types(node: Node, edit: Rewriter) -> None:
    types = infer_node(node, node.owner.opsets.get(node.domain, 0), max(edit.model.proto.ir_version, 3))
    for tensor, (dtype, shape) in zip(node.outputs, types, strict=True):
        if tensor is not None and tensor.constant is None:
            edit.set_type(tensor, dtype, shape)


def _all_nodes(body: Graph) -> Iterator[Node]:
    for graph in (body, *body.bodies()):
        yield from graph.nodes


def _outermost(graph: Graph) -> Graph:
    while graph.parent is not None and graph.parent.graph is not None:
        graph = graph.parent.graph
    return graph


@dataclass(frozen=True)
class InlineFunctions(Pass):
    """Writes out the calls of the model's functions, so that what they do is optimized together with the rest."""

    name: ClassVar[str] = "inline-functions"
    rules = (InlineFunction(),)

    def run(self, context: Context) -> str | None:
        return super().run(context) if context.model.functions else None
