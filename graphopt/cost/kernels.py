"""What a runtime makes of a node: the kernels that it launches and the bytes that they move.

ONNX Runtime (CUDA) runs a node as it stands: one kernel, BatchNormalization folded into the conv before it. A Concat
copies; a Split copies and, when its parts are unequal and not innermost, uploads their sizes first
(onnxruntime/core/providers/cuda/tensor/split.cc; measured, see docs/cost-model.md).

TensorRT puts point-wise operators into the kernel before them, lets the inputs of a Concat be written where they belong
when nothing else reads them, and copies a slice only for a reader that cannot read with strides (a convolution, a
pooling): its developer guide, "Types of Fusions", and the layers that its builder lists.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.cost.arithmetic import CONVS, FREE, MATMULS, Product, element_flops, products
from graphopt.cost.setting import Layout, Setting
from graphopt.cost.view import View
from graphopt.graph import Node, Tensor

POINTWISE = frozenset(
    {
        "Abs",
        "Add",
        "And",
        "BatchNormalization",
        "Cast",
        "Ceil",
        "Clip",
        "Cos",
        "Div",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "Greater",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Less",
        "Log",
        "Max",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pow",
        "QuantizeLinear",
        "DequantizeLinear",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
        "Transpose",
        "Where",
        "Xor",
    }
)
POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"})
# nodes whose kernel may take in a point-wise node behind it
HOSTS = CONVS | MATMULS | POINTWISE
# readers that take whole tensors only, so that TensorRT copies a slice for them
RIGID = CONVS | POOLS | {"ConvTranspose", "Concat", "Resize", "LRN"}
UPLOADS_OF_UNEQUAL_PARTS = 3


# ONNX Runtime brings images in NHWC back to NCHW for a reduction over them. Fitted to an H200: a small net with one
# more such reduction, one for each part of a Concat, took at batch 32 1.03 of its time in NHWC and 0.96 in NCHW.
REDUCTION_KERNELS_IN_NHWC = 8


@dataclass(frozen=True)
class Work:
    """What running a node takes.

    `flops` counts all arithmetic, `products` its matrix products one by one. `read` and `written` are bytes; `kernels`
    launches, of which `copies` only move; `uploads` small copies from the host between them.
    """

    flops: float = 0.0
    read: float = 0.0
    written: float = 0.0
    kernels: int = 0
    copies: int = 0
    uploads: int = 0
    products: tuple[Product, ...] = ()


NOTHING = Work()


def work_of(node: Node, view: View, setting: Setting) -> Work:
    """What `node` takes where it stands in `view`."""
    if node.op in FREE or node.bodies:
        return NOTHING
    outputs = view.outputs(node)
    if all(t is None or t.constant is not None for t in outputs):
        return NOTHING
    if setting.is_tensorrt:
        if node.op == "Concat":
            return _concat_in_place(node, view, setting)
        if node.op in ("Split", "Slice"):
            return _slices(node, outputs, view, setting)
    flops = element_flops(node, outputs, setting)
    made = products(node, outputs, setting)
    flops += sum(p.flops for p in made)
    if _host(node, view, setting) is not None:
        extra = sum(setting.nbytes(t) for t in set(node.inputs[1:]) if t is not None)
        return Work(flops, extra, products=made)
    read = sum(setting.nbytes(t) for t in {t: None for t in node.inputs if t is not None})
    written = sum(setting.nbytes(t) for t in outputs)
    return Work(
        flops,
        _gathered(node, read, written),
        written,
        kernels=_kernels(node, setting),
        uploads=_uploads(node, outputs, view, setting),
        products=made,
    )


def _kernels(node: Node, setting: Setting) -> int:
    """How many kernels' time ONNX Runtime spends on a node besides its arithmetic and traffic."""
    reduces = node.op.startswith("Reduce") or node.op in ("GlobalAveragePool", "GlobalMaxPool")
    if not reduces or setting.layout is not Layout.NHWC or setting.is_tensorrt:
        return 1
    return REDUCTION_KERNELS_IN_NHWC if len(setting.dims(node.input(0)) or ()) == 4 else 1


def _gathered(node: Node, read: float, written: float) -> float:
    """Operators that pick from their first input read no more than they write."""
    return min(read, written) if node.op in ("Gather", "GatherElements", "GatherND", "Slice") else read


def _uploads(node: Node, outputs: tuple[Tensor | None, ...], view: View, setting: Setting) -> int:
    """Arrays of sizes that ONNX Runtime sends ahead of a Split with unequal parts, unless those lie side by side."""
    if setting.device.is_cpu or node.op != "Split" or len({setting.dims(t) for t in outputs}) == 1:
        return 0
    return 0 if _splits_innermost(node, view, setting) else UPLOADS_OF_UNEQUAL_PARTS


def _splits_innermost(node: Node, view: View, setting: Setting) -> bool:
    """Whether each element's neighbours in memory are of its part: the last axis, or channels behind a conv in NHWC."""
    source = node.input(0)
    rank = len(setting.dims(source) or ())
    axis = node.int_attr("axis", 0) % rank if rank else 0
    if setting.layout is Layout.NHWC and rank == 4 and axis == 1:
        maker = _kernel_behind(source, view)
        if maker is not None and maker.op in POINTWISE:
            maker = _kernel_behind(maker.input(0), view)
        return maker is not None and maker.op in CONVS
    return axis == rank - 1


def _host(node: Node, view: View, setting: Setting) -> Node | None:
    """The producer of an input whose kernel does this point-wise node's work too; None when it takes its own.

    On TensorRT that needs all readers of the input to be point-wise (a gate reads its tensor twice), on ONNX Runtime
    that the node is the only one.
    """
    if node.op not in POINTWISE:
        return None
    for tensor in node.inputs:
        maker = _kernel_behind(tensor, view)
        if maker is None or tensor is None or tensor.is_output:
            continue
        readers = view.readers(tensor)
        if not setting.is_tensorrt:
            if len(readers) == 1 and _is_fused(node, maker):
                return maker
        elif maker.op in HOSTS and all(r.op in POINTWISE for r in readers):
            return maker
    return None


def _is_fused(node: Node, maker: Node) -> bool:
    """Whether ONNX Runtime puts `node` into the conv before it for nothing: it folds BatchNormalization.

    A Relu it puts there too, in NCHW, by a convolution that takes longer by about what the Relu would have taken:
    moving 20 Relus of GoogLeNet behind the Concats, of which none is then fused, took it to 0.86 of its time.
    """
    return node.op == "BatchNormalization" and maker.op in CONVS


def _kernel_behind(tensor: Tensor | None, view: View) -> Node | None:
    """The node that makes `tensor`, when that takes a kernel."""
    maker = view.producer(tensor) if tensor is not None and tensor.constant is None else None
    return maker if maker is not None and maker.op not in FREE else None


def _concat_in_place(node: Node, view: View, setting: Setting) -> Work:
    """Copies only of the inputs that their producers cannot write where they belong."""
    copies, moved = 0, 0.0
    seen: set[Tensor] = set()
    for tensor in node.inputs:
        if tensor is None:
            continue
        maker = _kernel_behind(tensor, view)
        alone = not tensor.is_output and len(view.readers(tensor)) == 1 and tensor not in seen
        # a slice is copied for the Concat by `_slices`: the copy lands in place
        if maker is None or not alone:
            copies += 1
            moved += setting.nbytes(tensor)
        seen.add(tensor)
    return Work(0.0, moved, moved, kernels=copies, copies=copies)


def _slices(node: Node, outputs: tuple[Tensor | None, ...], view: View, setting: Setting) -> Work:
    """A copy for each part that someone reads who cannot read with strides."""
    copies, moved = 0, 0.0
    for tensor in outputs:
        if tensor is not None and (tensor.is_output or any(_is_rigid(r, view, setting) for r in view.readers(tensor))):
            copies += 1
            moved += setting.nbytes(tensor)
    return Work(0.0, moved, moved, kernels=copies, copies=copies)


def _is_rigid(reader: Node, view: View, setting: Setting) -> bool:
    """Whether `reader` needs whole tensors: by itself, or because it joined the kernel of a convolution or product."""
    host = _host(reader, view, setting)
    return reader.op in RIGID or (host is not None and (host.op in CONVS or host.op in MATMULS))
