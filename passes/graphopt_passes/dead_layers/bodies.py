"""Loop and Scan seen alike: what is carried, what is collected, and the same node with less of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.facts import Facts
from graphopt.graph import Graph, Node, Tensor
from graphopt.graph.copies import Copier, tensors_read
from graphopt.rewrite import Rewriter
from graphopt.rule import RewriteRefusedError
from graphopt_passes.common.copying import can_copy


@dataclass(frozen=True)
class Iteration:
    """A Loop or Scan. Both read (`before`, carried values, `elements`) and make (carried values, collected values).

    `before` are a Loop's trip count and condition, which its body reads as iteration number and condition; its body
    makes the condition first (`leading` is 1). A Scan's body reads an element of each of the `elements` instead.
    So many values are carried at `least`: one by a Loop before opset 11.
    """

    node: Node
    body: Graph
    before: int
    leading: int
    carried: int
    elements: int
    collected: int
    least: int

    def entering(self, index: int) -> Tensor | None:
        """The value that carried value `index` starts with."""
        return self.node.input(self.before + index)

    def inside(self, index: int) -> Tensor:
        """Carried value `index` as the body reads it."""
        return self.body.inputs[self.before + index]

    def leaving(self, index: int) -> Tensor:
        """What the body makes of carried value `index`; from `carried` on, what it adds to a collected value."""
        return self.body.outputs[self.leading + index]

    def is_read(self, index: int) -> bool:
        """Whether anything reads the node's output `index`."""
        tensor = self.node.output(index)
        return tensor is not None and tensor.is_used


def iteration(node: Node, facts: Facts) -> Iteration | None:
    """The node as an iteration; None when it is not well-formed, or a Scan before opset 9 (those have a batch)."""
    bodies = node.bodies.get("body", ())
    if len(bodies) != 1 or bodies[0].defaults:
        return None
    body, is_loop = bodies[0], node.op == "Loop"
    if not is_loop and facts.opset(node) < 9:
        return None
    before, leading = (2, 1) if is_loop else (0, 0)
    elements = 0 if is_loop else node.int_attr("num_scan_inputs", 0)
    carried = len(body.inputs) - before - elements
    collected = len(body.outputs) - leading - carried
    fits = len(node.inputs) == len(body.inputs) or (is_loop and carried == 0 and len(node.inputs) <= before)
    if carried < 0 or collected < 0 or not fits or len(node.outputs) > carried + collected:
        return None
    if any(node.input(before + i) is None for i in range(carried + elements)):
        return None
    least = int(is_loop and facts.opset(node) < 11)
    return Iteration(node, body, before, leading, carried, elements, collected, least)


@dataclass(frozen=True)
class Kept:
    """What an iteration keeps: indices of carried values, elements and collected values, each in order."""

    carried: tuple[int, ...]
    elements: tuple[int, ...]
    collected: tuple[int, ...]


def trimmed(old: Iteration, kept: Kept, given: Mapping[Tensor, Tensor], edit: Rewriter) -> None:
    """Puts the iteration with only what is `kept` in its place; nothing where that is neither carried nor collected.

    `given` tells what the body reads in the place of inputs that it loses.
    """
    edit.revisit_owner()
    outputs = [*kept.carried, *(old.carried + i for i in kept.collected)]
    if not outputs:
        return
    node, first = old.node, old.before + old.carried
    reads = [*range(old.before), *(old.before + i for i in kept.carried), *(first + i for i in kept.elements)]
    made = Node(node.op_type, node.domain, name=node.name, attrs=_attributes(old, kept))
    made.position = node.position
    made.inputs = tuple(node.input(i) for i in reads)
    made.outputs = tuple(Tensor(edit.model.fresh_name(f"{node.label}.{i}"), node.owner) for i in outputs)
    copier = Copier(dict(given), lambda name: name)
    results = [*range(old.leading), *(old.leading + i for i in outputs)]
    nodes = needed(old.body, [old.body.outputs[i] for i in results])
    ordered = [n for n in old.body.sorted_nodes() if n in nodes]
    made.bodies = {"body": (copier.body(old.body, made, [old.body.inputs[i] for i in reads], results, ordered),)}
    edit.replace(node, edit.place(made), outputs)


def forwarded(old: Tensor | None, new: Tensor, edit: Rewriter) -> None:
    """Makes all that reads `old` read `new`, by an Identity where both names must stay.

    Raises RewriteRefusedError where an Identity must not do that.
    """
    edit.revisit_owner()
    if old is None or not old.is_used:
        return
    facts = Facts(edit.model)
    if not may_forward(old, new, facts):
        raise RewriteRefusedError("two names of one value must stay, and no Identity copies its type")
    edit.forward(old, new if facts.can_forward(old, new) else edit.node("Identity", [new]).result)


def may_forward(old: Tensor | None, new: Tensor, facts: Facts) -> bool:
    """Whether all that reads `old` may read `new`, or an Identity of it."""
    return old is None or not old.is_used or facts.can_forward(old, new) or can_copy(old, new, old.graph.opset)


def origin(tensor: Tensor) -> Tensor:
    """What a tensor is a copy of, through Identities."""
    while tensor.producer is not None and tensor.producer.op == "Identity":
        source = tensor.producer.input(0)
        if source is None:
            break
        tensor = source
    return tensor


def needed(body: Graph, results: Iterable[Tensor]) -> set[Node]:
    """The nodes of `body` that compute `results`."""
    found: set[Node] = set()
    stack = [t.producer for t in results if t.graph is body and t.producer is not None]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += [t.producer for t in tensors_read(node) if t.graph is body and t.producer is not None]
    return found


_OF_ELEMENTS = ("scan_input_axes", "scan_input_directions")
_OF_COLLECTED = ("scan_output_axes", "scan_output_directions")


def _attributes(old: Iteration, kept: Kept) -> dict[str, Any]:
    """The attributes, where they have an entry for each element or collected value without those that go."""
    attrs = dict(old.node.attrs)
    if "num_scan_inputs" in attrs:
        attrs["num_scan_inputs"] = len(kept.elements)
    for names, places in ((_OF_ELEMENTS, kept.elements), (_OF_COLLECTED, kept.collected)):
        for name in names:
            values = attrs.pop(name, None)
            if values is not None and places:  # an empty list has no type, and the checker refuses it
                attrs[name] = _picked(values, places)
    return attrs


def _picked(values: Sequence[int], places: Sequence[int]) -> tuple[int, ...]:
    return tuple(values[i] for i in places)
