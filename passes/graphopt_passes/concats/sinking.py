"""Equal operators on every input of a Concat are done once, below it."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.types import takes
from graphopt_passes.concats.segments import concat_axis, length
from graphopt_passes.concats.upstream import above
from graphopt_passes.siblings.channels import Axis, concatenate
from graphopt_passes.siblings.followers import Follower, follower, join_followers


@dataclass(frozen=True)
class EqualFollowers:
    """A Concat along `axis` whose inputs of `widths` are all made by equal operators."""

    concat: Node
    axis: Axis
    followers: tuple[Follower, ...]
    widths: tuple[int, ...]
    facts: Facts


class SinkBelowConcat(Rule[EqualFollowers]):
    """Concat(f(a), f(b), ...) = f(Concat(a, b, ...)).

    f is one point-wise operator with equal attributes (activations, Cast, Quantize- and DequantizeLinear with one
    scale, ...), x·sigmoid(x), or an Add, Sub, Mul, Div, PRelu or BatchNormalization with constants per position of the
    axis, which are joined. Nothing else reads f(a), a, ...; f(a) is as long as a along the axis, and a, b, ... have one
    type.

    Opsets: all. Exact. It makes room for what merges the makers of a, b, ...; alone it may lose, since runtimes fuse f
    into what makes a.
    """

    roots = ("Concat",)
    trades = True

    def match(self, node: Node, facts: Facts) -> EqualFollowers | NoMatch:
        place, rank = concat_axis(node, facts), facts.rank(node.output(0))
        if place is None or rank is None or len(node.inputs) < 2:
            return NoMatch("its axis is not known, or it has one input", node)
        axis = Axis(place, rank)
        found, widths = [], []
        dtypes: set[int | None] = set()
        for tensor in node.inputs:
            source, width = above(tensor, facts), length(tensor, place)
            step = follower(source, width, axis, facts) if source is not None and width is not None else None
            if step is None or width is None or step.result is not tensor or facts.rank(source) != rank:
                return NoMatch("an input is not made by an operator that could be done below", node)
            if length(source, place) != width:
                return NoMatch("an operator before it may widen its input along the axis", node)
            found.append(step)
            widths.append(width)
            dtypes.add(source.dtype if source is not None else None)
        if len({f.key for f in found}) != 1:
            return NoMatch("its inputs are made by different operators", node)
        if len(dtypes) != 1 or not takes("Concat", facts.opset(node), dtypes.pop()):
            return NoMatch("the tensors are of types that Concat does not join", node)
        return EqualFollowers(node, axis, tuple(found), tuple(widths), facts)

    def rewrite(self, found: EqualFollowers, edit: Rewriter) -> None:
        concat = found.concat
        sources = [f.nodes[0].inputs[f.operand if len(f.nodes) == 1 else 0] for f in found.followers]
        below = edit.like(concat, sources)
        last = join_followers(found.followers, below.result, found.widths, found.axis, found.facts, edit, concatenate)
        edit.replace(concat, last)
