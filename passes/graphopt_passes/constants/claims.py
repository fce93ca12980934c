"""Shapes that inference is told: those that rest on each other are shown together.

A Reshape's result has the dimension n that its target asks for, unless n is 0 at run time and the 0 copies another
dimension. Which one it copies is often known only when the results before it are. So all are claimed at once, and types
inferred from that; then each claim must hold by what is known of its input. Claims that do not are withdrawn, with
all that was inferred. As every claim rests on tensors before it only, those that are left are true, the first one
first.
"""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Model, Shape, Tensor
from graphopt.inference import infer_types
from graphopt_passes.constants.refine import Place, claimed_shapes, doubtful_places
from graphopt_passes.constants.values import forget_values, known_values

# So often claims are withdrawn; then the doubtful ones are given up.
ATTEMPTS = 4
# So often claims are made of what earlier ones told, before they are judged.
STEPS = 6


def tell_shapes(model: Model, facts: Facts) -> bool:
    """Infers types anew with all shapes that can be shown; False, and nothing done, when there are none to tell."""
    refused: frozenset[Place] | None = frozenset()
    noted = _Noted(model)
    for left in reversed(range(ATTEMPTS)):
        claimed = _tell_all(model, facts, refused)
        if claimed is None:
            return False
        false = _false_claims(claimed, facts) if claimed else frozenset()
        if not false:
            return True
        noted.restore(model)
        forget_values(facts)
        refused = refused | false if left > 1 and refused is not None else None
    return False


def _tell_all(model: Model, facts: Facts, refused: frozenset[Place] | None) -> set[Place] | None:
    """Infers types from claims, and claims from types, while that tells more; the doubtful claims among all of them.

    None when there was nothing to claim. Where nothing is doubtful, one step is enough: the caller comes back.
    """
    doubtful: set[Place] = set()
    before = 0
    for step in range(STEPS):
        claims = claimed_shapes(model.graph, facts, refused)
        if not claims.shapes:
            return doubtful if step else None
        if step and len(claims.shapes) >= before:
            break
        before = len(claims.shapes)
        doubtful |= claims.doubtful
        infer_types(model, proven=claims.shapes)
        forget_values(facts)
        if not doubtful:
            break
    return doubtful


def _false_claims(doubtful: set[Place], facts: Facts) -> frozenset[Place]:
    """The doubtful dimensions that are doubtful still."""
    values = known_values(facts)
    results = {tensor for tensor, _ in doubtful}
    places = {t: doubtful_places(t.producer, values) for t in results if t.producer is not None}
    unknown = {t for t in results if t.producer is None or values.of(t.producer.input(1)) is None}
    return frozenset((t, place) for t, place in doubtful if t in unknown or place in places[t])


class _Noted:
    """The types of all tensors, to be put back."""

    def __init__(self, model: Model) -> None:
        self._types: list[tuple[Tensor, int | None, Shape | None]] = []
        self._proven = dict(model.proven)
        for graph in model.graphs():
            made = [t for node in graph.nodes for t in node.outputs if t is not None]
            self._types += [(t, t.dtype, t.shape) for t in (*graph.inputs, *made) if t.constant is None]

    def restore(self, model: Model) -> None:
        """Undoes what inference noted since."""
        model.proven = self._proven
        for tensor, dtype, shape in self._types:
            tensor.dtype, tensor.shape = dtype, shape
