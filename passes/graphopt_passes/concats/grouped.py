"""Equal convs on parts of one tensor, or on several tensors, that meet in a Concat: one grouped conv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Rule
from graphopt_passes.concats.coalesce import cut_out
from graphopt_passes.concats.segments import Segment, concat_axis, hull, joined, segment
from graphopt_passes.concats.upstream import above
from graphopt_passes.siblings.branches import Branch, Piece, follow, replace_pieces, sink
from graphopt_passes.siblings.channels import Axis, concatenate
from graphopt_passes.siblings.conv_form import ConvForm, conv_bias, conv_form, conv_weight
from graphopt_passes.siblings.convs import known_weights, output_dtype
from graphopt_passes.siblings.weights import join_biases, join_weights

CHANNELS = 1
# So many operators between a conv and its Concat are looked through.
MOST_FOLLOWERS = 8


@dataclass(frozen=True)
class Groups:
    """Neighbouring inputs of a Concat that are branches from equal convs, whose inputs are `parts` in order."""

    concat: Node
    branches: tuple[Branch, ...]
    parts: tuple[Segment, ...]
    group: int
    facts: Facts

    @property
    def axis(self) -> Axis:
        """The axis of channels."""
        rank = self.facts.rank(self.branches[0].head.result)
        assert rank is not None
        return Axis(CHANNELS, rank)


class GroupRule(Rule[Groups]):
    """Concat(f(Conv(x1, W1, b1)), f(Conv(x2, W2, b2)), ...) = f(Conv(x1 x2 ..., [W1; W2; ...], [b1; b2; ...], group)).

    All on the axis of channels. The convs have equal kernel, strides, dilations and effective pads, and equal numbers
    of inputs and of outputs in a group: then the groups of all of them are the groups of one conv, in order. f are
    equal operators behind all of them.
    """

    roots = ("Concat",)
    exactness = Exactness.REASSOCIATES
    trades = True

    def accepts(self, parts: Sequence[Segment]) -> bool:
        """Whether these parts, none of which continues the one before, may be brought together."""
        raise NotImplementedError

    def match(self, node: Node, facts: Facts) -> Groups | NoMatch:
        if concat_axis(node, facts) != CHANNELS:
            return NoMatch("it does not join channels", node)
        runs = _runs(node, facts)
        for run in sorted(runs, key=len, reverse=True):
            if len(run) < 2:
                break
            found = self._group(node, run, facts)
            if found is not None:
                return found
        return NoMatch("no equal convs on parts of one tensor side by side", node)

    def _group(self, concat: Node, convs: list[Node], facts: Facts) -> Groups | None:
        parts = [hull(run) for run in joined(_parts(convs, facts), CHANNELS)]
        if not self.accepts(parts) or any(not facts.visible(p.source, concat.owner) for p in parts):
            return None
        forms = [f for c in convs if (f := conv_form(c, facts)) is not None]
        widths = [w.width for w in known_weights(convs, facts)]
        rank = facts.rank(convs[0].result)
        if rank is None:
            return None
        starts = [Branch(c, w) for c, w in zip(convs, widths, strict=True)]
        branches = sink(starts, Axis(CHANNELS, rank), facts)
        ends = [b.end for b in branches]
        if any(t.sole_consumer is not concat for t in ends):
            return None
        first = next((i for i, t in enumerate(concat.inputs) if t is ends[0]), None)
        if first is None or list(concat.inputs[first : first + len(ends)]) != ends:
            return None
        return Groups(concat, branches, tuple(parts), sum(f.group for f in forms), facts)

    def rewrite(self, found: Groups, edit: Rewriter) -> None:
        convs = [b.head for b in found.branches]
        weights = known_weights(convs, found.facts)
        widths = [w.width for w in weights]
        weight = join_weights(weights, edit, concatenate, (sum(widths), *weights[0].shape[1:]))
        biases = [conv_bias(c, found.facts) for c in convs]
        bias = join_biases(biases, widths, output_dtype(convs[0]), edit, concatenate)
        data = _data(found.parts, edit)
        head = edit.like(convs[0], [data, weight, bias], group=found.group)
        last = follow(found.branches, head, found.axis, found.facts, edit, concatenate)
        replace_pieces((Piece(found.branches, found.concat),), last, edit)


class GroupConvs(GroupRule):
    """Concat(f(Conv(x[0:c], W1)), f(Conv(x[c:2c], W2)), ...) = f(Conv(x, [W1; W2; ...], group)).

    x[0:c], x[c:2c], ... are outputs of Splits or Slices of one tensor, on the axis of channels, that continue one
    another; where they are not all of x, one Slice cuts them out. W_i is [O_i, C_i / g_i, *kernel], with equal
    C_i / g_i and O_i / g_i; the new group is the sum of the g_i (depthwise convs of unequal width included). f are
    equal operators behind all of them: activations, BatchNormalization, affine per channel.

    Opsets: all. Exactness: reassociates. AlexNet's and ResNeXt's convs in their first spelling.
    """

    def accepts(self, parts: Sequence[Segment]) -> bool:
        return len(parts) == 1 and (parts[0].is_whole or parts[0].is_known)


class GroupDistantConvs(GroupRule):
    """Concat(f(Conv(x1, W1)), f(Conv(x2, W2)), ...) = f(Conv(Concat(x1, x2, ...), [W1; W2; ...], group)).

    The same as `GroupConvs` for convs on different tensors: their inputs are joined first. Opsets: all. Exactness:
    reassociates.
    """

    def accepts(self, parts: Sequence[Segment]) -> bool:
        return len(parts) > 1 and all(p.is_whole or p.is_known for p in parts) and _can_be_joined(parts)


def _can_be_joined(parts: Sequence[Segment]) -> bool:
    """Whether the sources have surely equal shapes but for the channels: equal outputs of convs do not tell."""
    shapes = [p.source.shape for p in parts]
    known = [(s[0], *s[2:]) for s in shapes if s is not None]
    return len(known) == len(shapes) and len(set(known)) == 1 and None not in known[0]


def _runs(concat: Node, facts: Facts) -> list[list[Node]]:
    """The convs behind neighbouring inputs of the Concat, as far as their groups have one form."""
    runs: list[list[Node]] = []
    last: tuple[ConvForm, int] | None = None
    for tensor in concat.inputs:
        conv = _head(tensor, facts)
        form = conv_form(conv, facts) if conv is not None else None
        weight = conv_weight(conv, facts) if conv is not None else None
        if conv is None or form is None or weight is None or conv.graph is not concat.graph:
            last = None
            continue
        key = (replace(form, group=1), weight.width // form.group)
        if key == last:
            runs[-1].append(conv)
        else:
            runs.append([conv])
        last = key
    return runs


def _head(tensor: Tensor | None, facts: Facts) -> Node | None:
    """The Conv from which operators that can sink below a Concat lead to `tensor`."""
    for _ in range(MOST_FOLLOWERS):
        conv = facts.producer(tensor, "Conv")
        if conv is not None:
            return conv
        tensor = above(tensor, facts)
        if tensor is None:
            return None
    return None


def _parts(convs: Sequence[Node], facts: Facts) -> list[Segment]:
    tensors = [c.input(0) for c in convs]
    return [segment(t, CHANNELS, facts) for t in tensors if t is not None]


def _data(parts: Sequence[Segment], edit: Rewriter) -> Tensor:
    """The parts as one tensor."""
    tensors = [p.source if p.is_whole else cut_out(p, CHANNELS, edit) for p in parts]
    return tensors[0] if len(tensors) == 1 else edit.node("Concat", tensors, {"axis": CHANNELS}).result
