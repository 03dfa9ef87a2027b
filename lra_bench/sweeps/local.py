"""The engine `local`: the runs of a sweep on this machine, one process per device, in order.

A run that another process trains is left to it, so sweeps on several machines that share a folder share the work.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from lra_bench.errors import UserError, WorkError
from lra_bench.progress import print_line
from lra_bench.records.finished import is_finished
from lra_bench.runs.checksums import SETTINGS
from lra_bench.runs.locking import is_training
from lra_bench.runs.plan import PlannedRun
from lra_bench.runs.run import write_settings
from lra_bench.runs.standing import note_failure
from lra_bench.spec import Frozen, Positive, Precision
from lra_bench.sweeps.cells import command_words, deliver, standing_of

PROGRAM = (sys.executable, "-m", "lra_bench")
"""The program that trains a run."""

LOG = "train.log"
"""The file in a run's folder that holds what its process printed."""

PAUSE = 0.5
"""The seconds between two looks at the processes."""

TAIL = 1 << 14
"""The bytes at the end of a log in which its error is looked for."""


class Devices(Frozen):
    """What `machine/probe.py` says of this machine."""

    platform: str
    devices: Positive
    precision: Precision


def devices_here() -> Devices:
    """The devices of this machine, found by another process. Raises WorkError, with its words, where it finds none."""
    # A probe must not take the memory that running runs need.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-m", "lra_bench.machine.probe"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    try:
        return Devices.model_validate_json(done.stdout.splitlines()[-1])
    except (IndexError, ValidationError):
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise WorkError(f"the devices of this machine cannot be found: {last.partition(': ')[2] or last}") from None


def slots_of(devices: Devices, jobs: int | None) -> list[dict[str, str]]:
    """The environment variables of each process that trains at the same time as the others.

    Each GPU has one process, and sees no other GPU. A CPU, and a TPU with all its cores, has one process. `jobs` asks
    for another number of processes, which take the GPUs in turn.
    """
    gpus = devices.devices if devices.platform == "gpu" else 0
    numbers = [str(slot % gpus) for slot in range(jobs or gpus)] if gpus else []
    names = ("JAX_CUDA_VISIBLE_DEVICES", "JAX_ROCM_VISIBLE_DEVICES")
    return [dict.fromkeys(names, number) for number in numbers] or [{} for _ in range(jobs or 1)]


class _Process(NamedTuple):
    cell: PlannedRun
    process: subprocess.Popen[bytes]


def train_locally(
    cells: Sequence[PlannedRun],
    results_dir: Path,
    slots: Sequence[Mapping[str, str]],
    options: Sequence[str],
    show: Callable[[], None],
) -> None:
    """Train all cells, as many at once as there are `slots`, each of which is the variables of its processes.

    options: further words of each `train`. `show` is called about twice a second. What ends this, such as a signal,
    lets each run save itself first. Raises WorkError, with the reasons, where a run fails; the others are trained.
    """
    waiting, running, failed = deque(cells), dict[int, _Process](), set[str]()
    try:
        while waiting or running:
            for slot, variables in enumerate(slots):
                if slot in running:
                    if running[slot].process.poll() is None:
                        continue
                    ended = running.pop(slot)
                    if _failed(ended):
                        failed.add(ended.cell.run.name)
                cell = _next(waiting, results_dir)
                if cell is None:
                    continue
                try:
                    running[slot] = _started(cell, command_words(cell, results_dir, options), variables)
                except (OSError, UserError) as error:  # such as a file where its folder belongs
                    print_line(f"{cell.run.name} failed: {error}")
                    failed.add(cell.run.name)
            show()
            if running:
                time.sleep(PAUSE)
    finally:
        _stop([each.process for each in running.values()])
    failed |= {cell.run.name for cell in cells if standing_of(cell).state == "failed"}
    if failed:
        raise WorkError(f"{len(failed)} of {len(cells)} runs failed. The same with --status says why.")


def _next(waiting: deque[PlannedRun], results_dir: Path) -> PlannedRun | None:
    """Take the next cell that is to be trained here; None where there is none."""
    while waiting:
        cell = waiting.popleft()
        if is_finished(cell.run.folder):
            deliver(cell, results_dir)
        elif cell.run.folder.exists() and is_training(cell.run.folder):
            print_line(f"{cell.run.name} is left to the other process that trains it.")
        else:
            return cell
    return None


def _started(cell: PlannedRun, words: Sequence[str], variables: Mapping[str, str]) -> _Process:
    """Start the process of a run. Its output goes into the run's folder, and no key typed here reaches it."""
    if not (cell.run.folder / SETTINGS).exists():  # another process may have written more since
        write_settings(cell.run)
    with (cell.run.folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [*PROGRAM, *words, "--processes", "one"],  # a sweep that srun started shares its runs out, not each of them
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    print_line(f"{cell.run.name} begins; what it prints is in {cell.run.folder / LOG}")
    return _Process(cell, process)


def _failed(ended: _Process) -> bool:
    """Say how a process ended, note why its run failed where the run could not, and return whether it did."""
    cell, code = ended.cell, ended.process.returncode
    standing = standing_of(cell)
    if code and standing.state in ("stopped", "missing"):
        note_failure(cell.run, _reason(cell.run.folder / LOG, code))
        standing = standing_of(cell)
    if standing.state == "done":
        print_line(f"{cell.run.name} is done: test accuracy {standing.accuracy:.2%}.")
    else:
        print_line(f"{cell.run.name} {standing.state}: {standing.why or f'exit code {code}'}")
    return bool(code) and standing.state not in ("done", "running")


def _reason(log: Path, code: int) -> str:
    """Why a process ended: the error that it printed last, else its exit code or the signal that ended it."""
    lines = log.read_bytes()[-TAIL:].decode("utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    if errors:
        return errors[-1]
    return f"its process was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let each process save its run and end."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        process.wait()
