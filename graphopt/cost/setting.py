"""Where a graph is going to run: what every prediction depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TypeVar

from graphopt.cost.devices import Device, find_device
from graphopt.errors import PipelineError
from graphopt.graph import Shape, Tensor, bits_of
from graphopt.pipeline import Options
from graphopt.targets import Target

# A symbolic dimension that is no batch (a length, a height) counts as this many.
LENGTH = 128


class Layout(str, Enum):
    """The order of axes in which a runtime keeps image tensors."""

    NCHW = "nchw"
    NHWC = "nhwc"


class Launch(str, Enum):
    """How kernels get to the device: issued one by one by the host, or replayed from a captured (CUDA) graph."""

    EAGER = "eager"
    CAPTURED = "captured"


Choice = TypeVar("Choice", Layout, Launch)


def _named(kind: type[Choice], name: str, what: str) -> Choice:
    known = {choice.value: choice for choice in kind}
    if name not in known:
        raise PipelineError(f"there is no {what} '{name}'; the known ones are: {', '.join(known)}.")
    return known[name]


@lru_cache(maxsize=1 << 14)
def _numbers(shape: Shape, batch: int) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else (batch if axis == 0 else LENGTH) for axis, d in enumerate(shape))


@dataclass(frozen=True)
class Setting:
    """Device, runtime, batch size, layout and way of launching."""

    device: Device = field(default_factory=lambda: find_device("h200"))
    target: Target = Target.TENSORRT
    batch: int = 1
    layout: Layout = Layout.NCHW
    launch: Launch = Launch.EAGER

    @classmethod
    def of(cls, options: Options) -> Setting:
        """The setting that a run's options name. Raises PipelineError for an unknown device, layout or launch."""
        layout, launch = _named(Layout, options.layout, "layout"), _named(Launch, options.launch, "launch")
        return cls(find_device(options.device), options.target, options.batch or 1, layout, launch)

    @property
    def is_tensorrt(self) -> bool:
        """Whether TensorRT makes the kernels; the other targets are run by ONNX Runtime."""
        return self.target is Target.TENSORRT

    @property
    def issues_one_by_one(self) -> bool:
        """Whether the host pays for every operator. A TensorRT engine's queue is short and usually captured."""
        return self.launch is Launch.EAGER and not self.is_tensorrt and not self.device.is_cpu

    def dims(self, tensor: Tensor | None) -> tuple[int, ...] | None:
        """The shape in numbers: an unknown first dimension is `batch`, another one `LENGTH`; None without a rank."""
        if tensor is None or tensor.shape is None:
            return None
        return _numbers(tensor.shape, self.batch)

    def elements(self, tensor: Tensor | None) -> int:
        """The number of elements; 0 when the rank is unknown or the tensor absent."""
        dims = self.dims(tensor)
        return 0 if dims is None else math.prod(dims)

    def nbytes(self, tensor: Tensor | None) -> float:
        """The bytes of the tensor's values, packed; an unknown dtype counts four bytes an element."""
        bits = bits_of(tensor.dtype) if tensor is not None and tensor.dtype is not None else None
        return self.elements(tensor) * (bits or 32) / 8
