"""The primitives that change a graph, each with its undoing: nothing else links or unlinks.

A `Journal` collects the undoings of one rewrite, so that a rewrite that fails half-way, loses by the cost model or is
proved wrong can be taken back whole. All primitives are O(size of the node), never O(consumers of a tensor), except
`redirect`, which visits the consumers that it moves.
"""

from __future__ import annotations

from collections.abc import Callable

from graphopt.graph.graph import Function, Graph, Model
from graphopt.graph.node import Node, Tensor


class Journal:
    """What was changed since it was opened, newest last."""

    __slots__ = ("_tags", "_undo")

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._tags = 0

    @property
    def is_tags_only(self) -> bool:
        """Whether nothing was changed but what is noted beside nodes."""
        return len(self._undo) == self._tags

    def __len__(self) -> int:
        return len(self._undo)

    def roll_back(self) -> None:
        """Takes every change back, the newest first."""
        while self._undo:
            self._undo.pop()()

    def attach(self, node: Node, graph: Graph) -> None:
        """Puts `node`, its inputs and outputs set, into `graph`."""
        _link(node, graph)
        self._undo.append(lambda: _unlink(node))

    def detach(self, node: Node) -> None:
        """Takes `node` out of its graph; what it made has no producer any more."""
        graph = node.owner
        _unlink(node)
        self._undo.append(lambda: _link(node, graph))

    def set_input(self, node: Node, index: int, tensor: Tensor | None) -> None:
        """Makes input `index` of `node` read `tensor`."""
        old = node.inputs
        new = (*old[:index], tensor, *old[index + 1 :])
        _set_inputs(node, new)
        self._undo.append(lambda: _set_inputs(node, old))

    def set_outputs(self, node: Node, outputs: tuple[Tensor | None, ...]) -> None:
        """Makes `node`, which is in a graph, the producer of `outputs`."""
        old = node.outputs
        _set_outputs(node, outputs)
        self._undo.append(lambda: _set_outputs(node, old))

    def redirect(self, old: Tensor, new: Tensor) -> list[Node]:
        """Makes every node that reads `old` read `new`; returns these nodes."""
        moved = list(old.consumers)
        for node in moved:
            before = node.inputs
            _exchange(node, old, new)
            self._undo.append(lambda node=node, before=before: _set_inputs(node, before))  # type: ignore[misc]
        return moved

    def set_graph_output(self, graph: Graph, index: int, tensor: Tensor) -> None:
        """Makes output `index` of `graph` be `tensor`."""
        old = graph.outputs[index]
        _set_graph_output(graph, index, tensor)
        self._undo.append(lambda: _set_graph_output(graph, index, old))

    def rename(self, tensor: Tensor, name: str) -> None:
        """Gives `tensor` another name; the caller knows that it is free."""
        old = tensor.name
        tensor.name = name
        self._undo.append(lambda: setattr(tensor, "name", old))

    def rename_node(self, node: Node, name: str) -> None:
        """Gives `node` another name."""
        old = node.name
        node.name = name
        self._undo.append(lambda: setattr(node, "name", old))

    def add_initializer(self, tensor: Tensor) -> None:
        """Lists the constant `tensor` among its graph's initializers."""
        initializers = tensor.graph.initializers
        initializers[tensor] = None
        self._undo.append(lambda: initializers.pop(tensor, None))

    def drop_initializer(self, tensor: Tensor) -> None:
        """Takes `tensor` off its graph's initializers."""
        initializers = tensor.graph.initializers
        del initializers[tensor]
        self._undo.append(lambda: initializers.__setitem__(tensor, None))

    def adopt(self, node: Node, graph: Graph, position: int) -> None:
        """Moves `node` out of a body whose owner is detached into `graph`, with the tensors that it makes."""
        body, rank = node.owner, node.position
        node.position = position
        _link(node, graph)

        def undo() -> None:
            _unlink(node)
            node.graph, node.position = body, rank
            for tensor in node.outputs:
                if tensor is not None:
                    tensor.producer, tensor.graph = node, body

        self._undo.append(undo)

    def adopt_initializer(self, tensor: Tensor, graph: Graph) -> None:
        """Lists an initializer of a body whose owner is detached among those of `graph`."""
        body = tensor.graph
        tensor.graph = graph
        graph.initializers[tensor] = None

        def undo() -> None:
            del graph.initializers[tensor]
            tensor.graph = body

        self._undo.append(undo)

    def add_function(self, model: Model, function: Function) -> None:
        """Puts a model-local function into the model."""
        model.functions[function.key] = function
        self._undo.append(lambda: model.functions.__delitem__(function.key))

    def add_import(self, model: Model, domain: str, version: int) -> None:
        """Imports an operator set that the model does not import yet."""
        model.opsets[domain] = version
        self._undo.append(lambda: model.opsets.__delitem__(domain))

    def drop_function(self, model: Model, key: tuple[str, str, str]) -> None:
        """Takes a model-local function out of the model."""
        function = model.functions.pop(key)
        self._undo.append(lambda: model.functions.__setitem__(key, function))

    def drop_import(self, model: Model, domain: str) -> None:
        """Takes an operator set out of the model's imports."""
        version = model.opsets.pop(domain)
        self._undo.append(lambda: model.opsets.__setitem__(domain, version))

    def set_type(self, tensor: Tensor, dtype: int | None, shape: tuple[int | str | None, ...] | None) -> None:
        """Notes what became known of a tensor's type."""
        old = (tensor.dtype, tensor.shape)
        tensor.dtype, tensor.shape = dtype, shape

        def undo() -> None:
            tensor.dtype, tensor.shape = old

        self._undo.append(undo)

    def set_metadata(self, node: Node, key: str, value: str) -> None:
        """Adds an entry to the node's metadata."""
        old = node.metadata
        node.metadata = {**old, key: value}
        self._tags += 1
        self._undo.append(lambda: setattr(node, "metadata", old))


def _link(node: Node, graph: Graph) -> None:
    node.graph = graph
    graph.nodes[node] = None
    if node.bodies:
        graph.holders[node] = None
    graph.forget_order()
    _read(node)
    for tensor in node.outputs:
        if tensor is not None:
            tensor.producer = node
            tensor.graph = graph


def _unlink(node: Node) -> None:
    graph = node.owner
    del graph.nodes[node]
    graph.holders.pop(node, None)
    graph.forget_order()
    node.graph = None
    _forget(node)
    for tensor in node.outputs:
        if tensor is not None and tensor.producer is node:
            tensor.producer = None


def _hold(node: Node) -> None:
    for tensor in node.inputs:
        if tensor is not None:
            tensor.consumers[node] = tensor.consumers.get(node, 0) + 1


def _release(node: Node) -> None:
    for tensor in node.inputs:
        if tensor is not None:
            times = tensor.consumers[node]
            if times == 1:
                del tensor.consumers[node]
            else:
                tensor.consumers[node] = times - 1


def _read(node: Node) -> None:
    """Counts the node, and all nodes of its bodies, among the consumers of what they read."""
    _hold(node)
    for body in node.subgraphs():
        for index, tensor in enumerate(body.outputs):
            tensor.listings[body, index] = None
        for inner in body.nodes:
            _read(inner)


def _forget(node: Node) -> None:
    _release(node)
    for body in node.subgraphs():
        for index, tensor in enumerate(body.outputs):
            del tensor.listings[body, index]
        for inner in body.nodes:
            _forget(inner)


def _exchange(node: Node, old: Tensor, new: Tensor) -> None:
    """Makes `node` read `new` where it read `old`. Its other inputs are not looked at: it may have thousands."""
    times = old.consumers.pop(node)
    new.consumers[node] = new.consumers.get(node, 0) + times
    inputs, at = list(node.inputs), -1
    for _ in range(times):
        at = inputs.index(old, at + 1)
        inputs[at] = new
    node.inputs = tuple(inputs)
    if node.graph is not None:
        node.graph.forget_order()


def _set_inputs(node: Node, inputs: tuple[Tensor | None, ...]) -> None:
    _release(node)
    node.inputs = inputs
    _hold(node)
    if node.graph is not None:
        node.graph.forget_order()


def _set_outputs(node: Node, outputs: tuple[Tensor | None, ...]) -> None:
    for tensor in node.outputs:
        if tensor is not None and tensor.producer is node:
            tensor.producer = None
    node.outputs = outputs
    for tensor in outputs:
        if tensor is not None:
            tensor.producer = node
            tensor.graph = node.owner
    node.owner.forget_order()


def _set_graph_output(graph: Graph, index: int, tensor: Tensor) -> None:
    del graph.outputs[index].listings[graph, index]
    graph.outputs[index] = tensor
    tensor.listings[graph, index] = None
    graph.forget_order()
