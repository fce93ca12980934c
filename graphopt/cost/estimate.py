"""From work to seconds, by a roofline with launch costs.

A device takes, for each kernel, the longest of its arithmetic, its traffic and the least time of a kernel (Williams,
Waterman, Patterson, "Roofline", CACM 2009). Matrix products are done in tiles, handed out to the multiprocessors in
waves: a product too small to fill the device takes as long as a larger one (NVIDIA, "Matrix Multiplication Background
User's Guide", wave quantization). The host issues ahead of the device, so a graph takes about the larger of both sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from graphopt.cost.arithmetic import Product
from graphopt.cost.devices import Device
from graphopt.cost.kernels import Work, work_of
from graphopt.cost.setting import Setting
from graphopt.cost.view import Now, View
from graphopt.graph import Node

# tiles that libraries choose from, rows by columns, and what each reaches of the best one's rate: smaller ones read
# their operands more often
TILES = ((128, 128, 1.0), (128, 64, 0.9), (64, 64, 0.75), (64, 32, 0.55), (32, 32, 0.4))
TILE_DEPTH = 256
# what good kernels reach of the peak rates
MATRIX_SHARE = 0.5
VECTOR_SHARE = 0.5
MEMORY_SHARE = 0.8
# A copy that TensorRT inserts ties branches together that it would run side by side: it costs this much of a launch
# more. Found by comparing engines' kernel lists: merges that trade a conv for a copy did not pay.
COPY_SURCHARGE = 0.5
# exponent of the soft maximum of host's and device's time
OVERLAP = 4.0


@dataclass(frozen=True)
class Cost:
    """What running nodes takes: arithmetic, bytes, launches, and small uploads between those.

    Seconds on the device, and seconds of the host issuing, without what the first upload costs a run (`run_seconds`).
    """

    flops: float = 0.0
    read: float = 0.0
    written: float = 0.0
    kernels: int = 0
    device_seconds: float = 0.0
    host_seconds: float = 0.0
    uploads: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops,
            self.read + other.read,
            self.written + other.written,
            self.kernels + other.kernels,
            self.device_seconds + other.device_seconds,
            self.host_seconds + other.host_seconds,
            self.uploads + other.uploads,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.flops - other.flops,
            self.read - other.read,
            self.written - other.written,
            self.kernels - other.kernels,
            self.device_seconds - other.device_seconds,
            self.host_seconds - other.host_seconds,
            self.uploads - other.uploads,
        )


NOTHING = Cost()


def run_seconds(cost: Cost, setting: Setting) -> float:
    """The predicted time of nodes as a whole graph."""
    return soft_maximum(cost.device_seconds, cost.host_seconds) + stall_seconds(cost.uploads, setting)


def stall_seconds(uploads: int, setting: Setting) -> float:
    """What a run pays once for having uploads at all, when its kernels are issued one by one."""
    return setting.device.stall if uploads > 0 and setting.issues_one_by_one else 0.0


def soft_maximum(a: float, b: float) -> float:
    """The larger of two times, or a little more when they are close: they overlap, not perfectly."""
    a, b = max(a, 0.0), max(b, 0.0)
    top = max(a, b)
    return 0.0 if top == 0 else float(top * ((a / top) ** OVERLAP + (b / top) ** OVERLAP) ** (1 / OVERLAP))


def estimate(nodes: Iterable[Node], setting: Setting, view: View | None = None) -> Cost:
    """What `nodes` cost in `setting`, where they stand in `view` (the graph as it is, unless told)."""
    view = view or Now()
    parts = [cost for node in nodes if (cost := node_cost(node, setting, view)) is not NOTHING]
    return Cost(
        sum((part.flops for part in parts), 0.0),
        sum((part.read for part in parts), 0.0),
        sum((part.written for part in parts), 0.0),
        sum(part.kernels for part in parts),
        sum((part.device_seconds for part in parts), 0.0),
        sum((part.host_seconds for part in parts), 0.0),
        sum(part.uploads for part in parts),
    )


def node_cost(node: Node, setting: Setting, view: View) -> Cost:
    """What one node costs; bodies count once, whatever the number of iterations."""
    if node.bodies:
        return estimate((inner for body in node.subgraphs() for inner in body.nodes), setting, view)
    work = work_of(node, view, setting)
    if not (work.kernels or work.flops):
        return NOTHING
    dtype = next((t.dtype for t in node.inputs if t is not None), None)
    device = setting.device
    busy = max(_arithmetic(work, dtype, device), _traffic(work, device))
    host = (device.dispatch * work.kernels + device.upload * work.uploads) if setting.issues_one_by_one else 0.0
    launches = work.kernels + COPY_SURCHARGE * work.copies
    seconds = busy + device.kernel * launches + device.upload * work.uploads
    return Cost(work.flops, work.read, work.written, work.kernels, seconds, host, work.uploads)


def _arithmetic(work: Work, dtype: int | None, device: Device) -> float:
    """Seconds of arithmetic at the rates that are reached."""
    matrix = sum(_product_seconds(p, dtype, device) for p in work.products)
    rest = work.flops - sum(p.flops for p in work.products)
    return matrix + rest / (device.vector * VECTOR_SHARE)


def _product_seconds(product: Product, dtype: int | None, device: Device) -> float:
    """Tiles of the result, cut along the inner dimension too, in waves over the multiprocessors; by the best tile."""
    rate = device.matrix_rate(dtype) * MATRIX_SHARE * product.share
    if device.is_cpu:
        return product.flops / rate
    depth = min(TILE_DEPTH, max(product.inner, 16))
    cuts = product.count * math.ceil(product.inner / depth)
    return min(
        math.ceil(cuts * math.ceil(product.rows / rows) * math.ceil(product.columns / columns) / device.units)
        * (2.0 * rows * columns * depth * device.units / (rate * share))
        for rows, columns, share in TILES
    )


def _traffic(work: Work, device: Device) -> float:
    """Seconds of moving bytes; what fits into half the last-level cache was left there by the producer."""
    moved = work.read + work.written
    rate = device.cache_bandwidth if moved <= device.cache / 2 else device.bandwidth
    return moved / (rate * MEMORY_SHARE)
