"""Devices by name: what they can do at most, and what starting a kernel costs them.

Peak rates are the vendors' figures for dense arithmetic (never the doubled "with sparsity" ones). What a launch costs
was measured where it says so, else it is taken from the nearest measured device.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from graphopt.errors import PipelineError

TERA = 1e12
GIGA = 1e9
MICRO = 1e-6
MIB = float(1 << 20)

_HALF = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_EIGHT = {
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.FLOAT8E4M3FN,
    TensorProto.FLOAT8E4M3FNUZ,
    TensorProto.FLOAT8E5M2,
    TensorProto.FLOAT8E5M2FNUZ,
}


@dataclass(frozen=True)
class Device:
    """A device that runs models.

    `matrix` and `matrix16`, `matrix8` are FLOP/s of matrix products in fp32 (TF32 where the device has it), in fp16
    and bf16, in int8 and fp8; `vector` is FLOP/s of everything else in fp32. `bandwidth` is bytes/s of memory, `cache`
    the bytes of the last-level cache and `cache_bandwidth` its bytes/s. `units` is the number of multiprocessors (GPU)
    or cores (CPU). Times in seconds: `kernel` is the least that a kernel takes from the one before to the one after,
    `dispatch` what the host needs to issue one operator, `upload` what a small host-to-device copy between two kernels
    takes, `stall` what a run with any such copies takes more, whatever their number, when issued one by one.
    """

    name: str
    matrix: float
    matrix16: float
    matrix8: float
    vector: float
    bandwidth: float
    cache: float
    cache_bandwidth: float
    units: int
    kernel: float
    dispatch: float
    upload: float
    stall: float

    def matrix_rate(self, dtype: int | None) -> float:
        """FLOP/s of a matrix product in the ONNX data type `dtype`."""
        if dtype in _EIGHT:
            return self.matrix8
        return self.matrix16 if dtype in _HALF else self.matrix

    @property
    def is_cpu(self) -> bool:
        """Whether the host itself computes: nothing is launched, nothing overlaps."""
        return self.dispatch == 0


_LISTED = (
    # NVIDIA H200 data sheet (SXM): TF32 989, FP16 1979, FP8 3958 with sparsity, halved here; FP32 67; 4.8 TB/s.
    # H100 white paper: 132 SMs, 50 MB L2. Launch figures: ONNX Runtime 1.31 on an H200 (see tests/graphopt/cost).
    Device(
        "h200",
        494.7 * TERA,
        989.4 * TERA,
        1978.9 * TERA,
        66.9 * TERA,
        4800 * GIGA,
        50 * MIB,
        8000 * GIGA,
        132,
        kernel=2.5 * MICRO,
        dispatch=7.0 * MICRO,
        upload=3.6 * MICRO,
        stall=125 * MICRO,
    ),
    # NVIDIA A100 80GB SXM data sheet: FP32 19.5, TF32 156, FP16 312, INT8 624; 2039 GB/s. A100 white paper: 108 SMs,
    # 40 MB L2.
    Device(
        "a100",
        156 * TERA,
        312 * TERA,
        624 * TERA,
        19.5 * TERA,
        2039 * GIGA,
        40 * MIB,
        4500 * GIGA,
        108,
        kernel=3.0 * MICRO,
        dispatch=10.0 * MICRO,
        upload=3.6 * MICRO,
        stall=125 * MICRO,
    ),
    # NVIDIA L4 data sheet: FP32 30.3, TF32 120, FP16 242, INT8 485 with sparsity, halved here; 300 GB/s. Ada white
    # paper: 58 SMs, 48 MB L2.
    Device(
        "l4",
        60 * TERA,
        121 * TERA,
        242.5 * TERA,
        30.3 * TERA,
        300 * GIGA,
        48 * MIB,
        1500 * GIGA,
        58,
        kernel=3.0 * MICRO,
        dispatch=10.0 * MICRO,
        upload=3.6 * MICRO,
        stall=125 * MICRO,
    ),
    # NVIDIA Ada white paper, appendix A (RTX 4090): FP32 82.6, TF32 82.6, FP16 with FP32 accumulation 165.2, INT8
    # 660.6; 1008 GB/s; 128 SMs; 72 MB L2.
    Device(
        "rtx4090",
        82.6 * TERA,
        165.2 * TERA,
        660.6 * TERA,
        82.6 * TERA,
        1008 * GIGA,
        72 * MIB,
        4500 * GIGA,
        128,
        kernel=2.5 * MICRO,
        dispatch=8.0 * MICRO,
        upload=3.6 * MICRO,
        stall=125 * MICRO,
    ),
    # NVIDIA Jetson AGX Orin technical brief (64 GB): GPU INT8 170 TOPS with sparsity, halved here, FP16 half of that,
    # TF32 half again; FP32 5.3; 204.8 GB/s; 16 SMs; 4 MB L2. Its Arm cores issue launches at about half the speed.
    Device(
        "orin",
        21.25 * TERA,
        42.5 * TERA,
        85 * TERA,
        5.3 * TERA,
        204.8 * GIGA,
        4 * MIB,
        600 * GIGA,
        16,
        kernel=5.0 * MICRO,
        dispatch=20.0 * MICRO,
        upload=7.2 * MICRO,
        stall=250 * MICRO,
    ),
    # Eight server cores with AVX-512 at 2.6 GHz: 2 FMA units x 16 lanes x 2 FLOP a cycle (Intel 64 optimization
    # manual); VNNI doubles twice for int8; eight channels of DDR4-3200, of which eight cores reach about 100 GB/s.
    Device(
        "cpu",
        1.33 * TERA,
        1.33 * TERA,
        5.3 * TERA,
        0.66 * TERA,
        100 * GIGA,
        32 * MIB,
        400 * GIGA,
        8,
        kernel=3.0 * MICRO,
        dispatch=0.0,
        upload=0.0,
        stall=0.0,
    ),
)

DEVICES: dict[str, Device] = {device.name: device for device in _LISTED}


def find_device(name: str) -> Device:
    """The device called `name`. Raises PipelineError for a name that is not in the table."""
    if name not in DEVICES:
        raise PipelineError(f"there is no device '{name}'; the known ones are: {', '.join(DEVICES)}.")
    return DEVICES[name]
