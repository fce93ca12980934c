"""Constants: what can be computed before the run is computed, as long as the model does not grow by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from graphopt.driver import Stop
from graphopt.graph import ArrayConstant, Constant, Model, Node, Tensor
from graphopt.inference import infer_types, is_unclear
from graphopt.pipeline import Context, Pass
from graphopt.rule import Rule
from graphopt_passes.constants.claims import tell_shapes
from graphopt_passes.constants.evaluator import evaluate
from graphopt_passes.constants.expands import SettleExpand
from graphopt_passes.constants.plan import make_plan
from graphopt_passes.constants.reshapes import SettleReshape
from graphopt_passes.constants.scatters import DropFullScatter
from graphopt_passes.constants.shapes import FoldShapeArithmetic
from graphopt_passes.constants.slices import SettleSlice
from graphopt_passes.constants.subgraphs import FoldConstantSubgraph
from graphopt_passes.constants.values import forget_values


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Folds shape arithmetic and constant subgraphs, until nothing more becomes known.

    A round folds what partly known shapes tell, then computes all constant subgraphs in one batch a graph. When that
    changed something and types are still unknown, they are inferred again for the next of at most `rounds` rounds.
    """

    name: ClassVar[str] = "fold-constants"
    rules: ClassVar[tuple[Rule[Any], ...]] = (
        FoldShapeArithmetic(),
        SettleReshape(),
        SettleExpand(),
        SettleSlice(),
        DropFullScatter(),
        FoldConstantSubgraph(),
    )

    rounds: int = 8

    def run(self, context: Context) -> str | None:
        """Runs rounds until one changes nothing."""
        for _ in range(self.rounds):
            before = len(context.edit.log.applications)
            forget_values(context.facts)
            stop = context.run_rules(self.rules[:-1])
            if stop == Stop.DONE:
                rule = computed_subgraphs(context)
                stop = context.run_rules([rule]) if rule.results or rule.refusals else Stop.DONE
            if stop != Stop.DONE:
                return stop
            changed = len(context.edit.log.applications) > before
            if not refine_types(context, changed) and not changed:
                break
        return Stop.DONE


def refine_types(context: Context, changed: bool) -> bool:
    """Infers types again where that may tell more than before; whether shapes were found that onnx did not know.

    `changed` says that something was folded since the last time.
    """
    told = tell_shapes(context.model, context.facts)
    if not told and changed and _has_unclear_types(context.model):
        infer_types(context.model)
    return told


def _has_unclear_types(model: Model) -> bool:
    """Whether there is a tensor, outside functions, of whose type inference might find out more."""
    functions = {f.body for f in model.functions.values()}
    graphs = (g for g in model.graphs() if g not in functions)
    tensors = (t for g in graphs for node in g.nodes for t in node.outputs if t is not None and t.constant is None)
    return any(is_unclear(t) for t in tensors)


def computed_subgraphs(context: Context) -> FoldConstantSubgraph:
    """The rule that puts the constant subgraphs of all graphs, now computed, in place."""
    results: dict[Tensor, Constant] = {}
    refusals: dict[Node, str] = {}
    if FoldConstantSubgraph.name in context.options.forbid or context.edit.exhausted:
        return FoldConstantSubgraph()
    for graph in list(context.model.graphs()):
        plan = make_plan(graph, context.facts, context.options.max_growth)
        results.update(plan.lazy)
        refusals.update(plan.refusals)
        for tensor, array in evaluate(plan.nodes, plan.kept).items():
            known_shape = context.facts.static_shape(tensor)
            if known_shape is None or known_shape == array.shape:
                results[tensor] = ArrayConstant(array)
    return FoldConstantSubgraph(results, refusals)


__all__ = ["FoldConstants"]
