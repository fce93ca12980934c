"""Contiguous parts of tensors along an axis, however the graph spells them: outputs of Split, results of Slice.

A border between parts is a number where it is known; else a token, equal tokens being equal positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt_passes.common.arguments import ANY_END, axis_of, axis_slices, normalized_axes
from graphopt_passes.common.slicing import as_slice
from graphopt_passes.common.splits import split_axis, split_sizes

END = "end"
# A number counts from the front (on a dimension of unknown size it is clamped to it); (Split, i) is where output i
# begins; a number in a 1-tuple counts from the end.
Border = int | str | tuple[Node, int] | tuple[int]

# Slices of parts of parts are followed so far.
MOST_STEPS = 8


@dataclass(frozen=True)
class Segment:
    """Positions [start, stop) of `source` along the axis in question. `makers` are the nodes that cut it out."""

    source: Tensor
    start: Border
    stop: Border
    makers: tuple[Node, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole source."""
        return self.start == 0 and self.stop == END

    @property
    def is_known(self) -> bool:
        """Whether both borders can be written down for a Slice."""
        return isinstance(self.start, int) and (isinstance(self.stop, int) or self.stop == END)


def concat_axis(concat: Node, facts: Facts) -> int | None:
    """The axis of a Concat counted from the front; None when no rank is known."""
    ranks = (facts.rank(t) for t in (*concat.outputs, *concat.inputs))
    rank = next((r for r in ranks if r is not None), None)
    return axis_of(concat, rank, 1)  # the default of opset 1; later the axis is required


def length(tensor: Tensor | None, axis: int) -> int | None:
    """The size of a dimension when it is a number."""
    if tensor is None or tensor.shape is None or axis >= len(tensor.shape):
        return None
    dim = tensor.shape[axis]
    return dim if isinstance(dim, int) else None


def segment(tensor: Tensor, axis: int, facts: Facts) -> Segment:
    """`tensor` as a part of the tensor that Splits and Slices along `axis` cut it out of."""
    found = Segment(tensor, 0, END)
    for _ in range(MOST_STEPS):
        cut = cut_of(found.source, axis, facts)
        if cut is None:
            break
        inside = _inside(found, cut)
        if inside is None:
            break
        found = inside
    return found


def _inside(part: Segment, cut: Segment) -> Segment | None:
    """`part`, a segment of what `cut` is, as a segment of `cut`'s source; None when that cannot be told."""
    makers = (*part.makers, *cut.makers)
    if part.is_whole:
        return Segment(cut.source, cut.start, cut.stop, makers)
    if not isinstance(part.start, int) or not isinstance(cut.start, int):
        return None
    if cut.stop != END and not isinstance(cut.stop, int):
        return None
    start, stop = _within(cut.start + part.start, cut.stop), cut.stop
    if isinstance(part.stop, int):
        stop = _within(cut.start + part.stop, cut.stop)
    elif part.stop != END:
        return None
    return Segment(cut.source, start, stop, makers)


def _within(position: int, stop: Border) -> int:
    return min(position, stop) if isinstance(stop, int) else position


def cut_of(tensor: Tensor, axis: int, facts: Facts) -> Segment | None:
    """`tensor` as a part of the input of the Split or Slice along `axis` that makes it; None when nothing such does."""
    node = tensor.producer
    if node is None or tensor.constant is not None or node.graph is not tensor.graph:
        return None
    if node.op == "Split":
        return _part_of_split(tensor, node, axis, facts)
    return _part_of_slice(node, axis, facts) if node.op == "Slice" else None


def _part_of_split(tensor: Tensor, node: Node, axis: int, facts: Facts) -> Segment | None:
    source = node.input(0)
    if source is None or split_axis(node, facts) != axis:
        return None
    borders = facts.shared(SplitBorders).of(node, axis, facts)
    start, stop = borders[tensor]
    stop = _stop(stop, source, axis) if isinstance(stop, int) else stop
    return Segment(source, start, stop, (node,))


class SplitBorders:
    """Where each output of a Split starts and stops, remembered so that a Split of n parts costs O(n) in all."""

    def __init__(self) -> None:
        self._known: dict[Node, tuple[object, dict[Tensor, tuple[Border, Border]]]] = {}

    def of(self, node: Node, axis: int, facts: Facts) -> dict[Tensor, tuple[Border, Border]]:
        """The borders by output."""
        state = (node.outputs, node.inputs, length(node.input(0), axis))
        known = self._known.get(node)
        if known is None or known[0] != state:
            known = self._known[node] = (state, _borders(node, axis, facts))
        return known[1]


def _borders(node: Node, axis: int, facts: Facts) -> dict[Tensor, tuple[Border, Border]]:
    sizes = split_sizes(node, axis, facts)
    last = len(node.outputs) - 1
    result: dict[Tensor, tuple[Border, Border]] = {}
    start = 0
    for index, tensor in enumerate(node.outputs):
        if sizes is not None:
            pair: tuple[Border, Border] = (start, start + sizes[index])
            start += sizes[index]
        else:
            pair = ((node, index) if index else 0, (node, index + 1) if index < last else END)
        if tensor is not None:
            result[tensor] = pair
    return result


def _stop(position: int, source: Tensor, axis: int) -> Border:
    dim = length(source, axis)
    return END if dim is not None and position >= dim else position


def _part_of_slice(node: Node, axis: int, facts: Facts) -> Segment | None:
    source, slices = node.input(0), axis_slices(node, facts)
    if source is None or slices is None or len(slices) != 1:
        return None
    (item,) = slices
    rank = facts.rank(source)
    places = (item.axis,) if rank is None and item.axis >= 0 else normalized_axes((item.axis,), rank or 0)
    if places != (axis,) or item.step != 1:
        return None
    dim = length(source, axis)
    if dim is None:
        stop = END if item.end >= ANY_END else _position(item.end)
        return Segment(source, _position(item.start), stop, (node,))
    part = as_slice(item.start, item.end, 1, dim)
    return Segment(source, part.start, _stop(max(part.start, part.stop), source, axis), (node,))


def _position(value: int) -> Border:
    return value if value >= 0 else (value,)


def joined(parts: list[Segment], axis: int) -> list[list[Segment]]:
    """The parts in order, those that continue one another in one list."""
    runs: list[list[Segment]] = []
    for part in parts:
        last = runs[-1][-1] if runs else None
        if last is not None and last.source is part.source and _continues(last, part):
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _continues(last: Segment, part: Segment) -> bool:
    """Whether `part` begins where `last` stops, both in their right order whatever the size of the dimension is."""
    if last.stop != part.start or last.stop == END:
        return False
    return _is_ordered(last) and _is_ordered(part)


def _is_ordered(part: Segment) -> bool:
    """Whether the part surely does not stop before it starts."""
    if part.start == 0 or part.stop == END:
        return True
    if isinstance(part.start, int) and isinstance(part.stop, int):
        return part.start <= part.stop
    # outputs of one Split come in order; other mixtures are not told
    return isinstance(part.start, tuple) and isinstance(part.stop, tuple) and part.start[0] is part.stop[0]


def hull(run: list[Segment]) -> Segment:
    """The segment that the parts of a run make together."""
    makers = tuple(dict.fromkeys(m for part in run for m in part.makers))
    return Segment(run[0].source, run[0].start, run[-1].stop, makers)
