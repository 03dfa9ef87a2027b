"""The tables about the records themselves: coverage, provenance, robustness, and the records left out with reasons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from lra_bench.records.schema import Record, RobustnessRecord
from lra_bench.registry import model_title, task_title
from lra_bench.report.select import (
    HEADINGS,
    LeftOut,
    Loaded,
    RowKey,
    Section,
    SelectedRecords,
    ended_early,
    joined,
    labeled,
    precision_labels,
    row_label,
)
from lra_bench.report.table import ABSENT, Block, Cell, Column, Table
from lra_bench.spec import Precision


def left_out_table(left_out: Sequence[LeftOut]) -> Table:
    """Return the table of the records that are in no accuracy table, with the reason for each."""
    rows = tuple((Cell(item.id, runs=(item.id,)), Cell(item.reason)) for item in left_out)
    return Table(
        "left-out",
        "Records left out",
        (Column("Record", numeric=False), Column("Reason", numeric=False)),
        (Block("In no accuracy table", rows),),
        ("Files are named relative to the results folder, without .json.",),
    )


def coverage_table(chosen: SelectedRecords) -> Table:
    """Return the table of how many seeds each cell has, and how many of them solved the task or ended early."""
    sections: tuple[Section, ...] = ("published", "settings")
    if chosen.rows("pretrained"):
        sections = (*sections, "pretrained")
    tasks = chosen.tasks(sections)
    blocks = []
    for section in sections:
        rows = [
            (Cell(row_label(key)), *(_coverage_cell(chosen, key, task) for task in tasks))
            for key in chosen.rows(section)
        ]
        blocks.append(Block(HEADINGS[section], tuple(rows)))
    return Table(
        "coverage",
        "Coverage",
        (Column("Model", numeric=False), *(Column(task_title(task)) for task in tasks)),
        tuple(blocks),
        ("Seeds run, and in brackets how many solved the task and how many diverged or were stopped.",),
    )


def _coverage_cell(chosen: SelectedRecords, key: RowKey, task: str) -> Cell:
    runs = chosen.cells.get((key, task), [])
    if not runs:
        return Cell(ABSENT, 0)
    solved = sum(run.solved for run in runs)
    return Cell(f"{len(runs)} ({solved} solved{ended_early(runs)})", len(runs), runs=tuple(run.id for run in runs))


def provenance_table(chosen: SelectedRecords) -> Table:
    """Return the table of each cell's data, digest, devices, commits, and the command that repeats its first seed."""
    rows = []
    for (key, task), runs in chosen.cells.items():
        record = runs[0].record
        commits = sorted({_commit(run.record) for run in runs})
        rows.append(
            (
                Cell(row_label(key), runs=tuple(run.id for run in runs)),
                Cell(task_title(task)),
                Cell(f"{record.data.version}, {record.data.source}, {record.data.size}"),
                Cell(record.data.fingerprint),
                Cell(record.digest),
                Cell(", ".join(str(run.record.seed) for run in runs)),
                Cell(", ".join(sorted({run.record.system.device_kind for run in runs}))),
                Cell(", ".join(sorted({run.record.system.precision for run in runs}))),
                Cell(", ".join(commits)),
                Cell(max(run.record.provenance.finished for run in runs)),
                Cell(record.provenance.command),
            )
        )
    names = (
        "Model",
        "Task",
        "Data",
        "Fingerprint",
        "Digest",
        "Seeds",
        "Device",
        "Precision",
        "Commit",
        "Finished",
        "Command",
    )
    return Table(
        "provenance", "Provenance", tuple(Column(name, numeric=False) for name in names), (Block("Cells", tuple(rows)),)
    )


def _commit(record: Record) -> str:
    """Return the commit that made the record, or the version of lra-bench where the commit is unknown."""
    if record.provenance.git_commit is None:
        return f"lra-bench {record.provenance.lra_bench_version}"
    return record.provenance.git_commit[:12] + (" (modified)" if record.provenance.git_dirty else "")


def robustness_table(loaded: Iterable[Loaded]) -> Table:
    """Return the table of test accuracy without noise and at every noise frequency, as mean over seeds."""
    groups: dict[tuple[str, str, str, Precision, float], list[tuple[str, RobustnessRecord]]] = defaultdict(list)
    for item in loaded:
        record = item.record
        if isinstance(record, RobustnessRecord):
            place = record.data.task, record.model, record.digest, record.system.precision
            for amplitude in sorted({point.amplitude for point in record.points}):
                groups[*place, amplitude].append((item.id, record))
    frequencies = sorted({p.frequency for group in groups.values() for _, record in group for p in record.points})
    labels = precision_labels(precision for *_, precision, _ in groups)
    rows = []
    for (*_, precision, amplitude), group in sorted(groups.items()):
        name, settings = _robustness_name(group[0][1])
        label = joined(settings, labels[precision])
        rows.append(_robustness_row(labeled(name, label), amplitude, group, frequencies))
    heads = (Column("Model", numeric=False), Column("Task", numeric=False), Column("Data", numeric=False))
    numbers = (Column("Seeds"), Column("Amplitude"), Column("Clean"))
    return Table(
        "robustness",
        "Robustness to Fourier-mode noise",
        (*heads, *numbers, *(Column(f"ω = {frequency:g}") for frequency in frequencies)),
        (Block("Test accuracy in %, mean over seeds", tuple(rows)),),
        ("One mode is added to the input of every state space layer; ω is in each channel's own continuous time.",),
    )


def _robustness_name(record: RobustnessRecord) -> tuple[str, str]:
    """Return the model's name, and the digest where its recipe was changed."""
    return model_title(record.model), "" if record.published_recipe else record.digest


def _robustness_row(
    name: str, amplitude: float, group: Sequence[tuple[str, RobustnessRecord]], frequencies: Sequence[float]
) -> tuple[Cell, ...]:
    """Return the row of one model, task, digest, precision and amplitude."""
    record = group[0][1]
    ids = tuple(run for run, _ in group)
    clean = 100 * fmean(found.clean for _, found in group)
    cells = []
    for frequency in frequencies:
        values = [
            100 * point.accuracy
            for _, found in group
            for point in found.points
            if point.frequency == frequency and point.amplitude == amplitude
        ]
        mean = fmean(values) if values else None
        cells.append(Cell(ABSENT) if mean is None else Cell(f"{mean:.2f}", mean, runs=ids))
    return (
        Cell(name, runs=ids),
        Cell(task_title(record.data.task)),
        Cell(f"{record.data.source}, {record.data.size}"),
        Cell(str(len(group)), len(group)),
        Cell(f"{amplitude:g}", amplitude),
        Cell(f"{clean:.2f}", clean, runs=ids),
        *cells,
    )
