"""What a planned run will take, by an earlier run with its settings or by a few steps, of which nothing is kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from lra_bench.errors import UserError
from lra_bench.machine.memory import PeakMemory
from lra_bench.machine.system import describe_system
from lra_bench.records.finished import RECORD, load_finished
from lra_bench.runs.run import Run
from lra_bench.spec import Placement
from lra_bench.training.mesh import replicate
from lra_bench.training.setup import set_up
from lra_bench.training.state import stream_key
from lra_bench.training.stopping import out_of_memory_in_words

STEPS, SECONDS = 10, 5.0
"""The most steps that are measured after the first one, and the seconds after which no further one begins."""


class Estimate(NamedTuple):
    """What a run takes: its parameters, the bytes on a device (None where not known), and the seconds of a step."""

    parameters: int
    peak_bytes: int | None
    seconds_per_step: float


def earlier_estimate(run: Run, remat: bool, microbatch: int | None) -> Estimate | None:
    """What a finished run with the same settings and any seed took on devices like these; None where there is none.

    Neither `remat` nor `microbatch` is in a run's digest, and both decide its memory and time.
    """
    here = describe_system(run.precision)
    for path in sorted(run.folder.parent.glob(f"{run.digest}-s*/{RECORD}")):
        try:
            record = load_finished(path.parent)
        except UserError:
            continue
        speed, there = record.throughput, record.system
        devices = (there.platform, there.device_kind, there.devices) == (here.platform, here.device_kind, here.devices)
        if speed.steps and devices and (speed.remat, speed.microbatch) == (remat, microbatch):
            return Estimate(record.parameters, speed.peak_memory_bytes, speed.train_seconds / speed.steps)
    return None


def measured_estimate(
    run: Run, data_folder: Path, placement: Placement, remat: bool, microbatch: int | None
) -> Estimate:
    """Train a few steps and return what they took.

    Raises as `set_up`, and WorkError where the memory does not suffice.
    """
    with out_of_memory_in_words(run), PeakMemory() as memory:
        setup, state = set_up(run, data_folder, placement, remat, microbatch, cached=False)
        key, taken, started = replicate(stream_key(run.seed, 2), setup.mesh), 0, time.perf_counter()
        for step in range(1 + min(STEPS, run.steps_per_epoch)):
            batches, _ = setup.data["train"].take(0, step % run.steps_per_epoch, 1)
            state = setup.train(state, batches, key)
            state.step.block_until_ready()
            if step == 0:
                started = time.perf_counter()  # the first step also loads the program
                continue
            taken = step
            if time.perf_counter() - started > SECONDS:
                break
        seconds = (time.perf_counter() - started) / taken
    peak = memory.fields(setup.cost)["peak_memory_bytes"]
    assert isinstance(peak, int)
    return Estimate(setup.network.parameters, peak, seconds)
