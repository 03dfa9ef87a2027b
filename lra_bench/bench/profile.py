"""Where the time of a training step goes on this device, from a trace of the profiler.

Each event of the trace names the instruction of the compiled program that it ran. The program's text then tells the
kind of kernel and the module of the network. A profiled step takes longer than a measured one, so no record is written.
"""

from __future__ import annotations

import re
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from lra_bench.bench.case import NetworkCase, compile_training, too_large_in_words, training_calls
from lra_bench.bench.costs import Cost, KernelCost, alike
from lra_bench.bench.hlo import Program, parse
from lra_bench.bench.kernels import Kernel, kernel_of
from lra_bench.bench.plan import BenchRequest, plan
from lra_bench.errors import WorkError
from lra_bench.machine.environment import start_jax
from lra_bench.machine.memory import PeakMemory
from lra_bench.paths import cache_folder
from lra_bench.progress import Progress
from lra_bench.registry import model_title
from lra_bench.runs.run import Run

WARMUP_STEPS, PROFILED_STEPS = 2, 3

OTHER = "(not in the program)"
"""The module of what ran while the steps did but is not in their program, such as the choice of the batches."""


class Event(NamedTuple):
    """An operation that the device ran, in seconds since the trace began."""

    instruction: str
    program: str
    line: str
    """The thread or stream that ran it."""
    start: float
    end: float


@dataclass(frozen=True)
class Profile:
    """The time of training steps, by kernels. All figures are for one step."""

    run: Run
    steps: int
    wall_seconds: float
    covered_seconds: float
    """The part of the wall time in which at least one kernel ran."""
    kernels: list[KernelCost]
    """Kernels that are alike, the most expensive first. Their seconds add up to what was traced."""
    peak_bytes: int
    peak_source: str
    """`device`, or `compiler estimate` where the device does not count its memory."""
    folder: Path
    """Where the trace lies."""


def run_profiles(request: BenchRequest) -> list[Profile]:
    """Profile a few training steps of every planned model and task on this device. No record is written.

    Raises UserError for an unknown name, and WorkError where the memory does not suffice or nothing was traced.
    """
    start_jax()
    planned = plan(request)
    profiles = []
    with Progress("bench --profile", total=len(planned), unit="programs") as progress:
        for run, shape, _ in planned:
            length, batch = run.data.length, run.recipe.batch_size
            progress.note = f"{model_title(run.model)} on {run.data.task}"
            progress.log(f"compiling {progress.note}, L = {length:,}, batch {batch}")
            folder = cache_folder() / "profiles" / f"{run.model}-{run.data.task}-{length}"
            case = NetworkCase(run, shape, None, request.remat)
            with too_large_in_words(case):
                profiles.append(profile(case, folder))
            progress.advance(1)
    return profiles


def profile(case: NetworkCase, folder: Path) -> Profile:
    """Profile training steps of a case. The trace is written into `folder`, in a folder named by the time."""
    pipeline = case.pipelines()["synthetic"]
    with PeakMemory() as peak:
        compiled, cost, state = compile_training(case, pipeline)
        calls = training_calls(case, compiled, state, pipeline)
        calls(WARMUP_STEPS)
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every Python call would be an event, and slow the steps down
        with jax.profiler.trace(folder, profiler_options=options):
            started = time.perf_counter()
            calls(PROFILED_STEPS)
            wall = time.perf_counter() - started
    trace = max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    events = read_trace(trace)
    if not events:
        raise WorkError(f"the profiler traced no operation on {jax.devices()[0].device_kind}; its trace is {trace}.")
    program = parse(compiled.as_text())
    network, params, stats = case.network
    kernels = kernels_of(program, events, network.merged(params, stats))
    memory = peak.fields(cost)
    return Profile(
        run=case.run,
        steps=PROFILED_STEPS,
        wall_seconds=wall / PROFILED_STEPS,
        covered_seconds=covered(program, events) / PROFILED_STEPS,
        kernels=kernels,
        peak_bytes=int(str(memory["peak_memory_bytes"])),
        peak_source=str(memory["peak_memory_source"]),
        folder=trace.parent,
    )


def read_trace(path: Path) -> list[Event]:
    """Read the operations of one device from a trace: of the first accelerator, or else of the CPU's threads."""
    with warnings.catch_warnings():
        # On Python 3.12, a class of the reader warns as it is made, and ends the process where a warning is an error.
        warnings.simplefilter("ignore", DeprecationWarning)
        planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
        devices = sorted((plane for plane in planes if plane.name.startswith("/device:")), key=lambda plane: plane.name)
        for plane in [*devices, *(plane for plane in planes if plane.name.startswith("/host:CPU"))]:
            lines = [line for line in plane.lines if _is_timeline(plane, line)]
            events = [event for line in lines for event in _operations(plane, line)]
            if events:
                return events
    return []


def _is_timeline(plane: Any, line: Any) -> bool:
    """Whether a line of a trace holds operations as they ran: a stream of a GPU, a TPU's operations, or a thread.

    Other lines of a device repeat the same time, as steps or modules.
    """
    return plane.name.startswith("/host:") or line.name.startswith("Stream") or line.name == "XLA Ops"


def _operations(plane: Any, line: Any) -> Iterator[Event]:
    """The operations on a line. A GPU's kernel that names no instruction stands under its own name."""
    on_device = plane.name.startswith("/device:")
    for event in line.events:
        stats = dict(event.stats)
        if "hlo_op" in stats or on_device:
            start = event.start_ns * 1e-9
            name, program = str(stats.get("hlo_op", event.name)), str(stats.get("hlo_module", ""))
            yield Event(name, program, line.name, start, start + event.duration_ns * 1e-9)


def own_seconds(events: Sequence[Event]) -> list[tuple[Event, float]]:
    """Each event with its own seconds, without those of the events within it on the same line, as in a loop's body."""
    found: list[tuple[Event, float]] = []
    for line in {event.line for event in events}:
        inside: list[tuple[Event, list[float]]] = []  # the events around the next one, with the seconds of their parts
        for event in sorted((e for e in events if e.line == line), key=lambda e: (e.start, -e.end)):
            while inside and inside[-1][0].end <= event.start:
                outer, parts = inside.pop()
                found.append((outer, outer.end - outer.start - sum(parts)))
            if inside:
                inside[-1][1].append(event.end - event.start)
            inside.append((event, []))
        found += [(outer, outer.end - outer.start - sum(parts)) for outer, parts in inside]
    return found


def kernels_of(program: Program, events: Sequence[Event], network: Any) -> list[KernelCost]:
    """The kernels that ran in a step, the most expensive first. What no instruction is known for is OTHER."""
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event, own in own_seconds(events):
        seconds[event.program, event.instruction].append(own)
    # A kernel is called as its instruction is, without the signs that CUDA does not allow.
    kernel_names = {re.sub(r"\W", "_", name): name for name in program.places}
    priced: list[tuple[Kernel, float]] = []
    unknown: list[KernelCost] = []
    for (module, name), times in seconds.items():
        found = program.find(name) or program.find(kernel_names.get(name, ""))
        if found is not None and module in ("", program.name):
            priced.append((kernel_of(program, *found, times=len(times)), sum(times)))
        else:
            cost = Cost(len(times) / PROFILED_STEPS, 0, 0, sum(times) / PROFILED_STEPS)
            unknown.append(KernelCost("other", OTHER, "other", name, "", cost))
    kernels = [*alike(program, network, priced, PROFILED_STEPS), *unknown]
    return sorted(kernels, key=lambda kernel: -kernel.cost.seconds)


def covered(program: Program, events: Sequence[Event]) -> float:
    """The seconds in which at least one kernel ran. A loop or a branch by itself is none."""
    loops = {
        name
        for computation in program.computations.values()
        for name, found in computation.instructions.items()
        if found.opcode in ("while", "conditional", "call")
    }
    seconds, until = 0.0, 0.0
    for event in sorted(events, key=lambda event: event.start):
        if event.instruction not in loops:
            seconds += max(0.0, event.end - max(event.start, until))
            until = max(until, event.end)
    return seconds
