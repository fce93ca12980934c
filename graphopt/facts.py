"""Facts: what is surely known of the graph. Every question is answered pessimistically: unknown means no.

These are the guards that rules are written with. Nothing here changes the graph.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from graphopt.graph import Array, Constant, Graph, Model, Node, Tensor
from graphopt.targets import Target

# Guards that need values (an axis, a pad, a scalar) read constants up to this size; weights are read by rewrites only.
SMALL_BYTES = 1 << 16


Index = TypeVar("Index")


class Facts:
    """Questions about one model; the answers are on its tensors, noted by `graphopt.inference`."""

    def __init__(self, model: Model, target: Target = Target.TENSORRT) -> None:
        self.model = model
        self.target = target
        self._shared: dict[type[Any], Any] = {}

    def shared(self, kind: type[Index]) -> Index:
        """The one object of `kind` for this model, made when first asked for.

        For indexes that rules build once instead of scanning a fan at each of its consumers. What an index remembers
        must be checked against the graph when it is used: the graph changes without telling it.
        """
        if kind not in self._shared:
            self._shared[kind] = kind()
        found: Index = self._shared[kind]
        return found

    def opset(self, node: Node) -> int:
        """The version of `node`'s operator set where it stands (a function may import another than the model)."""
        graph = node.graph
        assert graph is not None
        return graph.opsets.get(node.domain, 0)

    def constant(self, tensor: Tensor | None) -> Constant | None:
        """The tensor's constant, its values not read; None when it is computed, overridable or absent."""
        return tensor.constant if tensor is not None else None

    def is_constant(self, tensor: Tensor | None) -> bool:
        """Whether the tensor's values are known and no caller can override them."""
        return tensor is not None and tensor.constant is not None

    def value(self, tensor: Tensor | None) -> Array | None:
        """The values of a *small* constant (an axis, a shape, a scalar); None when unknown or above `SMALL_BYTES`."""
        if tensor is None or tensor.constant is None or tensor.constant.nbytes > SMALL_BYTES:
            return None
        return tensor.constant.array()

    def ints(self, tensor: Tensor | None) -> tuple[int, ...] | None:
        """The values of a small constant of integers, flattened."""
        value = self.value(tensor)
        return None if value is None or value.dtype.kind not in "iu" else tuple(int(v) for v in value.reshape(-1))

    def scalar(self, tensor: Tensor | None) -> float | int | bool | None:
        """The one value of a constant with exactly one element, whatever its rank."""
        value = self.value(tensor)
        return (
            value.reshape(-1)[0].item() if value is not None and value.size == 1 and value.dtype.kind != "O" else None
        )

    def rank(self, tensor: Tensor | None) -> int | None:
        """The number of dimensions."""
        return len(tensor.shape) if tensor is not None and tensor.shape is not None else None

    def static_shape(self, tensor: Tensor | None) -> tuple[int, ...] | None:
        """The shape when every dimension is a known number."""
        if tensor is None or tensor.shape is None:
            return None
        dims = tuple(d for d in tensor.shape if isinstance(d, int))
        return dims if len(dims) == len(tensor.shape) else None

    def size(self, tensor: Tensor | None) -> int | None:
        """The number of elements when the shape is static."""
        shape = self.static_shape(tensor)
        return None if shape is None else math.prod(shape)

    def same_shape(self, a: Tensor | None, b: Tensor | None) -> bool:
        """Whether both shapes are surely equal: equal numbers, or equal symbols."""
        if a is None or b is None or a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
            return False
        return all(x == y and x is not None for x, y in zip(a.shape, b.shape, strict=True))

    def same_type(self, a: Tensor | None, b: Tensor | None) -> bool:
        """Whether both have the same known dtype."""
        return a is not None and b is not None and a.dtype is not None and a.dtype == b.dtype

    def producer(self, tensor: Tensor | None, *ops: str) -> Node | None:
        """The node that makes `tensor`, when it is one of `ops`."""
        node = tensor.producer if tensor is not None else None
        return node if node is not None and node.op in ops else None

    def sole_producer(self, tensor: Tensor | None, *ops: str) -> Node | None:
        """The node that makes `tensor`, one of `ops`, when one node input alone reads the tensor, in the same graph."""
        if tensor is None or len(tensor.consumers) != 1:  # written out: no other question is asked as often
            return None
        node = tensor.producer
        if node is None or node.op not in ops or tensor.listings:
            return None
        ((consumer, times),) = tensor.consumers.items()
        return node if times == 1 and consumer.graph is node.graph else None

    def sole_consumer(self, tensor: Tensor | None, *ops: str) -> Node | None:
        """The only reader of `tensor`, one of `ops`, in the graph that makes the tensor."""
        node = tensor.sole_consumer if tensor is not None else None
        if node is None or tensor is None or node.op not in ops or node.graph is not tensor.graph:
            return None
        return node

    def is_inference(self, norm: Node) -> bool:
        """Whether a BatchNormalization uses its stored statistics, by the rules of its opset (1, 6, 7, 9, 14, 15)."""
        if any(t is not None for t in norm.outputs[1:]):
            return False  # before 14 further outputs mean training; from 14 on they exist only in training
        opset = self.opset(norm)
        if opset >= 14:
            return norm.int_attr("training_mode", 0) == 0
        if opset >= 7:
            return True
        return norm.int_attr("is_test", 0) == 1

    def visible(self, tensor: Tensor, graph: Graph) -> bool:
        """Whether nodes of `graph` may read `tensor`: it is of this graph or of one around it."""
        return graph.is_inside(tensor.graph)

    def can_forward(self, old: Tensor, new: Tensor) -> bool:
        """Whether all that reads `old` may read `new` instead, with every graph output keeping its name.

        Where `old` is a graph output, its name must go to `new`: so `new` must be made by a node of the same graph and
        be no output, no input and no constant itself.
        """
        if not old.is_output:
            return self.visible(new, old.graph)
        made_here = new.graph is old.graph and new.producer is not None and new.constant is None
        return made_here and not new.is_output and not new.is_input
