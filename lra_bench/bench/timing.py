"""Timing: warm-up, windows and medians of repeated calls, and the best rates of the device itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lra_bench.machine.precision import activation_dtype, matmul_precision
from lra_bench.records.schema import Timing
from lra_bench.spec import Precision

Calls = Callable[[int], None]
"""A function that makes so many calls in as few dispatches as it can, and returns when the device has finished."""

ROOFLINE_SIZES = {True: (2048, 2**28), False: (8192, 2**31)}
"""The rows of the matrices and the bytes of the vector, on a CPU (True) and on an accelerator (False)."""


@dataclass(frozen=True)
class TimingSettings:
    """The durations of a measurement. Warm-up ends after `warmup_calls` or `warmup_seconds`, whichever is first."""

    windows: int = 5
    window_seconds: float = 0.5
    warmup_calls: int = 20
    warmup_seconds: float = 2.0


SMOKE_TIMING = TimingSettings(window_seconds=0.05, warmup_seconds=0.1)
"""The settings of `--smoke`."""


def seconds_of(calls: Calls, n: int) -> float:
    """The seconds that `n` calls take."""
    started = time.perf_counter()
    calls(n)
    return time.perf_counter() - started


def time_in_turn(contenders: Mapping[str, Calls], settings: TimingSettings) -> dict[str, Timing]:
    """Measure the seconds per call of each contender.

    Their windows alternate (A B A B), so that disturbances of the machine affect all of them alike.
    """
    sizes, warmups = {}, {}
    for name, calls in contenders.items():
        started, done = time.perf_counter(), 1
        calls(1)
        last = seconds_of(calls, 1)
        done += 1
        while done < settings.warmup_calls and time.perf_counter() - started < settings.warmup_seconds:
            n = min(settings.warmup_calls - done, max(1, int(settings.warmup_seconds / 4 / last)))
            last = seconds_of(calls, n) / n
            done += n
        sizes[name], warmups[name] = max(1, round(settings.window_seconds / last)), done
    windows: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(settings.windows):
        for name, calls in contenders.items():
            windows[name].append(seconds_of(calls, sizes[name]) / sizes[name])
    return {name: _timing(found, sizes[name], warmups[name]) for name, found in windows.items()}


def _timing(seconds: list[float], calls: int, warmup: int) -> Timing:
    q1, median, q3 = np.percentile(seconds, [25, 50, 75])
    return Timing(median=median, q1=q1, q3=q3, windows=len(seconds), calls=calls, warmup=warmup)


class Roofline(NamedTuple):
    """The best rates of the device in this process: a product of square matrices, and x + 1 in place."""

    flops_per_second: float
    bytes_per_second: float

    def or_better(self, other: Roofline | None) -> Roofline:
        """The better of both rates. Another process may have slowed the device down in one measurement."""
        return self if other is None else Roofline(*map(max, self, other))

    def seconds(self, flops: float, bytes_moved: float) -> float:
        """The least seconds of a program: its products at the product's rate, or its bytes at the copy's rate."""
        return max(flops / self.flops_per_second, bytes_moved / self.bytes_per_second)


def measure_roofline(precision: Precision, settings: TimingSettings) -> Roofline:
    """Measure the roofline by the fastest window of each of the two, with products at the run's precision.

    A run multiplies float32 matrices and matrices of its activations' dtype; the faster of both products counts.
    """
    size, bytes_each = ROOFLINE_SIZES[jax.default_backend() == "cpu"]
    increment = jax.jit(lambda x: x + 1, donate_argnums=0)
    vector = [jnp.zeros(bytes_each // 4, jnp.float32)]

    def products_of(dtype: Any) -> Calls:
        matrix = jnp.ones((size, size), dtype)
        with matmul_precision(precision):
            multiply = jax.jit(jnp.dot).lower(matrix, matrix).compile()

        def products(n: int) -> None:
            for _ in range(n):
                result = multiply(matrix, matrix)
            result.block_until_ready()

        return products

    def copies(n: int) -> None:
        for _ in range(n):
            vector[0] = increment(vector[0])
        vector[0].block_until_ready()

    def fastest(calls: Calls) -> float:
        calls(2)
        n = max(1, round(settings.window_seconds / 2 / seconds_of(calls, 1)))
        return min(seconds_of(calls, n) / n for _ in range(settings.windows))

    product = min(fastest(products_of(dtype)) for dtype in {jnp.float32, activation_dtype(precision)})
    return Roofline(2 * size**3 / product, 2 * bytes_each / fastest(copies))
