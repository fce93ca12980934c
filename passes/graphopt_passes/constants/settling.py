"""Operators that take a shape computed at run time, of which enough is known to write it down: what they share."""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.graph import Array, Node, Tensor
from graphopt.rewrite import Rewriter
from graphopt_passes.constants.folding import used_outputs
from graphopt_passes.constants.symbols import Element, Symbol
from graphopt_passes.constants.values import KnownValues


@dataclass(frozen=True)
class Settled:
    """Inputs of `node` that can be written down, by their index; attributes to give up."""

    node: Node
    inputs: tuple[tuple[int, Array], ...]
    without: str = ""


def put(found: Settled, edit: Rewriter) -> None:
    """Gives the node its constants, in place."""
    node = found.node
    if found.without and found.without in node.attrs:
        node = edit.like(node, **{found.without: None})
        edit.replace(found.node, node)
    for index, array in found.inputs:
        old = node.input(index)
        edit.set_input(node, index, edit.constant(array, f"{node.label}.settled"))
        maker = old.producer if old is not None else None
        if maker is not None and not used_outputs(maker):
            edit.erase(maker)


def with_inferred(elements: list[Element], result: Tensor | None, values: KnownValues) -> list[Element]:
    """The elements of a target shape, those that are symbols replaced by what inference knows of the result."""
    if result is None or result.shape is None or len(result.shape) != len(elements):
        return elements
    inferred = [values.symbols.dimension(result, axis) for axis in range(len(elements))]
    return [
        known if isinstance(element, Symbol) and _is_better(known) else element
        for element, known in zip(elements, inferred, strict=True)
    ]


def _is_better(known: Element) -> bool:
    """Inferred zeros are left alone: written into a shape they mean something else."""
    return not isinstance(known, Symbol) and known > 0
