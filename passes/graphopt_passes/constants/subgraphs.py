"""Constant subgraphs, once they are computed, become constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphopt.facts import Facts
from graphopt.graph import Constant, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt.rule import ANY, NoMatch, Refused, Rule
from graphopt_passes.constants.folding import problem_of_settling, settle, used_outputs


@dataclass(frozen=True)
class Computed:
    """Outputs and their values."""

    outputs: tuple[tuple[Tensor, Constant], ...]


class FoldConstantSubgraph(Rule[Computed]):
    """f(c1, c2, ...) = c, where f is a subgraph of deterministic operators and c1, c2, ... are constant.

    The values were computed beforehand by the pass, in batches; this rule puts them in place, one node an application.
    Never folded: random operators, training-mode BatchNormalization, Dropout, what comes from DequantizeLinear and is
    not quantized again (it would undo the quantization), results that make the model larger than allowed, and what has
    an unknown size.

    Opsets: all. Exactness: exact (the numbers of ONNX Runtime's CPU kernels, optimizations off).
    """

    roots = (ANY,)

    def __init__(
        self, results: Mapping[Tensor, Constant] | None = None, refusals: Mapping[Node, str] | None = None
    ) -> None:
        self.results = results or {}
        self.refusals = refusals or {}

    def match(self, node: Node, facts: Facts) -> Computed | NoMatch:
        if node in self.refusals:
            return Refused(self.refusals[node], node)
        computed = [(t, self.results[t]) for t in used_outputs(node) if t in self.results]
        if not computed:
            return NoMatch("it was not computed", node)
        problems = [problem_of_settling(t, c) for t, c in computed]
        outputs = tuple([each for each, problem in zip(computed, problems, strict=True) if problem is None])
        return Computed(outputs) if outputs else NoMatch(problems[0] or "", node)

    def rewrite(self, found: Computed, edit: Rewriter) -> None:
        for tensor, constant in found.outputs:
            settle(tensor, constant, edit)
