"""The worklist: rules are tried at each node in topological order, and again only where something changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from graphopt.facts import Facts
from graphopt.graph import Node
from graphopt.rewrite import Rewriter
from graphopt.rule import ANY, NeedsOpset, NoMatch, Refused, Rule

# A fixed point that needs more applications than this per node is none: two rules undo each other.
MOST_APPLICATIONS_PER_NODE = 8
LEAST_APPLICATIONS = 1000


class Stop:
    """Why a run of the driver ended."""

    DONE = "done"
    LIMIT = "limit"  # the limit on applications, for bisection
    CYCLE = "cycle"  # rules that undo each other


def run_rules(rules: Sequence[Rule[Any]], facts: Facts, edit: Rewriter) -> str:
    """Applies `rules` in all graphs of the model until none matches; returns the stop reason.

    Time is O(nodes + applications): rules are indexed by their root operator, an application re-queues its neighbours
    only. When the number of applications passes the bound, the rules that fired last are logged as undoing each other.
    """
    rules_at = _Index(rules)
    graphs = list(facts.model.graphs())
    nodes = sum(len(graph.nodes) for graph in graphs)
    bound = max(LEAST_APPLICATIONS, MOST_APPLICATIONS_PER_NODE * nodes) + len(edit.log.applications)
    queue = deque(node for graph in graphs for node in graph.sorted_nodes() if rules_at[node.op])
    queued = set(queue)
    while queue:
        node = queue.popleft()
        queued.discard(node)
        if node.is_erased:
            continue
        if _rewrite_at(node, rules_at[node.op], facts, edit):
            for touched in edit.touched:
                if touched not in queued and rules_at[touched.op] and not touched.is_erased:
                    queued.add(touched)
                    queue.append(touched)
            if not node.is_erased and node not in queued:
                queued.add(node)
                queue.appendleft(node)
        if edit.log.stopped_at_limit:
            return Stop.LIMIT
        if len(edit.log.applications) > bound:
            recent = {a.rule for a in edit.log.applications[-20:]}
            edit.log.refuse(" / ".join(sorted(recent)), "these rules undo each other; stopped", node)
            return Stop.CYCLE
    return Stop.DONE


class _Index(dict[str, "tuple[Rule[Any], ...]"]):
    """The rules to try at a node, by its operator: those that name it as a root, then those of any root."""

    def __init__(self, rules: Sequence[Rule[Any]]) -> None:
        super().__init__()
        self._anywhere = tuple(rule for rule in rules if ANY in rule.roots)
        for rule in rules:
            for root in rule.roots:
                if root != ANY:
                    self[root] = (*self.get(root, ()), rule)
        for root in self:
            self[root] += self._anywhere

    def __missing__(self, op: str) -> tuple[Rule[Any], ...]:
        return self._anywhere


def _rewrite_at(node: Node, rules: Sequence[Rule[Any]], facts: Facts, edit: Rewriter) -> bool:
    """Whether one of `rules` was applied at `node`: the first that matches and is not refused."""
    misses = edit.log.misses
    for rule in rules:
        found = rule.match(node, facts)
        if type(found) is NoMatch:
            misses[rule.name, found.reason] = None
        elif isinstance(found, Refused):
            edit.log.refuse(rule.name, found.reason, found.node)
            if isinstance(found, NeedsOpset):
                edit.log.newer[rule.name, found.reason] = found.operator, found.opset
        elif edit.apply(rule, node, _rewriting(rule, found)) is not None:
            return True
    return False


def _rewriting(rule: Rule[Any], found: Any) -> Callable[[Rewriter], None]:
    return lambda edit: rule.rewrite(found, edit)
