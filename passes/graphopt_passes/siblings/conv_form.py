"""What a Conv computes, as far as it decides which siblings can be one: geometry, group, types."""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Graph, Node
from graphopt_passes.siblings.weights import Weight, read_weight

KNOWN = frozenset({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"})


@dataclass(frozen=True)
class ConvForm:
    """Convs on one tensor with equal forms are one conv with more outputs.

    `pads` are those that are in effect, before and after each spatial axis; where they depend on an unknown size they
    are the name of `auto_pad`. `types` tells plain weights from quantized ones, `inputs` is the number of input
    channels of a group.
    """

    graph: Graph
    types: object
    inputs: int
    group: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | str


def conv_weight(conv: Node, facts: Facts) -> Weight | None:
    """The weight of a Conv, output channels first, when it can be joined with others."""
    return read_weight(conv.input(1), 0, facts)


def conv_bias(conv: Node, facts: Facts) -> Weight | None:
    """The bias of a Conv; None when it has none (or it is not known: see `conv_form`)."""
    return read_weight(conv.input(2), 0, facts)


def conv_form(conv: Node, facts: Facts) -> ConvForm | None:
    """The form of a Conv with known weight and bias; None for any other node."""
    weight = conv_weight(conv, facts) if conv.op == "Conv" else None
    data = conv.input(0)
    if weight is None or data is None or data.constant is not None or len(weight.shape) < 3:
        return None
    if conv.attrs.keys() - KNOWN or 0 in weight.shape or len(conv.inputs) > 3:
        return None
    bias = conv_bias(conv, facts)
    if (bias is None) != (conv.input(2) is None) or (bias is not None and bias.shape != (weight.width,)):
        return None
    spatial = len(weight.shape) - 2
    ones = (1,) * spatial
    kernel = weight.shape[2:]
    strides, dilations = conv.ints_attr("strides", ones), conv.ints_attr("dilations", ones)
    pads = effective_pads(conv, kernel, facts)
    lengths = (conv.ints_attr("kernel_shape", kernel), strides, dilations)
    if any(values is None or len(values) != spatial for values in lengths) or pads is None:
        return None
    group = conv.int_attr("group", 1)
    if conv.ints_attr("kernel_shape", kernel) != kernel or group < 1 or weight.width % group:
        return None
    assert strides is not None
    assert dilations is not None
    types = (weight.form, bias.form if bias is not None and bias.dequantizer is not None else None)
    return ConvForm(conv.owner, types, weight.shape[1], group, kernel, strides, dilations, pads)


def effective_pads(conv: Node, kernel: tuple[int, ...], facts: Facts) -> tuple[int, ...] | str | None:
    """The padding before each spatial axis, then after each; the name of `auto_pad` when it depends on unknown sizes.

    SAME_UPPER and SAME_LOWER make ceil(size / stride) outputs, an odd pad going to the end or the beginning (ONNX
    Conv-11, `auto_pad`).
    """
    spatial = len(kernel)
    mode = conv.str_attr("auto_pad", "NOTSET")
    if mode == "VALID":
        return (0,) * (2 * spatial)
    if mode == "NOTSET":
        pads = conv.ints_attr("pads", (0,) * (2 * spatial))
        return pads if pads is not None and len(pads) == 2 * spatial else None
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        return None
    ones = (1,) * spatial
    strides, dilations = conv.ints_attr("strides", ones) or ones, conv.ints_attr("dilations", ones) or ones
    shape = conv.inputs[0].shape if conv.inputs[0] is not None else None
    if shape is None or len(shape) != spatial + 2:
        shape = (None,) * (spatial + 2)
    if len(strides) != spatial or len(dilations) != spatial:
        return None
    before, after = [], []
    for size, k, s, d in zip(shape[2:], kernel, strides, dilations, strict=True):
        if s == 1:
            total = (k - 1) * d
        elif isinstance(size, int):
            total = (math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size
            if total < 0:
                return mode  # a negative padding, which runtimes read differently: left to them
        else:
            return mode
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return (*before, *after)
