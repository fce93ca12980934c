"""What the graph no longer needs beside its nodes: initializers, model-local functions, imports of operator sets."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Graph, Model, Node, SparseConstant
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule


class ConstantToInitializer(Rule[Node]):
    """A Constant node becomes an initializer of its graph, the name kept; in functions, which have none, it stays.

    It stays too where it is a graph output, and when its value is sparse. All forms of its attribute. Exact.
    """

    roots = ("Constant",)

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        value = node.output(0)
        if value is None or value.constant is None or isinstance(value.constant, SparseConstant):
            return NoMatch("its value is sparse or of an unknown form", node)
        if value.is_output:
            return NoMatch("it is a graph output", node)
        if is_in_function(node.owner):
            return NoMatch("it is in a function", node)
        return node

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        edit.to_initializer(found)


def is_in_function(graph: Graph) -> bool:
    """Whether `graph` is a model-local function's body, or a body in it."""
    while graph.parent is not None:
        graph = graph.parent.owner
    return graph is not graph.model.graph


def drop_unread_initializers(model: Model, edit: Rewriter) -> None:
    """Drops initializers that nothing reads, bodies' too; not those that quantization annotations name."""
    for graph in model.graphs():
        annotated = {e.value for a in graph.proto.quantization_annotation for e in a.quant_parameter_tensor_names}
        for tensor in [t for t in graph.initializers if not t.is_used and t.name not in annotated]:
            edit.drop_initializer(tensor)


def drop_uncalled_functions(model: Model, edit: Rewriter) -> None:
    """Drops model-local functions that no node of the main graph reaches, directly or through other functions."""
    by_name: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for key in model.functions:
        by_name.setdefault(key[:2], []).append(key)
    reached: set[tuple[str, str, str]] = set()
    stack = [model.graph]
    while stack:
        graph = stack.pop()
        for inner in (graph, *graph.bodies()):
            for node in inner.nodes:
                for key in by_name.get((node.domain, node.op_type), ()):
                    if key not in reached:
                        reached.add(key)
                        stack.append(model.functions[key].body)
    for key in [k for k in model.functions if k not in reached]:
        edit.drop_function(key)


def drop_unused_imports(model: Model, edit: Rewriter) -> None:
    """Drops imports of operator sets that no node, function or function's import is of; the standard one stays."""
    used = {""}
    for graph in model.graphs():
        used.update(node.domain for node in graph.nodes)
    for function in model.functions.values():
        used.add(function.proto.domain)
        used.update("" if o.domain == "ai.onnx" else o.domain for o in function.proto.opset_import)
    for domain in [d for d in model.opsets if d not in used]:
        edit.drop_import(domain)
