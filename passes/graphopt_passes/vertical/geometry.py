"""Where windows lie: kernel extents, strides, dilations and pads of Conv, ConvTranspose and the pools.

Per spatial axis of length L, with pads p⁻ and p⁺, dilation d, kernel k and stride s, an output has
⌊(L + p⁻ + p⁺ − d·(k − 1) − 1) / s⌋ + 1 elements (ONNX operator Conv).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.graph import Node


@dataclass(frozen=True)
class Window:
    """The geometry of a windowed operator, one number a spatial axis each. All pads are explicit."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def pads(self) -> tuple[int, ...]:
        """The attribute `pads`."""
        return (*self.before, *self.after)

    @property
    def extents(self) -> tuple[int, ...]:
        """How far each window reaches, dilation included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def window(node: Node, kernel: tuple[int, ...] | None = None) -> Window | None:
    """The geometry of a Conv or pool; None when `auto_pad` leaves the pads to the input's shape, or it is malformed.

    `kernel` is the spatial shape of a Conv's weight, which `kernel_shape` may leave out.
    """
    kernel = kernel or node.ints_attr("kernel_shape")
    auto = node.str_attr("auto_pad", "NOTSET")
    if kernel is None or auto not in ("NOTSET", "VALID", ""):
        return None
    rank = len(kernel)
    strides = node.ints_attr("strides") or (1,) * rank
    dilations = node.ints_attr("dilations") or (1,) * rank
    pads = (0,) * 2 * rank if auto == "VALID" else node.ints_attr("pads") or (0,) * 2 * rank
    if len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank or min(pads, default=0) < 0:
        return None
    return Window(kernel, strides, dilations, pads[:rank], pads[rank:])


def may_pad(node: Node) -> bool:
    """Whether a Conv or ConvTranspose may pad (or, transposed, crop or enlarge) at any border."""
    if node.str_attr("auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        return True
    pads = () if node.str_attr("auto_pad", "NOTSET") == "VALID" else node.ints_attr("pads") or ()
    return any(pads) or any(node.ints_attr("output_padding") or ())


def is_pointwise(node: Node) -> bool:
    """Whether a Conv or ConvTranspose has a 1x1 kernel and stride 1, so that positions do not mix."""
    weight = node.input(1)
    shape = weight.constant.shape if weight is not None and weight.constant is not None else ()
    if len(shape) < 3 or "output_shape" in node.attrs:
        return False
    return all(k == 1 for k in shape[2:]) and all(s == 1 for s in node.ints_attr("strides") or ())
