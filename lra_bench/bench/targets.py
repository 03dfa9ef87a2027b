"""The GPUs for which `bench --target` compiles: how XLA knows them, and the rates that a prediction assumes.

The bandwidth of the H200 is that of a copy, read and written, measured there (JAX 0.11.2, 2026-11-27). The rates of
products are round figures between those of a step's own products and those of large square ones: in float32 and TF32,
S5's products of Pathfinder ran at 51 and 142 TFLOP/s, and a product of 8192 rows at 51 and 434. With these rates, steps
were predicted 5–17 % shorter than measured. float64 was not measured.

The rates of the A100 are a description: those of the H200, scaled by the nominal figures of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lra_bench.bench.products import Rate, Work
from lra_bench.errors import UserError

LAUNCH_SECONDS = 2.5e-6
"""What each kernel takes beside its bytes and flops: an assumption about the smallest kernels, not a measurement."""

MEASURED_BYTES_PER_SECOND = 4.148e12
"""The bandwidth of a copy on the H200."""

MEASURED_FLOPS_PER_SECOND: Mapping[Rate, float] = {
    "float64": 26e12,  # not measured: the same share of the nominal rate as in float32
    "float32": 45e12,
    "tf32_x3": 83e12,
    "bfloat16_x6": 65e12,
    "bfloat16_x3": 130e12,
    "tf32": 250e12,
    "bfloat16": 400e12,
}
"""The rates of products on the H200."""


@dataclass(frozen=True)
class Target:
    """A GPU, by its nominal figures."""

    name: str
    title: str
    basis: str
    """Where its rates come from, as a sentence for the user."""
    device_kind: str
    """What JAX calls it."""
    compute_capability: tuple[int, int]
    multiprocessors: int
    cores_per_multiprocessor: int
    shared_memory: int
    """Bytes in a multiprocessor."""
    shared_memory_per_block: int
    """The most bytes that one block may ask for."""
    l2_cache: int
    memory: int
    """Bytes."""
    gigahertz: float
    bytes_per_second: float
    """The nominal bandwidth of its memory."""
    flops_per_second: Mapping[Rate, float]
    """The nominal rates of dense products."""

    def seconds(self, bytes_moved: int, work: Work) -> float:
        """The predicted seconds of a kernel: its bytes or its flops, whichever take longer, and its launch."""
        bandwidth = MEASURED_BYTES_PER_SECOND * self.bytes_per_second / H200.bytes_per_second
        multiplying = sum(flops / self.achieved(rate) for rate, flops in work.items())
        return max(bytes_moved / bandwidth, multiplying) + LAUNCH_SECONDS

    def achieved(self, rate: Rate) -> float:
        """The flops per second of products: the measured ones, scaled by the nominal figures."""
        return MEASURED_FLOPS_PER_SECOND[rate] * self.flops_per_second[rate] / H200.flops_per_second[rate]

    @property
    def description(self) -> str:
        """XLA's description of the device, a text in the format of protocol buffers."""
        major, minor = self.compute_capability
        return f"""gpu_device_info {{
            threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
            shared_memory_per_block: 49152 shared_memory_per_core: {self.shared_memory}
            shared_memory_per_block_optin: {self.shared_memory_per_block}
            core_count: {self.multiprocessors} fpus_per_core: {self.cores_per_multiprocessor}
            block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
            memory_bandwidth: {self.bytes_per_second:.0f} l2_cache_size: {self.l2_cache}
            clock_rate_ghz: {self.gigahertz} device_memory_size: {self.memory}
            cuda_compute_capability {{ major: {major} minor: {minor} }}
            registers_per_core_limit: 65536 registers_per_block_limit: 65536 }}
            platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 12 patch: 0 }}
            device_description_str: "{self.device_kind}" """


def nominal(float64: float, float32: float, tf32: float, bfloat16: float) -> dict[Rate, float]:
    """The nominal rates of products, of which those in several parts follow from the shorter format's."""
    return {
        "float64": float64,
        "float32": float32,
        "tf32_x3": tf32 / 3,
        "bfloat16_x6": bfloat16 / 6,
        "bfloat16_x3": bfloat16 / 3,
        "tf32": tf32,
        "bfloat16": bfloat16,
    }


H200 = Target(
    name="h200",
    title="NVIDIA H200 (141 GB)",
    basis="Rates from measurements on an H200.",
    device_kind="NVIDIA H200",
    compute_capability=(9, 0),
    multiprocessors=132,
    cores_per_multiprocessor=128,
    shared_memory=233_472,
    shared_memory_per_block=232_448,
    l2_cache=62_914_560,
    memory=150_754_820_096,
    gigahertz=1.98,
    bytes_per_second=4.8e12,
    flops_per_second=nominal(34e12, 67e12, 494e12, 989e12),
)

A100 = Target(
    name="a100",
    title="NVIDIA A100 SXM (80 GB)",
    basis="Rates described, not measured: nominal figures times the shares of them that an H200 reached.",
    device_kind="NVIDIA A100-SXM4-80GB",
    compute_capability=(8, 0),
    multiprocessors=108,
    cores_per_multiprocessor=64,
    shared_memory=167_936,
    shared_memory_per_block=166_912,
    l2_cache=41_943_040,
    memory=85_899_345_920,
    gigahertz=1.41,
    bytes_per_second=2.039e12,
    flops_per_second=nominal(9.7e12, 19.5e12, 156e12, 312e12),
)

TARGETS: Mapping[str, Target] = {target.name: target for target in (H200, A100)}


def find_target(name: str) -> Target:
    """The target of this name. Raises UserError, with the legal names, where there is none."""
    if name not in TARGETS:
        raise UserError(f"unknown target {name!r}; --target takes {' or '.join(TARGETS)}.")
    return TARGETS[name]
