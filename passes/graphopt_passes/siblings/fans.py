"""Which nodes that read one tensor are alike: found once a tensor, not once a reader."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from graphopt.graph import Node, Tensor

KeyOf = Callable[[Node], Hashable]


class Fans:
    """An index of siblings: for each tensor and rule, its readers by a key that says what they have in common.

    A fan is scanned when its first reader asks; later readers (new nodes) register themselves. What is remembered is
    checked when it is used, so the whole costs O(readers), however often groups change.
    """

    def __init__(self) -> None:
        self._fans: dict[tuple[str, Tensor], dict[Hashable, dict[Node, None]]] = {}

    def is_alone(self, rule: str, node: Node, tensor: Tensor) -> bool:
        """Whether `node` is the one reader of `tensor`, and no group of readers was looked for yet."""
        return len(tensor.consumers) == 1 and node in tensor.consumers and (rule, tensor) not in self._fans

    def group(self, rule: str, node: Node, tensor: Tensor, key_of: KeyOf) -> list[Node]:
        """The readers of `tensor` with `node`'s key when `node` is the first of them, else an empty list.

        A node that `rule` made asks for the others too, since the first of them was asked before it was there.
        `key_of` gives None for a node that can have no siblings.
        """
        key = key_of(node)
        if key is None:
            return []
        members = self._groups(rule, tensor, key_of).setdefault(key, {})
        members.setdefault(node)

        def holds(member: Node) -> bool:
            return not member.is_erased and member.input(0) is tensor and key_of(member) == key

        while not holds(first := next(iter(members))):
            del members[first]
        if first is not node and node.rule != rule:
            return []
        return [m for m in members if holds(m)]

    def forget(self) -> None:
        """Drops what is remembered: to be called when other passes may have added readers."""
        self._fans.clear()

    def _groups(self, rule: str, tensor: Tensor, key_of: KeyOf) -> dict[Hashable, dict[Node, None]]:
        place = (rule, tensor)
        if place not in self._fans:
            groups: dict[Hashable, dict[Node, None]] = {}
            for reader in tensor.consumers:
                key = key_of(reader)
                if key is not None:
                    groups.setdefault(key, {})[reader] = None
            self._fans[place] = groups
        return self._fans[place]
