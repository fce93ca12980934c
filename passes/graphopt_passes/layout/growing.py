"""Transposes sink below Pad, Tile and quantization where another Transpose follows."""

from __future__ import annotations

import numpy as np

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch
from graphopt_passes.common.arguments import axis_of, padding
from graphopt_passes.common.types import runs
from graphopt_passes.layout.one_input import BelowOneInput, OneInput, with_ints
from graphopt_passes.layout.sinking import place_behind
from graphopt_passes.layout.transposes import inverse


class SinkTransposeBelowPad(BelowOneInput):
    """Pad(Transpose(x, p), pads) = Transpose(Pad(x, pads'), p), pads'[p[i]] = pads[i]. All modes.

    Only where another Transpose follows, since the padded tensor is larger. Opset 2 on. Exact.
    """

    roots = ("Pad",)

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        pads = padding(node, facts)
        if facts.opset(node) < 2 or pads is None or len(pads.before) != rank:
            return NoMatch("its pads are not known", node)
        if facts.sole_consumer(node.output(0), "Transpose") is None:
            return NoMatch("no Transpose follows", node)
        return tuple(range(rank))

    def rewrite(self, found: OneInput, edit: Rewriter) -> None:
        node, back = found.node, inverse(found.perm)
        pads = padding(node, Facts(edit.model))
        assert pads is not None
        values = (*(pads.before[b] for b in back), *(pads.after[b] for b in back))
        if node.input(1) is None:
            made = edit.like(node, [found.source], pads=values)
        else:
            moved = edit.constant(np.asarray(values, np.int64), f"{node.label}.pads")
            made = edit.like(node, [found.source, moved, node.input(2)])
        place_behind(node, made, found.perm, edit)


class SinkTransposeBelowTile(BelowOneInput):
    """Tile(Transpose(x, p), r) = Transpose(Tile(x, r'), p), r'[p[i]] = r[i].

    Only where another Transpose follows, since the tiled tensor is larger. Opset 6 on. Exact.
    """

    roots = ("Tile",)

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        repeats = facts.ints(node.input(1))
        if facts.opset(node) < 6 or repeats is None or len(repeats) != rank:
            return NoMatch("its repeats are not known", node)
        if facts.sole_consumer(node.output(0), "Transpose") is None:
            return NoMatch("no Transpose follows", node)
        return tuple(range(rank))

    def rewrite(self, found: OneInput, edit: Rewriter) -> None:
        node = found.node
        repeats = Facts(edit.model).ints(node.input(1))
        assert repeats is not None
        moved = tuple(repeats[b] for b in inverse(found.perm))
        place_behind(node, with_ints(node, found.source, "repeats", 1, moved, edit), found.perm, edit)


class SinkTransposeBelowQuantization(BelowOneInput):
    """QuantizeLinear(Transpose(x, p), s, z; axis a) = Transpose(QuantizeLinear(x, s, z; axis p[a]), p), and back.

    Per tensor or per axis, not per block. Only where another Transpose follows (behind the DequantizeLinear of a
    quantization): between a DequantizeLinear and the node that it feeds a Transpose would be in the way of fusions.
    Opset 10 on. Exact.
    """

    roots = ("QuantizeLinear", "DequantizeLinear")

    def axes(self, node: Node, rank: int, facts: Facts) -> tuple[int, ...] | NoMatch:
        scale = node.input(1)
        last = node
        if node.op == "QuantizeLinear":
            last = facts.sole_consumer(node.output(0), "DequantizeLinear") or node
            stays = last is node or isinstance(self.axes(last, rank, facts), NoMatch)
            if stays and not runs("Transpose", facts.opset(node), node.result.dtype):
                return NoMatch("the Transpose would stay behind it, and does not take the quantized type", node)
        if facts.sole_consumer(last.output(0), "Transpose") is None:
            return NoMatch("no Transpose follows", node)
        if scale is None or scale.shape is None or len(scale.shape) > 1 or node.int_attr("block_size", 0):
            return NoMatch("its scale is per block or unknown", node)
        if not scale.shape or scale.shape == (1,):
            return ()
        axis = axis_of(node, rank, 1)
        return NoMatch("its axis is out of range", node) if axis is None else (axis,)

    def rewrite(self, found: OneInput, edit: Rewriter) -> None:
        node, inputs = found.node, [found.source, *found.node.inputs[1:]]
        made = edit.like(node, inputs, axis=found.axes[0]) if found.axes else edit.like(node, inputs)
        place_behind(node, made, found.perm, edit)
