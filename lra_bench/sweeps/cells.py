"""The cells of a sweep, which are the runs themselves, and how far each of them is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lra_bench.errors import UserError
from lra_bench.progress import print_line
from lra_bench.records.curves import read_curve
from lra_bench.records.files import write_record
from lra_bench.records.finished import is_finished, load_finished
from lra_bench.records.schema import CurvePoint
from lra_bench.runs.locking import is_training
from lra_bench.runs.plan import PlannedRun, plan_runs
from lra_bench.runs.standing import Position, failure_of, read_position
from lra_bench.spec import Precision
from lra_bench.sweeps.config import Sweep

State = Literal["done", "running", "failed", "stopped", "missing"]
"""The state of a cell. A `stopped` one was begun and is in no process now; it goes on when it is trained again."""

STATES: tuple[State, ...] = ("done", "running", "failed", "stopped", "missing")


def cells_of(sweep: Sweep, precision: Precision) -> list[PlannedRun]:
    """The runs of a sweep, each once, however many of its settings mean the same. Raises UserError as `plan_runs`."""
    found: dict[str, PlannedRun] = {}
    for overrides in sweep.combinations():
        planned = plan_runs(
            sweep.model,
            tasks=sweep.task,
            seeds=sweep.seed,
            overrides=overrides,
            protocol=sweep.protocol,
            size=sweep.size,
            data=sweep.data,
            precision=precision,
            smoke=False,
            pretrain=sweep.pretrain,
        )
        for item in planned:
            found.setdefault(item.run.name, item)
    return list(found.values())


class Standing(NamedTuple):
    """How far a cell is: its state, the steps taken, and what is known of its end."""

    cell: PlannedRun
    state: State
    step: int
    seconds_left: float | None
    """The seconds that its steps will take; None unless it is running and some were measured."""
    accuracy: float | None
    """The test accuracy of a run that is done, else the best one on validation so far; a share in [0, 1]."""
    why: str
    """Why it failed, or how far its pretraining is; "" where it did not fail and is not pretrained now."""

    @property
    def ended(self) -> bool:
        """Whether the run has a record, so that training it again changes nothing."""
        return is_finished(self.cell.run.folder)


def standing_of(cell: PlannedRun) -> Standing:
    """How far a cell is, from the files of its folder alone."""
    folder = cell.run.folder
    if is_finished(folder):
        return _ended(cell)
    if not folder.exists():
        return Standing(cell, "missing", 0, None, None, "")
    if not folder.is_dir():
        return Standing(cell, "failed", 0, None, None, f"{folder} is a file, where the folder of a run belongs.")
    position, curve = read_position(folder), _curve(folder)
    if position is not None and position.stage == "pretraining":
        return _pretraining(cell, position)
    step = max(position.step if position else 0, curve[-1].step if curve else 0)
    best = max((point.val_accuracy for point in curve), default=None)
    if is_training(folder):
        left = None if position is None else (cell.steps - step) * position.seconds_per_step
        return Standing(cell, "running", step, left, best, "")
    why = failure_of(folder)
    if why is not None:
        return Standing(cell, "failed", step, None, best, why)
    return Standing(cell, "stopped" if step else "missing", step, None, best, "")


def _pretraining(cell: PlannedRun, position: Position) -> Standing:
    """How far a cell is that has not come to its first step, because it is still pretrained."""
    folder = cell.run.folder
    where = f"pretraining step {position.step:,} of {cell.pretraining_steps:,}"
    if is_training(folder):
        left = (cell.pretraining_steps - position.step + cell.steps) * position.seconds_per_step
        return Standing(cell, "running", 0, left, None, where)
    why = failure_of(folder)
    return Standing(cell, "stopped" if why is None else "failed", 0, None, None, why or where)


def _ended(cell: PlannedRun) -> Standing:
    try:
        record = load_finished(cell.run.folder)
    except UserError as error:
        return Standing(cell, "failed", 0, None, None, str(error))
    step = record.curve[-1].step if record.curve else 0
    if record.status == "completed":
        return Standing(cell, "done", step, None, record.accuracy.test, "")
    return Standing(cell, "failed", step, None, record.accuracy.best_val, f"{record.status}: {record.note}")


def _curve(folder: Path) -> list[CurvePoint]:
    try:
        return read_curve(folder)
    except UserError:
        return []


def deliver(cell: PlannedRun, results_dir: Path) -> None:
    """Write the record of a finished run into the folder of results; where that cannot be, say why."""
    try:
        write_record(results_dir, load_finished(cell.run.folder))
    except UserError as error:
        print_line(f"{cell.run.name}: {error}")


def command_words(cell: PlannedRun, results_dir: Path | None, options: Sequence[str]) -> list[str]:
    """The words of the command that trains a cell, without the name of the program. None: the default folder."""
    results = [] if results_dir is None else ["--results-dir", str(results_dir.absolute())]
    return [*shlex.split(cell.run.command)[1:], *options, *results]
