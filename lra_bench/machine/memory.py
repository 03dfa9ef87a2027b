"""The memory of the local devices: how much is free, and the most that was in use."""

from __future__ import annotations

import jax
import psutil

from lra_bench.machine.xla import Cost


def free_memory() -> int:
    """Bytes free on the fullest local device; on a CPU those of the machine."""
    free = []
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        known = "bytes_limit" in stats
        free.append(stats["bytes_limit"] - stats["bytes_in_use"] if known else psutil.virtual_memory().available)
    return min(free)


def peak_memory() -> int | None:
    """The most bytes ever in use on the fullest local device; None where devices do not tell, as CPUs."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in found if "peak_bytes_in_use" in stats]
    return max(peaks) if peaks else None


class PeakMemory:
    """The peak of the fullest device while this context is active, else the compiler's estimate.

    A device's count never falls, so it tells of this context only where it rose.
    """

    def __enter__(self) -> PeakMemory:
        self._before = peak_memory()
        return self

    def __exit__(self, *_: object) -> None:
        self._after = peak_memory()

    def fields(self, cost: Cost) -> dict[str, object]:
        """The two fields of a measurement: the bytes and where they come from."""
        if self._after is not None and self._before is not None and self._after > self._before:
            return {"peak_memory_bytes": self._after, "peak_memory_source": "device"}
        return {"peak_memory_bytes": cost.peak_bytes, "peak_memory_source": "compiler estimate"}
