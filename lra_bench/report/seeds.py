"""The statistics over the seeds of each cell: spread, interval, solved runs, and differences paired by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lra_bench.registry import task_title
from lra_bench.report.select import HEADINGS, Entry, RowKey, SelectedRecords, row_label, threshold
from lra_bench.report.statistics import CONFIDENCE, Interval, Paired, Summary, interval, paired, summarize
from lra_bench.report.table import ABSENT, Block, Cell, Column, Table


@dataclass(frozen=True)
class CellStatistics:
    """The statistics of one cell; accuracies are shares in [0, 1].

    `summary` and `interval` are of the seeds that finished, None where none did. `last` is the summary of the test
    accuracies of the final step's parameters, None where a finished seed has none. `solved` and `diverged` are numbers
    of seeds, and `threshold` is the accuracy from which a seed has solved the task.
    """

    key: RowKey
    task: str
    runs: tuple[Entry, ...]
    summary: Summary | None
    interval: Interval | None
    solved: int
    diverged: int
    threshold: float
    last: Summary | None

    @property
    def accuracies(self) -> dict[int, float]:
        """The test accuracy by seed of the seeds that finished."""
        return {run.record.seed: run.accuracy for run in self.runs if run.accuracy is not None}


def cell_statistics(chosen: SelectedRecords) -> list[CellStatistics]:
    """Return the statistics of every cell of the accuracy tables, in the order of the tables."""
    found = []
    for (key, task), runs in chosen.cells.items():
        values = [run.accuracy for run in runs if run.accuracy is not None]
        last = [run.record.accuracy.last_test for run in runs if run.accuracy is not None]
        final = [value for value in last if value is not None]
        found.append(
            CellStatistics(
                key,
                task,
                tuple(runs),
                summarize(values) if values else None,
                interval(values, runs[0].record.data.counts["test"]) if values else None,
                sum(run.solved for run in runs),
                sum(run.record.status == "diverged" for run in runs),
                threshold(runs[0].record),
                summarize(final) if len(final) == len(values) and final else None,
            )
        )
    return found


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
        "diverged": cell.diverged,
        "threshold": cell.threshold,
        "accuracy": None if cell.summary is None else asdict(cell.summary),
        "interval": None if cell.interval is None else asdict(cell.interval),
        "final_step": None if cell.last is None else asdict(cell.last),
        "runs": [run.id for run in cell.runs],
    }


def cells_table(cells: Sequence[CellStatistics]) -> Table:
    """Return the table of n, mean, standard deviation, range, median, interval and solved runs of every cell."""
    blocks = []
    for section, heading in HEADINGS.items():
        blocks.append(Block(heading, tuple(_statistics_row(cell) for cell in cells if cell.key.section == section)))
    names = ("Mean", "Std", "Min", "Max", "Median", f"{CONFIDENCE:.0%} low", f"{CONFIDENCE:.0%} high")
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
            Column("From"),
            Column("Final step"),
            Column("n test"),
        ),
        tuple(blocks),
        (
            "Test accuracy in %. Wilson: of one run, over the sampling of the test set. t (three and four seeds) and "
            "BCa bootstrap (five and more): of the mean, over the choice of the seed. Two seeds have no interval. "
            "Final step: mean test accuracy of the last step's parameters, without choosing a checkpoint.",
        ),
    )


def paired_table(cells: Sequence[CellStatistics]) -> Table:
    """Return the table of differences to the best row of each task and precision, over the seeds that both rows have.

    It compares rows measured with published recipes; the best row has the highest mean.
    """
    rows = []
    groups: dict[tuple[str, str], list[CellStatistics]] = defaultdict(list)
    for cell in cells:
        if cell.key.section == "published" and cell.summary:
            groups[cell.task, cell.runs[0].record.system.precision].append(cell)
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    for _, there in sorted(groups.items(), key=lambda group: (tasks.index(group[0][0]), group[0][1])):
        best = max(there, key=lambda cell: cell.summary.mean if cell.summary else 0.0)
        for cell in there:
            found = None if cell is best else paired(cell.accuracies, best.accuracies)
            if found is not None:
                rows.append(_paired_row(cell, best, found))
    return Table(
        "paired",
        "Differences to the best row, paired by seed",
        (
            Column("Task", numeric=False),
            Column("Model", numeric=False),
            Column("Best", numeric=False),
            Column("Seeds"),
            Column("Mean difference"),
            Column("Std"),
            Column(f"{CONFIDENCE:.0%} low"),
            Column(f"{CONFIDENCE:.0%} high"),
            Column("Interval", numeric=False),
            Column("Better on"),
        ),
        (Block("Points of test accuracy", tuple(rows)),),
        (
            "Model minus best over the seeds both have, both in the same precision. Intervals as in the cells: t from "
            "three shared seeds, BCa from five. A few seeds show no significance, so none is claimed: there are no "
            "stars.",
        ),
    )


def percent(value: float | None, runs: tuple[str, ...] = ()) -> Cell:
    """Return the cell of a share, in % with two decimals."""
    return Cell(ABSENT) if value is None else Cell(f"{100 * value:.2f}", 100 * value, runs=runs)


def _statistics_row(cell: CellStatistics) -> tuple[Cell, ...]:
    """Return the row of the table `cells` for one cell."""
    ids = tuple(run.id for run in cell.runs)
    found, bounds, n_test = cell.summary, cell.interval, cell.runs[0].record.data.counts["test"]
    spread = [None] * 5 if found is None else [found.mean, found.std, found.min, found.max, found.median]
    ends = [None, None] if bounds is None else [bounds.low, bounds.high]
    return (
        Cell(row_label(cell.key), runs=ids),
        Cell(task_title(cell.task)),
        Cell(str(len(cell.runs)), len(cell.runs)),
        *(percent(value, ids) for value in (*spread, *ends)),
        Cell(bounds.kind if bounds else ABSENT),
        Cell(f"{cell.solved}/{len(cell.runs)}" + (f", {cell.diverged} diverged" if cell.diverged else "")),
        percent(cell.threshold),
        percent(cell.last.mean if cell.last else None),
        Cell(f"{n_test:,}", n_test),
    )


def _paired_row(cell: CellStatistics, best: CellStatistics, found: Paired) -> tuple[Cell, ...]:
    """Return the row of the table `paired` that compares one cell with the best."""
    bounds = found.interval
    shared = tuple(run.id for run in (*cell.runs, *best.runs) if run.record.seed in found.seeds)
    return (
        Cell(task_title(cell.task)),
        Cell(row_label(cell.key), runs=shared),
        Cell(row_label(best.key)),
        Cell(str(len(found.seeds)), len(found.seeds)),
        Cell(f"{100 * found.mean:+.2f}", 100 * found.mean),
        percent(found.std),
        Cell(f"{100 * bounds.low:+.2f}", 100 * bounds.low) if bounds else Cell(ABSENT),
        Cell(f"{100 * bounds.high:+.2f}", 100 * bounds.high) if bounds else Cell(ABSENT),
        Cell(bounds.kind if bounds else ABSENT),
        Cell(f"{found.wins}/{len(found.seeds)}", found.wins),
    )
