"""The one Rewriter through which every change goes: it numbers them, tells their provenance, and takes them back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from graphopt.change import Application, Change, Judge, Log
from graphopt.graph import Array, ArrayConstant, Constant, Function, Graph, Model, Node, Tensor
from graphopt.graph.copies import tensors_read
from graphopt.graph.edits import Journal
from graphopt.node_types import infer_node
from graphopt.rule import RewriteRefusedError, Rule

# Constant-1 makes floats; from opset 9 on a Constant is of any type.
_EARLY_CONSTANTS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_CONSTANTS_OF_ALL = 9


class Rewriter:
    """The sole mutator of one model.

    `limit` stops after that many applications (bisection); `excluded` holds keys (`rule@place`, or `rule@*`) that must
    not be applied. `judges` see every change before it is accepted.
    """

    def __init__(
        self,
        model: Model,
        *,
        limit: int | None = None,
        excluded: frozenset[str] = frozenset(),
        judges: Sequence[Judge] = (),
    ) -> None:
        self.model = model
        self.limit = limit
        self.excluded = excluded
        self.judges = list(judges)
        self.log = Log()
        self.changes = 0  # applications that changed more than tags
        # nodes to look at again after the last accepted change, for the driver
        self.touched: dict[Node, None] = {}
        self._journal = Journal()
        self._root: Node | None = None
        self._graph: Graph | None = None
        self._consumed: dict[Node, tuple[Tensor | None, ...]] = {}
        self._made: dict[Node, None] = {}
        self._replaced: dict[Tensor, Tensor] = {}
        self._rewired: dict[Node, tuple[Tensor | None, ...]] = {}

    # -- applying ------------------------------------------------------------------------------------------------

    @property
    def exhausted(self) -> bool:
        """Whether the limit on applications is reached."""
        return self.limit is not None and len(self.log.applications) >= self.limit

    def apply(self, rule: Rule[Any], root: Node, action: Callable[[Rewriter], None]) -> Application | None:
        """Runs `action` as one application of `rule` at `root`; None when it was refused or taken back."""
        label = root.label
        if self.exhausted:
            self.log.stopped_at_limit = True
            return None
        if not self.excluded.isdisjoint((f"{rule.name}@{label}", f"{rule.name}@*")):
            self.log.refuse(rule.name, "excluded: its result was wrong", root)
            return None
        self._begin(rule, root)
        try:
            action(self)
        except RewriteRefusedError as refusal:
            self._take_back(rule, root, str(refusal))
            return None
        except BaseException:
            self._journal.roll_back()
            raise
        self._sweep()
        change = self._change(rule, root)
        for judge in self.judges:
            reason = judge(change)
            if reason is not None:
                self._take_back(rule, root, reason)
                return None
        return self._accept(rule, label, change)

    def _begin(self, rule: Rule[Any], root: Node) -> None:
        self._journal = Journal()
        self._root, self._graph = root, root.graph
        self._consumed, self._made, self._replaced, self._rewired = {}, {}, {}, {}
        self.touched = {}

    def _take_back(self, rule: Rule[Any], root: Node, reason: str) -> None:
        self._journal.roll_back()
        self.touched = {}
        self.log.refuse(rule.name, reason, root)

    def _change(self, rule: Rule[Any], root: Node) -> Change:
        made = tuple(n for n in self._made if not n.is_erased)
        gone = {n: outs for n, outs in self._consumed.items() if n not in self._made}
        stayed = {n: inputs for n, inputs in self._rewired.items() if n not in self._made and not n.is_erased}
        return Change(rule, root, tuple(gone), tuple(gone.values()), made, dict(self._replaced), stayed)

    def _accept(self, rule: Rule[Any], label: str, change: Change) -> Application:
        for node in change.made:
            node.origins, node.rule = change.consumed or (change.root,), rule.name
            for tensor in node.inputs:
                if tensor is not None and tensor.producer is not None:
                    self.touched[tensor.producer] = None
            self.touched[node] = None
            for tensor in node.outputs:
                if tensor is not None:
                    self.touched.update(dict.fromkeys(tensor.consumers))
        number = len(self.log.applications) + 1
        application = Application(number, rule.name, label, rule.exactness, change.consumed, change.made)
        self.log.applications.append(application)
        self.changes += not self._journal.is_tags_only
        return application

    # -- what a rule's `rewrite` may do --------------------------------------------------------------------------

    @property
    def graph(self) -> Graph:
        """The graph of the root node: where new nodes go."""
        assert self._graph is not None
        return self._graph

    def node(
        self,
        op: str,
        inputs: Sequence[Tensor | None],
        attrs: dict[str, Any] | None = None,
        *,
        outputs: int = 1,
        domain: str = "",
        name: str = "",
    ) -> Node:
        """A new node behind its inputs, with fresh output tensors whose types are inferred."""
        assert self._root is not None
        graph = self.graph
        node = Node(op, domain, name=name, attrs={k: _single(v) for k, v in (attrs or {}).items()})
        node.inputs = _trimmed(inputs)
        node.position = self._root.position
        stem = self._root.label or op
        node.outputs = tuple(Tensor(self.model.fresh_name(f"{stem}.{op}"), graph) for _ in range(outputs))
        types = infer_node(node, graph.opsets.get(domain, 0), max(self.model.ir_version, 3))
        for tensor, (dtype, shape) in zip(node.outputs, types, strict=True):
            if tensor is not None:
                tensor.dtype, tensor.shape = dtype, shape
        self._journal.attach(node, graph)
        self._made[node] = None
        return node

    def like(self, node: Node, inputs: Sequence[Tensor | None] | None = None, **attrs: Any) -> Node:
        """A new node with `node`'s operator, name and attributes, other `inputs`, and the `attrs` that differ.

        An attribute given as None is left out. Not for nodes with bodies.
        """
        assert not node.bodies
        merged = {k: v for k, v in {**node.attrs, **attrs}.items() if v is not None}
        made = self.node(
            node.op_type,
            node.inputs if inputs is None else inputs,
            merged,
            outputs=len(node.outputs),
            domain=node.domain,
            name=node.name,
        )
        made.position = node.position
        return made

    def constant(self, value: Array | Constant, name: str = "") -> Tensor:
        """A new initializer, in the graph of the root node (a function's body included).

        Raises RewriteRefusedError in functions of an opset before 9: what is not of floats has no Constant node there.
        """
        constant = value if isinstance(value, Constant) else ArrayConstant(np.asarray(value))
        assert self._root is not None
        if constant.dtype not in _EARLY_CONSTANTS and self.graph.opset < _CONSTANTS_OF_ALL and self._is_in_function():
            raise RewriteRefusedError("a function of an opset before 9 can hold constants of floats only")
        tensor = Tensor(self.model.fresh_name(name or f"{self._root.label}.constant"), self.graph)
        tensor.constant, tensor.dtype, tensor.shape = constant, constant.dtype, constant.shape
        self._journal.add_initializer(tensor)
        return tensor

    def _is_in_function(self) -> bool:
        *_, outermost = self.graph.scopes()
        return outermost is not self.model.graph

    def place(self, node: Node) -> Node:
        """Puts a copy that `graphopt.graph.copies` made into the root's graph."""
        self._journal.attach(node, self.graph)
        self._made[node] = None
        for body in node.subgraphs():
            self.touched.update(dict.fromkeys(n for graph in (body, *body.bodies()) for n in graph.nodes))
        return node

    def revisit_owner(self) -> None:
        """Has the driver look again at the node whose body the root is in: rules may see through to this change."""
        if self.graph.parent is not None:
            self.touched[self.graph.parent] = None

    def place_constant(self, tensor: Tensor) -> None:
        """Lists a copy of an initializer, made for the root's graph, among those of it."""
        self._journal.add_initializer(tensor)

    def replace(self, old: Node, new: Node, kept: Sequence[int] | None = None) -> None:
        """Puts `new` in the place of `old`: it takes over the output tensors, names included, and `old` is erased.

        `new` has at least as many outputs as `old`, or as `kept` has, which are the indices of those outputs of `old`
        that it makes. Further outputs of `new` keep their own tensors.
        """
        outputs = old.outputs if kept is None else tuple([old.output(i) for i in kept])
        self._erase(old)
        fresh = new.outputs
        merged = [o if o is not None else f for o, f in zip(outputs, fresh, strict=False)]
        for tensor, spare in zip(outputs, fresh, strict=False):
            if tensor is not None and spare is not None:
                self._refine(tensor, spare)
        self._journal.set_outputs(new, (*merged, *fresh[len(outputs) :]))
        for tensor in outputs:
            if tensor is not None:
                self._replaced.setdefault(tensor, tensor)

    def replace_each(self, olds: Sequence[Node | None], new: Node) -> None:
        """Puts `new` in the place of several nodes of one output each: output i of `new` is the result of `olds[i]`.

        The tensors of `olds` are kept, names included, and `olds` are erased. Where `olds[i]` is None, output i of
        `new` keeps its own tensor.
        """
        kept = tuple(fresh if old is None else old.result for old, fresh in zip(olds, new.outputs, strict=True))
        for old, fresh in zip(olds, new.outputs, strict=True):
            if old is None:
                continue
            self._erase(old)
            self._replaced.setdefault(old.result, old.result)
            if fresh is not None:
                self._refine(old.result, fresh)
        self._journal.set_outputs(new, kept)

    def forward(self, old: Tensor, new: Tensor) -> None:
        """Makes all that reads `old` read `new`; where `old` is a graph output its name goes to `new`.

        The producer of `old` is erased when nothing reads it any more. Check `Facts.can_forward` in `match` first.
        """
        listings = list(old.listings)
        for node in self._journal.redirect(old, new):
            self.touched[node] = None
        if listings:
            name = old.name
            self._journal.rename(old, self.model.fresh_name(f"{name}.replaced"))
            self._journal.rename(new, name)
            for graph, index in listings:
                self._journal.set_graph_output(graph, index, new)
        self._refine(new, old)
        self._replaced[old] = new
        if new.producer is not None:
            self.touched[new.producer] = None
        if old.producer is not None and not any(t is not None and t.is_used for t in old.producer.outputs):
            self._erase(old.producer)

    def set_input(self, node: Node, index: int, tensor: Tensor | None) -> None:
        """Makes one input of `node`, which stays, read another tensor of equal value."""
        old = node.input(index)
        self._rewired.setdefault(node, node.inputs)
        self._journal.set_input(node, index, tensor)
        self.touched[node] = None
        if old is not None and old.producer is not None:
            self._watch(old)

    def drop_output(self, node: Node, index: int) -> None:
        """Makes an output that nothing reads absent; trailing absent outputs disappear."""
        outputs = list(node.outputs)
        outputs[index] = None
        while len(outputs) > 1 and outputs[-1] is None:
            outputs.pop()
        self._journal.set_outputs(node, tuple(outputs))
        self.touched[node] = None

    def erase(self, node: Node) -> None:
        """Takes out a node that nothing reads, and whatever only it read."""
        assert not any(t is not None and t.is_used for t in node.outputs)
        self._erase(node)

    def drop_initializer(self, tensor: Tensor) -> None:
        """Takes out an initializer that nothing reads."""
        assert not tensor.is_used
        self._journal.drop_initializer(tensor)

    def add_function(self, function: Function) -> None:
        """Puts a model-local function into the model; does nothing when one of its name is there."""
        if function.key not in self.model.functions:
            self._journal.add_function(self.model, function)

    def add_import(self, domain: str, version: int) -> None:
        """Imports an operator set, where the model does not yet."""
        if domain not in self.model.opsets:
            self._journal.add_import(self.model, domain, version)

    def drop_function(self, key: tuple[str, str, str]) -> None:
        """Takes out a model-local function that nothing calls."""
        self._journal.drop_function(self.model, key)

    def drop_import(self, domain: str) -> None:
        """Takes out the import of an operator set that no node is of."""
        self._journal.drop_import(self.model, domain)

    def to_initializer(self, node: Node) -> None:
        """Turns a Constant node into an initializer of its graph, under the same name."""
        tensor = node.result
        assert tensor.constant is not None
        self._erase(node)
        self._journal.add_initializer(tensor)
        self._replaced[tensor] = tensor

    def inline(self, owner: Node, body: Graph) -> None:
        """Puts the nodes of `body`, a body of `owner` without inputs, in the place of `owner`.

        Each used output of `owner` becomes an Identity of the body's output; tensors and nodes of the body get other
        names, since other bodies may have the same ones.
        """
        assert not body.inputs
        graph, outputs, place = owner.owner, owner.outputs, owner.label
        results, nodes, constants = list(body.outputs), body.sorted_nodes(), list(body.initializers)
        self._erase(owner)
        for tensor in constants:
            self._journal.adopt_initializer(tensor, graph)
        for node in nodes:
            self._journal.adopt(node, graph, owner.position)
            self.touched[node] = None
            if node.name:
                self._journal.rename_node(node, f"{place}/{node.name}")
        for tensor in (*constants, *(t for n in nodes for t in n.outputs if t is not None)):
            self._journal.rename(tensor, self.model.fresh_name(tensor.name))
        for old, new in zip(outputs, results, strict=False):
            if old is not None and old.is_used:
                self.forward(old, self.node("Identity", [new]).result)

    def tag(self, node: Node, key: str, value: str) -> None:
        """Adds an entry to the node's `metadata_props`."""
        self._journal.set_metadata(node, key, value)

    def set_type(self, tensor: Tensor, dtype: int | None, shape: tuple[int | str | None, ...] | None) -> None:
        """Notes what the rule knows of a tensor's type and inference could not tell."""
        self._journal.set_type(tensor, dtype, shape)

    # -- inside --------------------------------------------------------------------------------------------------

    def _refine(self, kept: Tensor, other: Tensor) -> None:
        """Equal values: what is known of one type is known of the other.

        What is known of a shape in a body holds where the body runs: it is not carried to another graph.
        """
        dtype = kept.dtype if kept.dtype is not None else other.dtype
        shape = kept.shape
        known = other.shape if kept.graph is other.graph else None
        if shape is None:
            shape = known
        elif known is not None and len(known) == len(shape):
            shape = tuple(o if isinstance(o, int) or d is None else d for d, o in zip(shape, known, strict=True))
        if (dtype, shape) != (kept.dtype, kept.shape):
            self._journal.set_type(kept, dtype, shape)

    def _erase(self, node: Node) -> None:
        self._consumed.setdefault(node, node.outputs)
        self._journal.detach(node)
        for tensor in tensors_read(node):
            self._watch(tensor)

    def _watch(self, tensor: Tensor) -> None:
        """A reader of `tensor` went: its producer, and a reader that is now the only one, deserve another look."""
        if tensor.producer is not None:
            self.touched[tensor.producer] = None
        if len(tensor.consumers) == 1:
            self.touched.update(dict.fromkeys(tensor.consumers))

    def _sweep(self) -> None:
        """Erases what this application left unread: nodes, then initializers, upwards."""
        stack = [*self._consumed, *self._made]
        while stack:
            node = stack.pop()
            if node in self._made and not node.is_erased and not any(t is not None and t.is_used for t in node.outputs):
                self._erase(node)
            if not node.is_erased:
                continue
            for tensor in tensors_read(node):
                if tensor.is_used:
                    continue
                producer = tensor.producer
                if producer is not None and producer.is_erased:
                    continue  # it went with the node whose body holds it
                if producer is not None and not any(t is not None and t.is_used for t in producer.outputs):
                    self._erase(producer)
                    stack.append(producer)
                elif tensor in tensor.graph.initializers:
                    self._journal.drop_initializer(tensor)


def _single(value: Any) -> Any:
    """An attribute as the file will hold it, floats in single precision, so that equal nodes are seen to be equal."""
    return float(np.float32(value)) if isinstance(value, float) else value


def _trimmed(inputs: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    """Without trailing absent inputs."""
    kept = list(inputs)
    while kept and kept[-1] is None:
        kept.pop()
    return tuple(kept)
