"""The tables about the records themselves: coverage, provenance, robustness, and the records left out with reasons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import fmean, stdev

from lra_bench.records.schema import NoisePoint, Record, RobustnessRecord, WindowRecord
from lra_bench.registry import task_title
from lra_bench.report.drawing import thinned
from lra_bench.report.select import (
    HEADINGS,
    LeftOut,
    Loaded,
    RowKey,
    Section,
    SelectedRecords,
    ended_early,
    row_label,
)
from lra_bench.report.table import ABSENT, Block, Cell, Column, Table, rounded
from lra_bench.report.tested import TestedRuns, noise_points, tested_names, tested_runs


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
    """Return the table of test accuracy without noise and under every noise, over runs and seeds of the noise."""
    groups: dict[tuple[TestedRuns, float], list[tuple[str, RobustnessRecord]]] = defaultdict(list)
    for item in loaded:
        record = item.record
        if isinstance(record, RobustnessRecord):
            for amplitude in sorted({point.amplitude for point in record.points}):
                groups[tested_runs(record), amplitude].append((item.id, record))
    points = [point for group in groups.values() for _, record in group for point in record.points]
    every = sorted({_noise_order(point) for point in points})
    kinds = [list(found) for _, found in groupby(every, lambda noise: noise[:2])]
    noises = [noise for found in kinds for noise in thinned(found, SWEEP)]
    names = tested_names(record for group in groups.values() for _, record in group)
    rows = [
        _robustness_row(names[place], amplitude, group, noises) for (place, amplitude), group in sorted(groups.items())
    ]
    heads = (Column("Model", numeric=False), Column("Task", numeric=False), Column("Data", numeric=False))
    numbers = (Column("Seeds"), Column("Amplitude"), Column("Clean"))
    return Table(
        "robustness",
        "Robustness to noise",
        (*heads, *numbers, *(Column(_noise_title(*noise)) for noise in noises)),
        (Block("Test accuracy in %, mean ± standard deviation over runs and seeds of the noise", tuple(rows)),),
        (
            "ω: one mode is added to the input of every state space layer, ω in each channel's own continuous time. "
            "Pixels: it is added to the scaled pixels, ω in radians per pixel. Gaussian: normal numbers instead.",
            *([f"Of longer sweeps, {SWEEP} frequencies are shown; the picture has all."] if noises != every else []),
        ),
    )


def window_table(loaded: Iterable[Loaded]) -> Table:
    """Return the table of test accuracy with every layer cut to a window, by window, as mean over seeds."""
    groups: dict[TestedRuns, list[tuple[str, WindowRecord]]] = defaultdict(list)
    for item in loaded:
        if isinstance(item.record, WindowRecord):
            groups[tested_runs(item.record)].append((item.id, item.record))
    windows = sorted({record.window for group in groups.values() for _, record in group})
    names = tested_names(record for group in groups.values() for _, record in group)
    rows = [_window_row(names[place], group, windows) for place, group in sorted(groups.items())]
    heads = (Column("Model", numeric=False), Column("Task", numeric=False), Column("Data", numeric=False))
    return Table(
        "windows",
        "Accuracy within a window",
        (*heads, Column("Seeds"), *(Column(f"w = {window:,}") for window in windows), Column("Whole")),
        (Block("Test accuracy in %, mean over seeds", tuple(rows)),),
        (
            "Every layer is cut to w steps after training: its outputs depend on the inputs less than w steps away, in "
            "each of its directions. Nothing is trained again, so a model that would learn to do without is not shown.",
        ),
    )


def _window_row(name: str, group: Sequence[tuple[str, WindowRecord]], windows: Sequence[int]) -> tuple[Cell, ...]:
    """Return the row of one model, task, digest and precision."""
    record = group[0][1]
    whole = {found.seed: 100 * found.whole for _, found in group}
    cells = []
    for window in windows:
        here = {found.seed: (100 * found.accuracy, run) for run, found in group if found.window == window}
        values, runs = [value for value, _ in here.values()], tuple(run for _, run in here.values())
        cells.append(_mean_cell(values, runs, len(here), len(whole)))
    return (
        Cell(name, runs=tuple(run for run, _ in group)),
        Cell(task_title(record.data.task)),
        Cell(f"{record.data.source}, {record.data.size}"),
        Cell(str(len(whole)), len(whole)),
        *cells,
        Cell(rounded(fmean(whole.values()), 2), fmean(whole.values())),
    )


SWEEP = 8
"""The most columns of modes in one place."""

NoiseOrder = tuple[str, str, float]
"""A noise as it is sorted: on the layers before on the pixels, modes by frequency before Gaussian noise."""


def _noise_order(point: NoisePoint) -> NoiseOrder:
    """Return the place, the kind and the frequency of a point's noise."""
    return {"layers": "", "input": "pixels"}[point.place], point.noise, point.frequency or 0.0


def _noise_title(place: str, kind: str, frequency: float) -> str:
    """Return the head of the column of a noise."""
    return ", ".join(filter(None, (place, "Gaussian" if kind == "gaussian" else f"ω = {frequency:g}")))


def _robustness_row(
    name: str, amplitude: float, group: Sequence[tuple[str, RobustnessRecord]], noises: Sequence[NoiseOrder]
) -> tuple[Cell, ...]:
    """Return the row of one model, task, digest, precision and amplitude."""
    record = group[0][1]
    ids = tuple(run for run, _ in group)
    by_seed = {found.seed: 100 * found.clean for _, found in group}
    clean = fmean(by_seed.values())
    measured = noise_points([found for _, found in group])
    cells = []
    for noise in noises:

        def is_here(point: NoisePoint, noise: NoiseOrder = noise) -> bool:
            return _noise_order(point) == noise and point.amplitude == amplitude

        values = [100 * point.accuracy for point in measured if is_here(point)]
        seeds = {record.seed for _, record in group if any(map(is_here, record.points))}
        cells.append(_mean_cell(values, ids, len(seeds), len(by_seed), deviation=True))
    return (
        Cell(name, runs=ids),
        Cell(task_title(record.data.task)),
        Cell(f"{record.data.source}, {record.data.size}"),
        Cell(str(len(by_seed)), len(by_seed)),
        Cell(f"{amplitude:g}", amplitude),
        Cell(rounded(clean, 2), clean, runs=ids),
        *cells,
    )


def _mean_cell(values: Sequence[float], runs: tuple[str, ...], seeds: int, of: int, deviation: bool = False) -> Cell:
    """Return the cell of accuracies in %: their mean, with `deviation` also that where there is more than one.

    The number of seeds follows where it is not that `of` the row.
    """
    if not values:
        return Cell(ABSENT)
    mean = fmean(values)
    spread = f" ± {rounded(stdev(values), 2)}" if deviation and len(values) > 1 else ""
    return Cell(f"{rounded(mean, 2)}{spread}{'' if seeds == of else f' ({seeds} of {of} seeds)'}", mean, runs=runs)
