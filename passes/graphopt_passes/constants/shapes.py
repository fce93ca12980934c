"""Shape arithmetic whose result is known at compile time, though some of what it starts from is not."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import ArrayConstant, Constant, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from graphopt_passes.constants.folding import problem_of_settling, settle, used_outputs
from graphopt_passes.constants.operators import EVALUATORS
from graphopt_passes.constants.values import known_values


@dataclass(frozen=True)
class KnownOutputs:
    """The outputs that something reads, and their values."""

    outputs: tuple[tuple[Tensor, Constant], ...]


class FoldShapeArithmetic(Rule[KnownOutputs]):
    """f(shape(x), ...) = c, where the elements of the result that f picks or computes do not depend on the run time.

    f is any chain of Shape, Size, Gather, Slice, Concat, Split, Squeeze, Unsqueeze, Reshape, Transpose, Expand, Cast,
    integer arithmetic, comparisons, Where, Range, ConstantOfShape and ReduceProd on tensors of int32, int64 or bool
    with at most 256 elements. Dimensions that are not known are symbols: never negative, equal where their names are
    equal, and a result counts as known only if it is the same for all values of the symbols, 0 included.

    Opsets: all. Exactness: exact.
    """

    roots = tuple(EVALUATORS)

    def match(self, node: Node, facts: Facts) -> KnownOutputs | NoMatch:
        outputs = used_outputs(node)
        if not outputs:
            return NoMatch("nothing reads it", node)
        values = known_values(facts)
        found: list[tuple[Tensor, Constant]] = []
        for tensor in outputs:
            value = values.of(tensor)
            if value is None or not value.is_known:
                return NoMatch("its result depends on the run time", node)
            constant = ArrayConstant(value.array())
            problem = problem_of_settling(tensor, constant)
            if problem is not None:
                return NoMatch(problem, node)
            found.append((tensor, constant))
        return KnownOutputs(tuple(found))

    def rewrite(self, found: KnownOutputs, edit: Rewriter) -> None:
        for tensor, value in found.outputs:
            settle(tensor, value, edit)
