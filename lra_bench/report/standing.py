"""What a row of the accuracy tables says beside its accuracies: its place, wins, parameters and speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from lra_bench.registry import every_task_name, task_module, task_title
from lra_bench.report.select import LRA, Entry, RowKey, SelectedRecords
from lra_bench.report.speed import number
from lra_bench.report.statistics import average_difference_interval
from lra_bench.report.table import ABSENT, Cell

SPEED_TASK = "text"
"""The task of the column of speed where as many rows have it as any other; LRA and MEGA compare speed on it."""


@dataclass(frozen=True)
class SpeedPlace:
    """The task, device kind and number of devices that the column of speed is of."""

    task: str
    kind: str
    devices: int

    @property
    def note(self) -> str:
        """The note under the table."""
        return (
            f"Ex/s: examples per second and device while training on {task_title(self.task)}, whose network Params is "
            f"of, with {self.devices} × {self.kind}; median over runs without --remat and --microbatch, each recipe "
            "with its own batch."
        )


def row_order(family: int, averages: Sequence[float | None]) -> tuple[float, ...]:
    """Return the sorting key of a row: its family's place, then its averages, the highest first and none last."""
    return (family, *(float("inf") if value is None else -value for value in averages))


def win_rates(chosen: SelectedRecords, keys: Sequence[RowKey]) -> dict[RowKey, float]:
    """Return the win rate in % of each row that shares a task with another: its Borda count, normalized.

    A row wins a comparison with another one on a task that both have when its mean is higher; equal means count half.
    """
    ranked = set(keys)
    means = {
        (key, task): fmean(run.counted for run in runs)
        for (key, task), runs in chosen.cells.items()
        if key in ranked and task in LRA
    }
    found = {}
    for key in keys:
        compared = [
            (means[key, task] > other) + 0.5 * (means[key, task] == other)
            for (rival, task), other in means.items()
            if rival != key and (key, task) in means
        ]
        if compared:
            found[key] = 100 * fmean(compared)
    return found


def best_covered(chosen: SelectedRecords, keys: Sequence[RowKey]) -> set[RowKey]:
    """Return the rows whose wins are ranked: those with every task of the six that the rows with most tasks have.

    The share of a few comparisons is no place beside the share of many.
    """
    tasks = {key: {task for task in LRA if (key, task) in chosen.cells} for key in keys}
    most = max(map(len, tasks.values()), default=0)
    wanted = {task for there in tasks.values() if len(there) == most for task in there}
    return {key for key, there in tasks.items() if wanted and there >= wanted}


def averages_like_the_best(chosen: SelectedRecords, keys: Sequence[RowKey], tasks: Sequence[str]) -> set[RowKey]:
    """Return the rows whose average over the tasks cannot be told apart from the highest, which is not among them.

    Where one of the two has a single seed on a task, they never can. A failed seed makes accuracies of two kinds, of
    which an interval says nothing: a row that has one is not among them, and none is where the highest has one.
    """
    values = {
        key: [[run.counted for run in chosen.cells[key, task]] for task in tasks]
        for key in keys
        if all((key, task) in chosen.cells for task in tasks)
    }
    if not values:
        return set()
    best = max(values, key=lambda key: fmean(map(fmean, values[key])))
    n_test = [chosen.cells[best, task][0].record.data.counts["test"] for task in tasks]
    failed = {key for key in values if not all(run.solved for task in tasks for run in chosen.cells[key, task])}
    if best in failed:
        return set()
    bounds = {
        key: average_difference_interval(values[key], values[best], n_test)
        for key in values
        if key != best and key not in failed
    }
    return {key for key, found in bounds.items() if found is None or found.holds_zero}


def parameters_cell(chosen: SelectedRecords, key: RowKey, place: SpeedPlace | None) -> Cell:
    """Return the row's number of parameters on the task of this place, in millions."""
    runs = chosen.cells.get((key, place.task), []) if place else []
    return Cell(_millions(runs[0].record.parameters), runs[0].record.parameters) if runs else Cell(ABSENT)


def _millions(count: int) -> str:
    return f"{count / 1e6:.{2 if count < 1e6 else 1}f}"


def speed_place(chosen: SelectedRecords, keys: Sequence[RowKey]) -> SpeedPlace | None:
    """Return the place that most rows have a speed of, or None where no row has one."""
    rows: Counter[SpeedPlace] = Counter()
    wanted = set(keys)
    for (key, task), runs in chosen.cells.items():
        if key in wanted and task in LRA:
            rows.update({SpeedPlace(task, *_devices(run)) for run in runs if _timed(run)})
    if not rows:
        return None
    return max(rows, key=lambda place: (rows[place], place.task == SPEED_TASK, place.kind, place.devices, place.task))


def speed_cell(chosen: SelectedRecords, key: RowKey, place: SpeedPlace | None) -> Cell:
    """Return the row's median speed at this place, in examples per second and device."""
    if place is None:
        return Cell(ABSENT)
    runs = [
        run
        for run in chosen.cells.get((key, place.task), [])
        if _timed(run) and _devices(run) == (place.kind, place.devices)
    ]
    if not runs:
        return Cell(ABSENT)
    speed = median(run.record.throughput.examples_per_second_per_device for run in runs)
    return Cell(number(speed), speed, runs=tuple(run.id for run in runs))


def length_of(chosen: SelectedRecords, task: str) -> str:
    """Return the length that a column's examples are padded to, such as `2 × 4,000`; that of its records, if any."""
    lengths = [runs[0].record.data.length for (_, place), runs in chosen.cells.items() if place == task]
    known = task_module(task).TASK if task in every_task_name() else None
    length = lengths[0] if lengths else known.length if known else None
    documents = f"{known.documents} × " if known and known.documents > 1 else ""
    return "" if length is None else f"{documents}{length:,}"


def _timed(run: Entry) -> bool:
    speed = run.record.throughput
    return speed.steps > 0 and not speed.remat and speed.microbatch is None


def _devices(run: Entry) -> tuple[str, int]:
    return run.record.system.device_kind, run.record.system.devices
