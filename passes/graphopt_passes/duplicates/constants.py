"""Constants of equal content: one is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from graphopt.facts import SMALL_BYTES, Facts
from graphopt.graph import Constant, FileConstant, Graph, LazyConstant, Node, ProtoConstant, SparseConstant, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import ANY, NoMatch, Rule


class ConstantIndex:
    """The constants seen so far by content, one for each graph.

    A content is read only when another constant has its dtype and shape, and of large ones the same sample.
    """

    def __init__(self) -> None:
        # the one constant of a kind: its content is read when there is another, then None
        self._alone: dict[Hashable, Tensor | None] = {}
        self._by_content: dict[Hashable, dict[Graph, Tensor]] = {}
        self._contents: dict[Constant, Hashable] = {}
        self._updated: set[Tensor] = set()

    def equal_to(self, tensor: Tensor, facts: Facts) -> Tensor | None:
        """A constant of equal content that `tensor`'s graph sees, not `tensor` itself; else notes `tensor`.

        Neither of the two is what a norm that trains reads.
        """
        constant = tensor.constant
        assert constant is not None
        kind = (constant.dtype, constant.shape, constant.sample() if isinstance(constant, FileConstant) else b"")
        first = self._alone.setdefault(kind, tensor)
        if first is tensor:
            return None
        if first is not None:
            self._alone[kind] = None
            self._note(first, facts)
        return self._note(tensor, facts)

    def _note(self, tensor: Tensor, facts: Facts) -> Tensor | None:
        content = self._content(tensor)
        if content is None:
            return None
        known = self._by_content.setdefault(content, {})
        # Outer graphs are looked at even for what was noted: a rewrite may have made a constant there since.
        around = (known.get(graph) for graph in tensor.graph.scopes())
        other = next((t for t in around if t is not None and t is not tensor and self._still_is(t, content)), None)
        if known.get(tensor.graph) is tensor and other is None:
            return None
        # Asked once of a constant that is noted or goes, since a weight may have thousands of readers.
        if self._is_updated(tensor, facts):
            return None
        if other is None:
            known[tensor.graph] = tensor
        return other

    def _still_is(self, tensor: Tensor, content: Hashable) -> bool:
        """Whether the tensor is still made (an initializer, or a Constant node's result), and of this content."""
        is_there = tensor in tensor.graph.initializers or tensor.producer is not None
        return is_there and self._content(tensor) == content

    def _is_updated(self, tensor: Tensor, facts: Facts) -> bool:
        """Whether a BatchNormalization that trains reads it."""
        if tensor not in self._updated and any(trains(reader, facts) for reader in tensor.consumers):
            self._updated.add(tensor)
        return tensor in self._updated

    def _content(self, tensor: Tensor) -> Hashable | None:
        constant = tensor.constant
        if constant is None:
            return None
        if constant not in self._contents:
            self._contents[constant] = content_of(constant)
        return self._contents[constant]


def trains(node: Node, facts: Facts) -> bool:
    """Whether the node is a BatchNormalization whose statistics a runtime may update in place."""
    return node.op == "BatchNormalization" and not facts.is_inference(node)


def content_of(constant: Constant) -> Hashable | None:
    """What equal constants have in common, bit for bit; None when that cannot be told without reading a big file.

    Small constants and those in the model's protobuf: a digest of their bytes. External ones: their place in the file.
    A large constant that a rewrite will compute is equal to none.
    """
    kind = (constant.dtype, constant.shape)
    if isinstance(constant, SparseConstant):
        return None
    if constant.nbytes > SMALL_BYTES:
        if isinstance(constant, LazyConstant):
            return None
        if isinstance(constant, ProtoConstant) and constant.is_external:
            entries = {entry.key: entry.value for entry in constant.proto.external_data}
            return (*kind, entries.get("location"), entries.get("offset", "0"))
    if constant.dtype == TensorProto.STRING:
        return (*kind, tuple(str(s) if isinstance(s, str) else bytes(s) for s in constant.array().reshape(-1)))
    data = np.ascontiguousarray(constant.array())
    return (*kind, hashlib.blake2b(data.tobytes(), digest_size=32).digest())


@dataclass(frozen=True)
class EqualConstants:
    """Pairs of a constant and the equal one that its readers may read."""

    node: Node
    pairs: tuple[tuple[Tensor, Tensor], ...]


class ShareEqualConstants(Rule[EqualConstants]):
    """Constants of the same dtype, shape and bits are one; a body's constant may be an outer graph's.

    Not where the duplicate is a graph output, and not what a BatchNormalization that trains reads (ONNX Runtime writes
    running statistics over the ones it is given, and mixes them up when they are one tensor). Large external weights
    are compared by their place in the file, and not read. −0.0 is not 0.0. Exact.
    """

    roots = (ANY,)

    def match(self, node: Node, facts: Facts) -> EqualConstants | NoMatch:
        if trains(node, facts):
            return NoMatch("it trains: runtimes update its statistics in place", node)
        index = facts.shared(ConstantIndex)
        pairs: dict[Tensor, Tensor] = {}
        for tensor in node.inputs:
            if tensor is None or tensor.constant is None or tensor.is_output:
                continue
            other = index.equal_to(tensor, facts)
            if other is not None and facts.can_forward(tensor, other):
                pairs[tensor] = other
        if not pairs:
            return NoMatch("no other constant equals one that it reads", node)
        return EqualConstants(node, tuple(pairs.items()))

    def rewrite(self, found: EqualConstants, edit: Rewriter) -> None:
        for tensor, other in found.pairs:
            edit.forward(tensor, other)
            # a quantization annotation may name it: what none names goes at the end
            if tensor in tensor.graph.initializers and not tensor.graph.proto.quantization_annotation:
                edit.drop_initializer(tensor)
