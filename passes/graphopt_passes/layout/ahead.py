"""Whether moving a Transpose leads anywhere: to another Transpose, to less data, or out of the way of a fusion."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.targets import Target
from graphopt_passes.common.pointwise import BROADCASTING, UNARY
from graphopt_passes.layout.reductions import REDUCTIONS

# So many nodes are looked at for one Transpose.
MOST_AHEAD = 32
# Operators below which a Transpose sinks, leaving its number as it is.
_PASSED = (
    UNARY
    | BROADCASTING
    | {"Concat", "DequantizeLinear", "Hardmax", "LogSoftmax", "Pad", "QuantizeLinear", "Softmax", "Split", "Tile"}
)
# Behind these there is less to transpose.
_SMALLER = frozenset({*REDUCTIONS, "ArgMax", "ArgMin", "Slice"})
# What takes an element-wise operator into its weights, or composes with one, when no Transpose is between.
_TAKES_IN = UNARY | BROADCASTING | {"BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul"}


def may_move(node: Node, sources: list[Tensor], facts: Facts) -> bool:
    """Whether the one Transpose before `node`, an operator element by element, may go behind it.

    For ONNX Runtime only towards something: the product behind a scale takes a Transpose in, or the scale, where they
    stand next to it in this order (ViT-tiny on an H200: 1.03 of the time with the Transposes moved). TensorRT puts a
    scale into the kernel of what makes its input, when no Transpose is between (ViT-tiny: 185 kernels, 209 without).
    """
    return facts.target is not Target.ONNXRUNTIME or frees(node, sources) or leads_on(node, facts)


def frees(node: Node, sources: list[Tensor]) -> bool:
    """Whether `node`, behind Transposes of `sources`, meets an operator without them that may take it in.

    A Cast is always better off above: it meets other Casts there, and equal ones of the same tensor.
    """
    return node.op == "Cast" or any(t.producer is not None and t.producer.op in _TAKES_IN for t in sources)


def leads_on(node: Node, facts: Facts) -> bool:
    """Whether a Transpose behind `node` may sink until it meets another, or what it transposes gets smaller.

    May: whether all operators on the way let it pass is seen when it comes to them.
    """
    seen: set[Node] = set()
    stack = [t for t in node.outputs if t is not None]
    while stack:
        tensor = stack.pop()
        for reader in tensor.consumers:
            if reader in seen or reader.graph is not tensor.graph:
                continue
            if reader.op == "Transpose" or reader.op in _SMALLER or _joins(reader, tensor, facts):
                return True
            seen.add(reader)
            if len(seen) > MOST_AHEAD:
                return False
            if reader.op in _PASSED or (reader.op == "MatMul" and facts.rank(reader.input(1)) == 2):
                stack += [t for t in reader.outputs if t is not None]
    return False


def _joins(node: Node, tensor: Tensor, facts: Facts) -> bool:
    """Whether another input of `node` may come to be transposed too, so that one Transpose does for both."""
    if node.op not in BROADCASTING and node.op not in ("Concat", "MatMul"):
        return False
    others = [t for t in node.inputs if t is not None and t is not tensor and t.constant is None]
    made = [facts.producer(t, "Transpose", *(_PASSED if node.op != "MatMul" else ())) for t in others]
    return any(m is not None for m in made)
