"""The statistics over the seeds of each cell: spread, interval, solved runs, and differences to the best cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from lra_bench.registry import task_title
from lra_bench.report.select import (
    EARLY,
    HEADINGS,
    Entry,
    RowKey,
    SelectedRecords,
    ended_early,
    row_label,
    threshold,
)
from lra_bench.report.statistics import (
    CONFIDENCE,
    Interval,
    Summary,
    difference_interval,
    mean_interval,
    shares_differ,
    summarize,
    wilson,
)
from lra_bench.report.table import ABSENT, Block, Cell, Column, Table, rounded, signed


@dataclass(frozen=True)
class CellStatistics:
    """The statistics of one cell; accuracies are shares in [0, 1].

    `summary` is of all seeds, where one that failed counts as the majority class, and `interval` is of its mean. Where
    a seed failed, the mean says little, and that of failed seeds alone is the constant they count as: `interval` is
    then None, and `solved_interval` is that of the share of seeds that solve the task. `solved_median` is of the seeds
    that did. `last` is the summary of the test accuracies of the final step's parameters, counted alike; None where a
    finished seed has none.
    """

    key: RowKey
    task: str
    runs: tuple[Entry, ...]
    summary: Summary
    interval: Interval | None
    solved: int
    solved_median: float | None
    solved_interval: Interval | None
    threshold: float
    last: Summary | None

    @property
    def counted(self) -> list[float]:
        """The accuracy of each seed, where one that failed counts as the majority class."""
        return [run.counted for run in self.runs]

    @property
    def failed(self) -> int:
        """The number of seeds that did not solve the task."""
        return len(self.runs) - self.solved

    @property
    def n_test(self) -> int:
        """The number of test examples."""
        return self.runs[0].record.data.counts["test"]


def cell_statistics(chosen: SelectedRecords) -> list[CellStatistics]:
    """Return the statistics of every cell of the accuracy tables, in the order of the tables."""
    return [_statistics(key, task, runs) for (key, task), runs in chosen.cells.items()]


def _statistics(key: RowKey, task: str, runs: Sequence[Entry]) -> CellStatistics:
    counted, solved = [run.counted for run in runs], [run.counted for run in runs if run.solved]
    failed = len(solved) < len(runs)
    return CellStatistics(
        key,
        task,
        tuple(runs),
        summarize(counted),
        None if failed else mean_interval(counted, runs[0].record.data.counts["test"]),
        len(solved),
        median(solved) if solved else None,
        wilson(len(solved) / len(runs), len(runs)) if failed else None,
        threshold(runs[0].record),
        _final_step(runs),
    )


def _final_step(runs: Sequence[Entry]) -> Summary | None:
    """The summary of the last step's accuracies, or None where a seed that finished has none."""
    values = []
    for run in runs:
        found = run.record.accuracy.last_test
        if run.record.status == "completed" and found is None:
            return None
        solved = run.record.status == "completed" and found is not None and found >= threshold(run.record)
        values.append(found if solved and found is not None else run.record.accuracy.majority)
    return summarize(values)


def best_cells(cells: Sequence[CellStatistics]) -> dict[str, CellStatistics]:
    """Return the cell of each task with the highest mean, of those that a published recipe solved."""
    found: dict[str, CellStatistics] = {}
    for cell in cells:
        if cell.key.section == "published" and cell.solved:
            best = found.setdefault(cell.task, cell)
            found[cell.task] = cell if cell.summary.mean > best.summary.mean else best
    return found


def like_the_best(cells: Sequence[CellStatistics]) -> frozenset[tuple[RowKey, str]]:
    """Return the cells that cannot be told apart from the best one of their task, which is not among them.

    Where one of the two has a single seed, they never can.
    """
    best, found = best_cells(cells), set()
    for cell in cells:
        first = best.get(cell.task)
        if first is None or cell is first or cell.key.section != "published" or not cell.solved:
            continue
        if not told_apart(cell, first):
            found.add((cell.key, cell.task))
    return frozenset(found)


def told_apart(cell: CellStatistics, best: CellStatistics) -> bool | None:
    """Return whether a cell can be told apart from the best at 95 %; None where one of them has a single seed.

    It can by the interval of their difference. Where a seed of either failed, accuracies are of two kinds, and the
    shares of seeds that solved the task are compared. If none of the best failed, the seeds that solved the task may
    also tell: failed ones only lower the mean further.
    """
    if min(len(cell.runs), len(best.runs)) < 2:
        return None
    bounds = _difference(cell, best)
    if bounds is not None:
        return not bounds.holds_zero
    if shares_differ((cell.solved, len(cell.runs)), (best.solved, len(best.runs))):
        return True
    solved = [run.counted for run in cell.runs if run.solved]
    bounds = None if best.failed or not solved else difference_interval(solved, best.counted, cell.n_test)
    return bounds is not None and bounds.high < 0


def _difference(cell: CellStatistics, best: CellStatistics) -> Interval | None:
    """Return the interval of the difference of two cells; None where a seed of either failed, or is the only one."""
    return None if cell.failed or best.failed else difference_interval(cell.counted, best.counted, cell.n_test)


def as_json(cell: CellStatistics) -> dict[str, Any]:
    """Return the cell as an object of leaderboard.json, with numbers in full precision."""
    record = cell.runs[0].record
    return {
        "section": cell.key.section,
        "model": cell.key.model,
        "settings": cell.key.settings,
        "task": cell.task,
        "digest": record.digest,
        "source": record.data.source,
        "size": record.data.size,
        "version": record.data.version,
        "fingerprint": record.data.fingerprint,
        "selection": record.accuracy.selection,
        "n_test": record.data.counts["test"],
        "majority": record.accuracy.majority,
        "precision": record.system.precision,
        "seeds": [run.record.seed for run in cell.runs],
        "solved": cell.solved,
        **{status: sum(run.record.status == status for run in cell.runs) for status in EARLY},
        "threshold": cell.threshold,
        "accuracy": asdict(cell.summary),
        "interval": None if cell.interval is None else asdict(cell.interval),
        "solved_median": cell.solved_median,
        "solved_interval": None if cell.solved_interval is None else asdict(cell.solved_interval),
        "final_step": None if cell.last is None else asdict(cell.last),
        "runs": [run.id for run in cell.runs],
    }


def cells_table(cells: Sequence[CellStatistics]) -> Table:
    """Return the table of n, mean, standard deviation, range, interval and solved runs of every cell."""
    blocks = []
    for section, heading in HEADINGS.items():
        blocks.append(Block(heading, tuple(_statistics_row(cell) for cell in cells if cell.key.section == section)))
    names = ("Mean", "Std", "Min", "Max", f"{CONFIDENCE:.0%} low", f"{CONFIDENCE:.0%} high")
    return Table(
        "cells",
        "Every cell in full",
        (
            Column("Model", numeric=False),
            Column("Task", numeric=False),
            Column("n"),
            *(Column(name) for name in names),
            Column("Interval", numeric=False),
            Column("Solved", numeric=False),
            Column("Median of solved"),
            Column("From"),
            Column("Final step"),
            Column("n test"),
        ),
        tuple(blocks),
        (
            "Test accuracy in %; a seed that failed counts as the majority class. Wilson: of one run, over the "
            "choice of test examples. t: of the mean of several, over the choice of the seed and of test examples. "
            "Where a seed failed, there is no interval of the mean, but one of the share of seeds that solve the task, "
            "behind their number. Final step: mean test accuracy of the last step's parameters, without choosing a "
            "checkpoint.",
        ),
    )


def differences_table(cells: Sequence[CellStatistics]) -> Table:
    """Return the table of differences to the best row of each task, of published recipes."""
    best = best_cells(cells)
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    rows = [
        _difference_row(cell, best[task])
        for task in tasks
        for cell in cells
        if task == cell.task and task in best and cell.key.section == "published" and cell is not best[task]
    ]
    return Table(
        "differences",
        "Differences to the best row",
        (
            Column("Task", numeric=False),
            Column("Model", numeric=False),
            Column("Best", numeric=False),
            Column("Seeds"),
            Column("Difference"),
            Column(f"{CONFIDENCE:.0%} low"),
            Column(f"{CONFIDENCE:.0%} high"),
            Column("Told apart", numeric=False),
        ),
        (Block("Points of test accuracy", tuple(rows)),),
        (
            "Mean of the model minus mean of the best; rows name their precision where they differ in it. A seed that "
            "failed counts as the majority class. The interval is Welch's over seeds and the normal one over test "
            "examples, in quadrature; it needs two seeds of each. Seeds are not paired: the same seed gives two "
            "architectures other parameters, so its runs have little in common. Where a seed of either failed, the "
            "mean has no such interval, and the shares of seeds that solved the task are told apart or not (Fisher's "
            "exact test, two-sided, at 5 %); where none of the best failed, so may be the seeds that solved it.",
        ),
    )


def percent(value: float | None, runs: tuple[str, ...] = ()) -> Cell:
    """Return the cell of a share, in % with two decimals."""
    return Cell(ABSENT) if value is None else Cell(rounded(100 * value, 2), 100 * value, runs=runs)


def _statistics_row(cell: CellStatistics) -> tuple[Cell, ...]:
    """Return the row of the table `cells` for one cell."""
    ids = tuple(run.id for run in cell.runs)
    found, bounds = cell.summary, cell.interval
    ends = [None, None] if bounds is None else [bounds.low, bounds.high]
    share = cell.solved_interval
    solved = f"{cell.solved}/{len(cell.runs)}"
    solved += f" ({100 * share.low:.0f}–{100 * share.high:.0f} %)" if share else ""
    solved += ended_early(cell.runs)
    return (
        Cell(row_label(cell.key), runs=ids),
        Cell(task_title(cell.task)),
        Cell(str(len(cell.runs)), len(cell.runs)),
        *(percent(value, ids) for value in (found.mean, found.std, found.min, found.max, *ends)),
        Cell(bounds.kind if bounds else ABSENT),
        Cell(solved),
        percent(cell.solved_median),
        percent(cell.threshold),
        percent(cell.last.mean if cell.last else None),
        Cell(f"{cell.n_test:,}", cell.n_test),
    )


def _difference_row(cell: CellStatistics, best: CellStatistics) -> tuple[Cell, ...]:
    """Return the row of the table `differences` that compares one cell with the best."""
    bounds, apart = _difference(cell, best), told_apart(cell, best)
    told = "one seed" if apart is None else "yes" if apart else "no"
    if apart is not None and (cell.failed or best.failed):
        told += f", by solved seeds: {cell.solved}/{len(cell.runs)}, {best.solved}/{len(best.runs)}"
    middle = 100 * (cell.summary.mean - best.summary.mean)
    ends = [None, None] if bounds is None else [100 * bounds.low, 100 * bounds.high]
    return (
        Cell(task_title(cell.task)),
        Cell(row_label(cell.key), runs=tuple(run.id for run in (*cell.runs, *best.runs))),
        Cell(row_label(best.key)),
        Cell(f"{len(cell.runs)}, {len(best.runs)}", len(cell.runs)),
        Cell(signed(middle, 2), middle),
        *(Cell(ABSENT) if end is None else Cell(signed(end, 2), end) for end in ends),
        Cell(told),
    )
