"""The judge of rewrites that trade: each is priced before and after, and taken back when it would lose."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from graphopt.change import Change
from graphopt.cost.estimate import Cost, estimate, soft_maximum, stall_seconds
from graphopt.cost.setting import Setting
from graphopt.cost.view import MOST_READERS, Before, Now
from graphopt.graph import Model, Node
from graphopt.pipeline import Options
from graphopt.targets import Target

# A predicted gain smaller than this is within the model's error.
LEAST_GAIN = 0.98


@dataclass(frozen=True)
class Decision:
    """What the cost model said of one rewrite: `before` and `after` are predicted seconds of the nodes concerned.

    `reason` is one sentence for the report.
    """

    rule: str
    at: str
    before: float
    after: float
    taken: bool
    reason: str

    @property
    def key(self) -> str:
        """The rule and the place, as in `Application.key`."""
        return f"{self.rule}@{self.at}"

    @property
    def ratio(self) -> float:
        """After over before: below 1 is a gain."""
        return self.after / self.before if self.before > 0 else 1.0


class TradeJudge:
    """Judges changes by rules that trade; a judge of `graphopt.rewrite.Rewriter`.

    Rules named in `options.force` are taken whatever they cost. The seconds of host and device are weighed by what
    bounds the whole graph, which is priced once, when the first trade comes.
    """

    def __init__(self, options: Options, setting: Setting | None = None) -> None:
        self.options = options
        self.setting = setting or Setting.of(options)
        self._decisions: dict[tuple[str, str, bool], Decision] = {}
        self._total: Cost | None = None

    @property
    def decisions(self) -> list[Decision]:
        """The last that was taken and the last that was refused for each rule and place, in the order of the first."""
        return list(self._decisions.values())

    def __call__(self, change: Change) -> str | None:
        """None when the change may stay, else the sentence that says why it would lose."""
        if not change.rule.trades:
            return None
        nearby = neighbours(change)
        before = estimate((*change.consumed, *nearby), self.setting, Before(change))
        after = estimate((*change.made, *nearby), self.setting, Now())
        if self._total is None:
            self._total = estimate(_model_of(change).graph.nodes, self.setting) - after + before
        was, would_be = self._weighed(before), self._weighed(after)
        uploads = self._total.uploads  # the first in a graph costs most, the last to go gains most
        was += stall_seconds(uploads, self.setting)
        would_be += stall_seconds(uploads - before.uploads + after.uploads, self.setting)
        decision = self._decide(change, was, would_be, before, after)
        self._decisions[decision.rule, decision.at, decision.taken] = decision
        if decision.taken:
            self._total = self._total - before + after
            return None
        return decision.reason

    def _decide(self, change: Change, was: float, would_be: float, before: Cost, after: Cost) -> Decision:
        rule, at = change.rule.name, change.root.label
        verdict = self.options.verdicts.get(f"{rule}@{at}")
        if verdict is not None and rule not in self.options.force:
            reason = f"measured: {verdict.ratio:.2f} of the cost {'with' if verdict.take else 'without'} it"
            return Decision(rule, at, was, would_be, verdict.take, reason)
        where = f"{self.setting.target.value} on {self.setting.device.name}, batch {self.setting.batch}"
        if unknown_size(change) or not was > 0:
            taken = rule in self.options.force
            return Decision(rule, at, was, would_be, taken, "forced" if taken else _why_unpriced(change))
        figures = (
            f"{would_be / was:.2f} of the time predicted for {where}: {before.kernels} kernels become {after.kernels}, "
            f"{_mega(before)} MB moved become {_mega(after)}"
        )
        if rule in self.options.force:
            return Decision(rule, at, was, would_be, True, f"forced; {figures}")
        if would_be <= was * LEAST_GAIN and not self._only_moves_more(before, after):
            return Decision(rule, at, was, would_be, True, figures)
        loss = "would gain too little" if would_be < was else "would lose"
        return Decision(rule, at, was, would_be, False, f"{loss}: {figures}")

    def _only_moves_more(self, before: Cost, after: Cost) -> bool:
        """Whether TensorRT would launch as many kernels as before, for more bytes: then what is left of the gain is the
        shape of a product, which its builder chooses kernels for anyway.
        """
        moved, would_move = before.read + before.written, after.read + after.written
        is_tensorrt = self.setting.target is Target.TENSORRT
        return is_tensorrt and after.kernels >= before.kernels and would_move > moved

    def _weighed(self, cost: Cost) -> float:
        """Seconds by which the whole graph's time grows with `cost`, to first order."""
        assert self._total is not None
        host, device = max(self._total.host_seconds, 0.0), max(self._total.device_seconds, 0.0)
        top = soft_maximum(host, device)
        if top == 0:
            return cost.device_seconds
        return float(cost.host_seconds * (host / top) ** 3 + cost.device_seconds * (device / top) ** 3)


def neighbours(change: Change) -> tuple[Node, ...]:
    """The nodes that read what the change made: what they cost depends on who makes it."""
    made = set(change.made)
    tensors = [t for node in change.made for t in node.outputs if t is not None]
    tensors += change.replaced.values()
    found = dict.fromkeys(r for t in tensors for r in islice(t.consumers, MOST_READERS) if r not in made)
    return tuple(found)


def _model_of(change: Change) -> Model:
    """The model that the change is in: its root may be erased, its tensors still know."""
    return next(t.graph.model for t in (*change.root.inputs, *change.root.outputs) if t is not None)


def _why_unpriced(change: Change) -> str:
    if unknown_size(change):
        return "the shapes are not known, so its gain cannot be predicted"
    return "what it replaces takes no time, so there is nothing to gain"


def unknown_size(change: Change) -> bool:
    """Whether the rank of something that the consumed nodes made is unknown."""
    return any(t is not None and t.shape is None for outputs in change.consumed_outputs for t in outputs)


def _mega(cost: Cost) -> str:
    return f"{(cost.read + cost.written) / 1e6:.2f}"
