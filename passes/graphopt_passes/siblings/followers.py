"""Equal operators behind siblings: they sink through the merge and are done once, on all channels.

f(a) and f(b) side by side = f(a and b side by side) for a point-wise f, its constants per channel side by side too.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt_passes.siblings.channels import Assemble, Axis, is_per_channel, join_channels, join_vectors

# point-wise in their first input; further inputs are single numbers
POINTWISE = (
    *("Abs", "Cast", "Celu", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish"),
    *("Neg", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"),
    *("QuantizeLinear", "DequantizeLinear"),
)
AFFINE = ("Add", "Sub", "Mul", "Div", "PRelu")
NORM = "BatchNormalization"


@dataclass(frozen=True)
class Follower:
    """One operator (or Sigmoid and Mul together) behind a branch; equal `key`s make it the same for all branches.

    `operand` is the input of the last node that the branch's tensor enters; `constants` are its other inputs when they
    hold numbers per channel.
    """

    nodes: tuple[Node, ...]
    key: Hashable
    operand: int = 0
    constants: tuple[Tensor, ...] = ()

    @property
    def result(self) -> Tensor:
        """What the branch's tensor has become."""
        return self.nodes[-1].result


def follower(tensor: Tensor, width: int, axis: Axis, facts: Facts) -> Follower | None:
    """The operator behind `tensor` (of `width` channels on `axis`) that could sink, else None."""
    node = facts.sole_consumer(tensor, *POINTWISE, *AFFINE, NORM)
    if node is None:
        return _gate(tensor, facts)
    if len([t for t in node.outputs if t is not None]) != 1 or node.outputs[0] is None:
        return None
    if node.op in POINTWISE:
        return _pointwise(node, tensor, facts)
    if node.op in AFFINE:
        return _affine(node, tensor, width, axis, facts)
    return _norm(node, tensor, width, axis, facts)


def _attributes(node: Node) -> Hashable | None:
    """The attributes as a value that can be compared; None when one is more than numbers and text."""
    if any(not isinstance(v, (int, float, str, bytes, tuple)) for v in node.attrs.values()):
        return None
    return (node.op, tuple(sorted(node.attrs.items())))


def _pointwise(node: Node, tensor: Tensor, facts: Facts) -> Follower | None:
    attributes = _attributes(node)
    if node.input(0) is not tensor or attributes is None or node.int_attr("block_size", 0):
        return None  # a scale for each block is one number only where there is one block
    extras: list[Hashable] = []
    for extra in node.inputs[1:]:
        constant = facts.constant(extra)
        if extra is None:
            extras.append(None)
        elif constant is None or constant.size != 1:
            return None
        else:
            extras.append((constant.dtype, constant.array().tobytes()))
    return Follower((node,), (attributes, tuple(extras)))


def _affine(node: Node, tensor: Tensor, width: int, axis: Axis, facts: Facts) -> Follower | None:
    attributes = _attributes(node)
    if attributes is None or len(node.inputs) != 2 or facts.opset(node) < 7:  # before 7 constants broadcast otherwise
        return None
    operand = 0 if node.input(0) is tensor else 1
    other = node.input(1 - operand)
    if other is None or not is_per_channel(other, width, axis, facts) or (node.op == "PRelu" and operand):
        return None
    place = None if node.op in ("Add", "Mul") else operand
    return Follower((node,), (attributes, place), operand, (other,))


def _norm(node: Node, tensor: Tensor, width: int, axis: Axis, facts: Facts) -> Follower | None:
    attributes = _attributes(node)
    if node.input(0) is not tensor or attributes is None or axis.index != 1 or not facts.is_inference(node):
        return None
    constants = [t for t in node.inputs[1:5] if t is not None]
    shapes = [c.shape for t in constants if (c := facts.constant(t)) is not None]
    if len(constants) != 4 or shapes != [(width,)] * 4 or len(node.inputs) != 5:
        return None
    dtypes = tuple(t.dtype for t in constants)
    return Follower((node,), (attributes, dtypes), 0, tuple(constants))


def _gate(tensor: Tensor, facts: Facts) -> Follower | None:
    """x·sigmoid(x): the tensor is read by a Sigmoid and by the Mul that reads both."""
    if tensor.is_output or len(tensor.consumers) != 2 or any(times != 1 for times in tensor.consumers.values()):
        return None
    by_op = {n.op: n for n in tensor.consumers if n.graph is tensor.graph}
    gate, product = by_op.get("Sigmoid"), by_op.get("Mul")
    if gate is None or product is None or facts.sole_consumer(gate.output(0), "Mul") is not product:
        return None
    return Follower((gate, product), ("SiLU", _attributes(product)))


def join_followers(
    followers: Sequence[Follower],
    tensor: Tensor,
    widths: Sequence[int],
    axis: Axis,
    facts: Facts,
    edit: Rewriter,
    assemble: Assemble,
) -> Node:
    """One operator on `tensor`, which holds all channels, in place of the equal `followers`; returns the last node."""
    first = followers[0]
    last = first.nodes[-1]
    if len(first.nodes) == 2:
        gate = edit.like(first.nodes[0], [tensor])
        return edit.like(last, [tensor, gate.result])
    if not first.constants:
        return edit.like(last, [tensor, *last.inputs[1:]])
    columns = [[f.constants[i] for f in followers] for i in range(len(first.constants))]
    if last.op == NORM:
        return edit.like(last, [tensor, *(join_vectors(c, widths, edit, assemble) for c in columns)])
    joined = join_channels(columns[0], widths, axis, facts, edit, assemble)
    return edit.like(last, [tensor, joined] if first.operand == 0 else [joined, tensor])
