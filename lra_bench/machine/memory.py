"""The memory of the local devices: the bytes that are free, and the most that were in use."""

from __future__ import annotations

import jax
import psutil

from lra_bench.machine.xla import Cost
from lra_bench.progress import bytes_in_words


def free_memory() -> int:
    """The bytes that are free on the fullest local device; on a CPU, those of the machine."""
    free = []
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        known = "bytes_limit" in stats
        free.append(stats["bytes_limit"] - stats["bytes_in_use"] if known else psutil.virtual_memory().available)
    return min(free)


def memory_needed(cost: Cost) -> str:
    """What a training step needs on each device, as the compiler estimates it, beside what is free, as a clause."""
    needed, free = cost.peak_bytes, free_memory()
    too_little = ", which is too little: --remat and --microbatch need less" if needed > free else ""
    return f"a step takes about {bytes_in_words(needed)} on each device, of {bytes_in_words(free)} free{too_little}"


def peak_memory() -> int | None:
    """The most bytes ever in use on the fullest local device; None on devices that do not count them, such as CPUs."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in found if "peak_bytes_in_use" in stats]
    return max(peaks) if peaks else None


class PeakMemory:
    """A context that finds the peak memory of the fullest device while it is active.

    A device's own peak never falls, so it belongs to this context only if it rose. Otherwise `fields` uses the
    compiler's estimate.
    """

    def __enter__(self) -> PeakMemory:
        self._before = peak_memory()
        return self

    def __exit__(self, *_: object) -> None:
        self._after = peak_memory()

    def fields(self, cost: Cost) -> dict[str, object]:
        """The two fields of a measurement: the bytes, and their source."""
        if self._after is not None and self._before is not None and self._after > self._before:
            return {"peak_memory_bytes": self._after, "peak_memory_source": "device"}
        return {"peak_memory_bytes": cost.peak_bytes, "peak_memory_source": "compiler estimate"}
