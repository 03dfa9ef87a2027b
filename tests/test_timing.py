"""Timing with care, on a clock of the test's own."""

import jax.numpy as jnp
import pytest

from lra_bench.bench import timing
from lra_bench.bench.timing import Roofline, TimingSettings, time_in_turn
from lra_bench.machine import memory
from lra_bench.machine.memory import PeakMemory, memory_needed
from lra_bench.machine.xla import Cost, compile_program


@pytest.fixture
def clock(monkeypatch):
    """Time passes only where `clock.now` is set forward."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


def contender(clock, seconds, log, name, first=0.0):
    """Calls of so many seconds each, the first of all of `first` more."""
    done = 0

    def calls(n):
        nonlocal done
        log.append((name, n))
        clock.now += seconds * n + (first if done == 0 else 0.0)
        done += n

    return calls


def test_windows_are_in_turn_and_warm_up_is_left_out(clock):
    log = []
    contenders = {"a": contender(clock, 0.1, log, "a", first=50.0), "b": contender(clock, 0.25, log, "b")}
    timings = time_in_turn(
        contenders, TimingSettings(windows=5, window_seconds=0.5, warmup_calls=20, warmup_seconds=2.0)
    )
    assert [name for name, _ in log[-10:]] == ["a", "b"] * 5
    assert timings["a"].median == timings["a"].q1 == pytest.approx(0.1)
    assert timings["b"].median == pytest.approx(0.25)
    assert (timings["a"].windows, timings["a"].calls, timings["b"].calls) == (5, 5, 2)
    for name in contenders:
        assert timings[name].warmup == sum(n for who, n in log[:-10] if who == name)
    assert timings["a"].warmup == 2, "its first call took longer than all of the warm-up may"
    assert 8 <= timings["b"].warmup <= 20


def test_fast_calls_are_warmed_up_twenty_times(clock):
    log = []
    found = time_in_turn({"a": contender(clock, 1e-4, log, "a")}, TimingSettings())["a"]
    assert found.warmup == 20
    assert found.calls == 5000


def test_median_and_quartiles_of_unequal_windows(clock):
    durations = iter([1.0, 1.0, 1.0, 5.0, 2.0, 3.0, 4.0, 1.0])

    def calls(n):
        clock.now += next(durations)

    found = time_in_turn({"a": calls}, TimingSettings(windows=5, window_seconds=0.5, warmup_seconds=3.0))["a"]
    assert (found.q1, found.median, found.q3, found.warmup) == (2.0, 3.0, 4.0, 3)


def test_roofline_is_the_larger_of_products_and_copies():
    roofline = Roofline(flops_per_second=100.0, bytes_per_second=10.0)
    assert roofline.seconds(200.0, 5.0) == 2.0
    assert roofline.seconds(200.0, 50.0) == 5.0
    assert roofline.or_better(Roofline(50.0, 20.0)) == Roofline(100.0, 20.0)
    assert roofline.or_better(None) == roofline


def test_measured_roofline_is_that_of_a_machine(monkeypatch):
    monkeypatch.setattr(timing, "ROOFLINE_SIZES", {True: (256, 2**22)})
    roofline = timing.measure_roofline("float32", TimingSettings(window_seconds=0.01))
    assert 1e8 < roofline.flops_per_second < 1e14
    assert 1e7 < roofline.bytes_per_second < 1e13


@pytest.mark.parametrize(
    ("before", "after", "expected"), [(None, None, "compiler estimate"), (7, 7, "compiler estimate"), (7, 9, "device")]
)
def test_a_devices_peak_counts_only_where_it_rose(before, after, expected, monkeypatch):
    told = iter([before, after])
    monkeypatch.setattr(memory, "peak_memory", lambda: next(told))
    with PeakMemory() as peak:
        pass
    found = peak.fields(Cost(1.0, 5, 1.0, 1.0))
    assert found == {"peak_memory_bytes": 9 if expected == "device" else 5, "peak_memory_source": expected}


def test_cost_of_a_product_is_what_it_is():
    x = jnp.ones((64, 32))
    _, cost = compile_program(lambda x: x.T @ x, (x,), "float32", {})
    assert cost.flops == pytest.approx(2 * 64 * 32 * 32, rel=0.05)
    assert cost.bytes_accessed >= x.nbytes
    assert cost.peak_bytes >= x.nbytes + 4 * 32 * 32
    assert cost.compile_seconds > 0


@pytest.mark.parametrize(("free", "said"), [(3 * 2**30, "of 3.0 GiB free"), (2**30, "too little: --remat and")])
def test_what_a_step_needs_is_said_beside_what_is_free(monkeypatch, free, said):
    monkeypatch.setattr("lra_bench.machine.memory.free_memory", lambda: free)
    clause = memory_needed(Cost(1.0, 2 * 2**30, 0.0, 0.0))
    assert "about 2.0 GiB on each device" in clause
    assert said in clause
