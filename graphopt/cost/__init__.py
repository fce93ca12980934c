"""What a graph costs on a device: arithmetic, bytes, launches, memory, predicted time; and whether a rewrite pays."""

from graphopt.cost.devices import DEVICES, Device, find_device
from graphopt.cost.estimate import Cost, estimate, node_cost, run_seconds
from graphopt.cost.setting import Launch, Layout, Setting
from graphopt.cost.total import GraphCost, graph_cost, peak_activation
from graphopt.cost.trade import Decision, TradeJudge

__all__ = [
    "DEVICES",
    "Cost",
    "Decision",
    "Device",
    "GraphCost",
    "Launch",
    "Layout",
    "Setting",
    "TradeJudge",
    "estimate",
    "find_device",
    "graph_cost",
    "node_cost",
    "peak_activation",
    "run_seconds",
]
