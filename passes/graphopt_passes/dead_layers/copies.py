"""Operators that copy: Identity, Dropout at inference, casts to the type that is there, joins and splits of one."""

from __future__ import annotations

from graphopt.facts import SMALL_BYTES, Facts
from graphopt.graph import Node, SparseConstant, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.common.arguments import Ints, ints_argument
from graphopt_passes.common.pure import is_inference_dropout
from graphopt_passes.dead_layers.wires import NoOp, returned


class DropIdentity(NoOp):
    """Identity(x) = x, of any type and shape. Opset 1 on. Exact."""

    roots = ("Identity",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        return returned(node.input(0), node)


class DropDropout(NoOp):
    """Dropout(x) = x at inference, or with ratio 0.

    See `is_inference_dropout` for the conditions of each opset. Opset 1 on. Exact. A mask that is read is made constant
    by `DropoutMaskIsTrue` first.
    """

    roots = ("Dropout",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        if not is_inference_dropout(node, facts):
            return NoMatch("it may drop elements at run time", node)
        return returned(node.input(0), node)


class DropCastToSameType(NoOp):
    """Cast(x, to=T) = x and CastLike(x, t) = x where x already has the dtype T. Opset 1 on, CastLike 15 on. Exact."""

    roots = ("Cast", "CastLike")

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        x = node.input(0)
        if x is None or x.dtype is None:
            return NoMatch("the dtype of its input is unknown", node)
        if node.op == "Cast":
            to = node.attrs.get("to")
            if isinstance(to, str):  # opset 1 to 5 name the type
                return NoMatch("it names its type in the way of opset 1", node)
        else:
            like = node.input(1)
            to = like.dtype if like is not None else None
        return x if to == x.dtype else NoMatch("it changes the dtype", node)


class CastLikeToCast(Rule[tuple[Node, int]]):
    """CastLike(x, t) = Cast(x, to = dtype of t), so that t need not be computed for its dtype. Opset 15 on. Exact."""

    roots = ("CastLike",)

    def match(self, node: Node, facts: Facts) -> tuple[Node, int] | NoMatch:
        like = node.input(1)
        if like is None or like.dtype is None:
            return NoMatch("the dtype to cast to is unknown", node)
        return node, like.dtype

    def rewrite(self, found: tuple[Node, int], edit: Rewriter) -> None:
        node, dtype = found
        edit.replace(node, edit.node("Cast", node.inputs[:1], {**node.attrs, "to": dtype}, name=node.name))


class ConstantToOutput(Rule[Node]):
    """Identity(w) that is an output of the model, w constant, becomes an initializer under the output's name.

    Not in bodies and functions, and not where a large w would be stored twice because others read it too. Opset 1 on.
    Exact.
    """

    roots = ("Identity",)

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        w, output = node.input(0), node.output(0)
        if w is None or output is None or w.constant is None or isinstance(w.constant, SparseConstant):
            return NoMatch("its input is not a constant", node)
        main = facts.model.graph
        if not output.listings or any(graph is not main for graph, _ in output.listings):
            return NoMatch("it is not an output of the model alone", node)
        if w.uses > 1 and w.constant.nbytes > SMALL_BYTES:
            return NoMatch("others read the large constant too", node)
        return node

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        w = found.inputs[0]
        assert w is not None
        assert w.constant is not None
        edit.forward(found.result, edit.constant(w.constant, w.name))


class DropJoinOfOne(NoOp):
    """Concat(x), Sum(x), Mean(x), Max(x) and Min(x) of one input = x. Opset 1 on. Exact."""

    roots = ("Concat", "Sum", "Mean", "Max", "Min")

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        if len(node.inputs) != 1:
            return NoMatch("it has several inputs", node)
        return returned(node.input(0), node)


class DropSplitIntoOne(NoOp):
    """Split(x) with one output = x, its size absent or that of x on the axis. Opset 1 on. Exact."""

    roots = ("Split",)

    def source(self, node: Node, facts: Facts) -> Tensor | NoMatch:
        if len(node.outputs) != 1:
            return NoMatch("it has several outputs", node)
        sizes = ints_argument(node, facts, "split", 1)
        if sizes is None:
            return NoMatch("its sizes are computed at run time", node)
        if not self._covers(node, facts, sizes):
            return NoMatch("its size is not known to be that of its input", node)
        return returned(node.input(0), node)

    def _covers(self, node: Node, facts: Facts, sizes: Ints) -> bool:
        if sizes.values is None:
            return node.int_attr("num_outputs", 1) == 1
        x = node.input(0)
        rank = facts.rank(x)
        axis = node.int_attr("axis", 0)
        if x is None or x.shape is None or rank is None or not -rank <= axis < rank:
            return False
        return sizes.values == (x.shape[axis],)
