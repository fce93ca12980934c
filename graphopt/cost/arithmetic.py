"""Floating-point operations of one node, from the shapes of its tensors: a multiply and an add count two.

Products of matrices are described by their sizes, since how well a device does them depends on these; all other
operators count a few operations an element. Sizes of operators are in the ONNX operator specification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphopt.cost.setting import Setting
from graphopt.graph import Node, Tensor

CONVS = frozenset({"Conv", "ConvInteger", "QLinearConv", "com.microsoft::FusedConv"})
MATMULS = frozenset({"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "com.microsoft::FusedMatMul"})
FUSED_ATTENTION = frozenset({"com.microsoft::Attention", "com.microsoft::MultiHeadAttention"})
RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}

# operations an element of the output; what is not listed here or below counts one
PER_OUTPUT = {
    "BatchNormalization": 2,
    "Elu": 6,
    "Erf": 10,
    "Exp": 5,
    "Gelu": 12,
    "HardSigmoid": 3,
    "HardSwish": 4,
    "Log": 5,
    "LogSoftmax": 6,
    "Mish": 14,
    "Pow": 5,
    "Sigmoid": 6,
    "Softmax": 6,
    "Softplus": 8,
    "Sqrt": 2,
    "Tanh": 8,
    "Resize": 8,
    "GridSample": 12,
}
# operations an element of the first input
PER_INPUT = {
    "GlobalAveragePool": 1,
    "GlobalMaxPool": 1,
    "GroupNormalization": 8,
    "InstanceNormalization": 8,
    "LayerNormalization": 8,
    "LpNormalization": 3,
    "LRN": 10,
    "MeanVarianceNormalization": 7,
    "RMSNormalization": 6,
}
# nothing is computed and nothing moves: another view of the same bytes, or a value known beforehand
FREE = frozenset(
    {
        "Constant",
        "ConstantOfShape",
        "Dropout",
        "Flatten",
        "Identity",
        "Optional",
        "Reshape",
        "Shape",
        "Size",
        "Squeeze",
        "Unsqueeze",
    }
)
# bytes move, nothing is computed
MOVES = frozenset(
    {
        "Cast",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Gather",
        "GatherElements",
        "GatherND",
        "Pad",
        "ScatterElements",
        "ScatterND",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Tile",
        "Transpose",
    }
)


# What convolutions of wide groups reach, in ONNX Runtime on a GPU, of the rate of ungrouped ones. Fitted to an H200:
# three Convs of two groups in the place of six took 1.05 to 1.07 (NCHW) and 1.28 to 1.33 (NHWC) of the time of AlexNet,
# where those of 32 groups in ResNeXt gained.
GROUPED_SHARE = 0.03


@dataclass(frozen=True)
class Product:
    """`count` products of [rows, inner] by [inner, columns], at `share` of the rate that a matrix product reaches."""

    count: int
    rows: int
    columns: int
    inner: int
    share: float = 1.0

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        return 2.0 * self.count * self.rows * self.columns * self.inner


def products(node: Node, outputs: tuple[Tensor | None, ...], setting: Setting) -> tuple[Product, ...]:
    """The matrix products that `node`, computing `outputs`, comes down to; none when sizes are unknown."""
    out = setting.dims(outputs[0] if outputs else None)
    if out is None:
        return ()
    if node.op in CONVS:
        return _conv(node, out, setting)
    if node.op == "ConvTranspose":
        return _conv_transpose(node, setting)
    if node.op in MATMULS:
        return _matmul(node, out, setting)
    if node.op in RECURRENT:
        return _recurrent(node, setting)
    if node.op == "Attention":
        return _attention(node, out, setting)
    if node.op in FUSED_ATTENTION:
        return _fused_attention(node, out, setting)
    return ()


def _conv(node: Node, out: tuple[int, ...], setting: Setting) -> tuple[Product, ...]:
    weight = setting.dims(node.input(3 if node.op == "QLinearConv" else 1))
    if weight is None or len(weight) < 3 or len(out) != len(weight):
        return ()
    group = max(1, node.int_attr("group", 1))
    rows = out[0] * math.prod(out[2:])
    is_slow = group > 1 and weight[1] > 1 and not (setting.is_tensorrt or setting.device.is_cpu)
    share = GROUPED_SHARE if is_slow else 1.0  # depthwise convolutions have kernels of their own
    return (Product(group, rows, max(1, weight[0] // group), math.prod(weight[1:]), share),)


def _conv_transpose(node: Node, setting: Setting) -> tuple[Product, ...]:
    data, weight = setting.dims(node.input(0)), setting.dims(node.input(1))
    if data is None or weight is None or len(weight) < 3 or len(data) != len(weight):
        return ()
    group = max(1, node.int_attr("group", 1))
    rows = data[0] * math.prod(data[2:])
    return (Product(group, rows, math.prod(weight[1:]), max(1, weight[0] // group)),)


def _matmul(node: Node, out: tuple[int, ...], setting: Setting) -> tuple[Product, ...]:
    a = setting.dims(node.input(0))
    b = setting.dims(node.input(3 if node.op == "QLinearMatMul" else 1))
    if not a or not b or not out:
        return ()
    inner = a[0] if node.op == "Gemm" and node.int_attr("transA", 0) else a[-1]
    columns = out[-1] if len(b) > 1 else 1
    if len(b) <= 2:  # one matrix for all rows
        return (Product(1, math.prod(out) // max(1, columns), columns, inner),)
    rows = out[-2] if len(out) > 1 and len(a) > 1 else 1
    return (Product(math.prod(out) // max(1, rows * columns), rows, columns, inner),)


def _recurrent(node: Node, setting: Setting) -> tuple[Product, ...]:
    data, weight, recurrence = (setting.dims(node.input(i)) for i in range(3))
    if data is None or weight is None or recurrence is None or len(data) != 3 or len(recurrence) != 3:
        return ()
    steps, batch = (data[1], data[0]) if node.int_attr("layout", 0) else (data[0], data[1])
    directions = weight[0]
    return (
        Product(directions, steps * batch, weight[1], weight[2]),
        Product(directions * steps, batch, recurrence[1], recurrence[2]),
    )


def _attention(node: Node, out: tuple[int, ...], setting: Setting) -> tuple[Product, ...]:
    """Query times key, probabilities times value: both take as many operations per head."""
    key = setting.dims(node.input(1))
    if key is None or len(out) < 3 or len(key) != len(out):
        return ()
    heads = out[1] if len(out) == 4 else max(1, node.int_attr("q_num_heads", 1))
    width = out[-1] if len(out) == 4 else out[-1] // heads
    rows, length = out[-2], key[-2]
    return (Product(out[0] * heads, rows, length, width), Product(out[0] * heads, rows, width, length))


def _fused_attention(node: Node, out: tuple[int, ...], setting: Setting) -> tuple[Product, ...]:
    """ONNX Runtime's attention of [B, S, h·d]: scores and values per head, after the projection where it has one."""
    data, weight = setting.dims(node.input(0)), setting.dims(node.input(1))
    if data is None or weight is None or len(data) != 3 or len(out) != 3:
        return ()
    projects = node.op == "com.microsoft::Attention"
    batch, rows, width = out
    heads = max(1, node.int_attr("num_heads", 1))
    length = rows if projects else weight[1]
    core = (
        Product(batch * heads, rows, length, width // heads),
        Product(batch * heads, rows, width // heads, length),
    )
    return (Product(1, batch * rows, weight[-1], data[-1]), *core) if projects else core


def element_flops(node: Node, outputs: tuple[Tensor | None, ...], setting: Setting) -> float:
    """The operations of `node` that are no matrix products."""
    if node.op in FREE or node.op in MOVES or node.domain or node.bodies:
        return 0.0
    size = sum(setting.elements(t) for t in outputs)
    if node.op in PER_INPUT or node.op.startswith(("Reduce", "Arg", "CumSum")):
        return float(setting.elements(node.input(0)) * PER_INPUT.get(node.op, 1))
    if node.op in ("MaxPool", "AveragePool", "LpPool"):
        return float(setting.elements(outputs[0]) * math.prod(node.ints_attr("kernel_shape") or (1,)))
    if node.op in CONVS or node.op in MATMULS or node.op in RECURRENT or node.op in ("ConvTranspose", "Attention"):
        return float(size if _has_bias(node) else 0)
    return float(size * PER_OUTPUT.get(node.op, 1))


def _has_bias(node: Node) -> bool:
    return node.op in ("Conv", "ConvTranspose", "Gemm", "com.microsoft::FusedConv") and node.input(2) is not None
