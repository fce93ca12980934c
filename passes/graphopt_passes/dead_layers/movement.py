"""Transpose, Slice, Pad, Gather, Resize and reductions that move, drop and add nothing."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rule import NoMatch
from graphopt_passes.common.arguments import (
    ANY_END,
    AxisSlice,
    axis_of,
    axis_slices,
    ints_argument,
    normalized_axes,
    padding,
    permutation,
)
from graphopt_passes.dead_layers.wires import NoOp, returned


class DropIdentityTranspose(NoOp):
    """Transpose(x, perm = [0, 1, ..., r−1]) = x. Opset 1 on. Exact."""

    roots = ("Transpose",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        perm = permutation(node, facts)
        if perm is None or perm != tuple(range(len(perm))):
            return NoMatch("it permutes axes", node)
        return returned(node.input(0), node)


class DropFullSlice(NoOp):
    """Slice(x) = x where on each named axis the step is 1, it starts at the first element and ends behind the last.

    A negative start or end counts from the back and needs a known dimension. Opset 1 on. Exact.
    """

    roots = ("Slice",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        slices = axis_slices(node, facts)
        if slices is None:
            return NoMatch("its ranges are computed at run time", node)
        x = node.input(0)
        if not all(self._is_full(item, x) for item in slices):
            return NoMatch("it may leave elements out", node)
        return returned(x, node)

    def _is_full(self, item: AxisSlice, x: Tensor | None) -> bool:
        if item.step != 1:
            return False
        if item.start == 0 and item.end >= ANY_END:
            return True
        shape = x.shape if x is not None else None
        if shape is None or not -len(shape) <= item.axis < len(shape):
            return False
        dim = shape[item.axis]
        return isinstance(dim, int) and (item.start == 0 or item.start <= -dim) and item.end >= dim


class DropPadOfNothing(NoOp):
    """Pad(x, pads = 0) = x in every mode. Opset 1 on. Exact."""

    roots = ("Pad",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        pads = padding(node, facts)
        if pads is None or any((*pads.before, *pads.after)):
            return NoMatch("it may pad", node)
        return returned(node.input(0), node)


class DropFullGather(NoOp):
    """Gather(x, [0, 1, ..., d−1], axis) = x where d is x's dimension on the axis. Opset 1 on. Exact."""

    roots = ("Gather",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        x, indices = node.input(0), facts.ints(node.input(1))
        axis = axis_of(node, facts.rank(x), 0)
        if x is None or x.shape is None or axis is None or indices is None or facts.rank(node.input(1)) != 1:
            return NoMatch("its indices are no known list", node)
        dim = x.shape[axis]
        if not isinstance(dim, int) or len(indices) != dim:
            return NoMatch("it does not take every element once", node)
        if tuple(i + dim if i < 0 else i for i in indices) != tuple(range(dim)):
            return NoMatch("it changes the order of elements", node)
        return x


class DropReductionOfNothing(NoOp):
    """ReduceSum, Mean, Max, Min, Prod(x, axes, keepdims = 1) = x where every reduced dimension of x is 1.

    Also with no axes and `noop_with_empty_axes` = 1. (L1, L2, SumSquare, LogSum change the value.) A sum, mean,
    product or extreme of one element is that element. Opset 1 on. Exact.
    """

    roots = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        x = node.input(0)
        axes = ints_argument(node, facts, "axes", 1)
        if axes is None:
            return NoMatch("its axes are computed at run time", node)
        if not axes.values and node.int_attr("noop_with_empty_axes", 0) == 1:
            return returned(x, node)
        if node.int_attr("keepdims", 1) != 1 or x is None or x.shape is None:
            return NoMatch("it drops axes, or the shape is unknown", node)
        reduced = normalized_axes(axes.values, len(x.shape)) if axes.values else tuple(range(len(x.shape)))
        if reduced is None or any(x.shape[a] != 1 for a in reduced):
            return NoMatch("it may reduce more than one element", node)
        return x


class DropResizeToSameSize(NoOp):
    """Resize(x) and Upsample(x) = x where every scale is 1, or `sizes` is the shape of x.

    Every coordinate then falls on an element, with weight 1. Not with tf_crop_and_resize (it reads a region),
    tf_half_pixel_for_nn (it is off by a half), antialias, or a policy of aspect ratio. Upsample 7 on, Resize 10 on.
    Exact.
    """

    roots = ("Resize", "Upsample")

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        mode = node.str_attr("coordinate_transformation_mode", "half_pixel")
        policy = node.str_attr("keep_aspect_ratio_policy", "stretch")
        if mode in ("tf_crop_and_resize", "tf_half_pixel_for_nn") or policy != "stretch":
            return NoMatch("its coordinates do not fall on elements", node)
        if node.int_attr("antialias", 0):
            return NoMatch("it filters", node)
        x = node.input(0)
        if not self._keeps_size(node, facts, x):
            return NoMatch("it may change the size", node)
        return returned(x, node)

    def _keeps_size(self, node: Node, facts: Facts, x: Tensor | None) -> bool:
        if node.op == "Upsample" and facts.opset(node) < 9:
            scales = node.attrs.get("scales")
            return isinstance(scales, tuple) and all(s == 1 for s in scales)
        at = 1 if node.op == "Upsample" or facts.opset(node) < 11 else 2
        given = node.input(at)
        if given is not None:
            values = facts.value(given)
            if values is None or bool((values != 1).any()):
                return False
            if values.size:
                return True
        sizes = facts.ints(node.input(3))
        if sizes is None or "axes" in node.attrs:
            return False
        return sizes == facts.static_shape(x)
