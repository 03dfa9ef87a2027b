"""The throughput tables: speeds that runs measured while training, and speeds that `bench` measured on fixed shapes.

Each device kind has its own block. Rows of different device kinds are never ranked against each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median

from lra_bench.records.schema import BenchRecord, Measurement, Record
from lra_bench.registry import task_title
from lra_bench.report.select import LRA, Entry, Loaded, RowKey, row_key, row_label, settings_of
from lra_bench.report.table import ABSENT, STYLES, Block, Cell, Column, Rank, Table, ranks

GIB = 2**30
"""The bytes of one GiB."""

TRAINING = (
    "Model", "Task", "Data", "L", "Batch", "Devices", "Precision", "Runs", "Examples/s/device", "Tokens/s/device",
    "ms/step", "Compile s", "Peak GiB", "Parameters",
)  # fmt: skip
"""The columns of the table of training runs."""

BENCH = (
    "Model", "Task", "L", "Batch", "Devices", "Call", "Precision", "Examples/s/device", "Tokens/s/device", "ms",
    "IQR ms", "Compile s", "Peak GiB", "GFLOP", "of roofline", "Parameters",
)  # fmt: skip
"""The columns of the table of fixed shapes."""

TEXT = frozenset({"Model", "Task", "Data", "Call", "Precision"})
"""The columns of both tables that are not numeric."""

RANKED = frozenset({"Examples/s/device", "Tokens/s/device"})
"""The columns of the table of fixed shapes in which best and second are marked."""

CALLS = {"train": "training step", "forward": "forward", "recurrent": "recurrent step"}
"""The names of the kinds of call in tables."""


def training_speed_table(loaded: Iterable[Loaded]) -> Table:
    """Return the table of median speeds over the runs of each configuration on each device kind.

    The runs measured them while training.
    """
    groups: dict[tuple[str, int, int, str, str, str, bool, int], list[Entry]] = defaultdict(list)
    for item in loaded:
        record = item.record
        if isinstance(record, Record) and record.throughput.steps > 0 and record.throughput.train_seconds > 0:
            system = record.system
            place = (system.device_kind, system.devices, _order(record.data.task), record.model, record.digest)
            memory = record.throughput.remat, record.throughput.microbatch or 0
            groups[*place, record.system.precision, *memory].append(Entry(item.id, record))
    blocks: dict[str, list[tuple[Cell, ...]]] = defaultdict(list)
    for (kind, *_), runs in sorted(groups.items()):
        blocks[kind].append(_training_row(runs))
    return Table(
        "training-speed",
        "Throughput of the training runs",
        _columns(TRAINING),
        tuple(Block(kind, tuple(rows)) for kind, rows in sorted(blocks.items())),
        (
            "Median over the runs of a configuration, measured while training: evaluation and compilation excluded, "
            "data loading included. Not ranked: batch and length differ from row to row.",
        ),
    )


def throughput_table(loaded: Iterable[Loaded]) -> Table:
    """Return the table of bench records, with a row per model, shape and call.

    Published networks are ranked by examples per second among those of the same task, length, devices, call, input and
    precision. Each runs at its own batch. Other networks are not ranked.
    """
    groups: dict[tuple[str, int, int, str, int, str, str, str], list[tuple[str, BenchRecord, Measurement]]] = {}
    for item in loaded:
        record = item.record
        if not isinstance(record, BenchRecord):
            continue
        for measured in record.measurements:
            shape = (record.system.device_kind, record.system.devices, _order(record.task), record.task, record.length)
            place = (*shape, measured.call, measured.input, record.system.precision)
            groups.setdefault(place, []).append((item.id, record, measured))
    blocks: dict[str, list[tuple[Cell, ...]]] = defaultdict(list)
    for bench, entries in sorted(groups.items()):
        best = ranks(
            [
                measured.tokens_per_second_per_device if is_published_network(record) else None
                for _, record, measured in entries
            ]
        )
        for (run, record, measured), rank in zip(entries, best, strict=True):
            row = _bench_row(run, record, measured)
            cells = zip(BENCH, row, strict=True)
            blocks[bench[0]].append(tuple(_ranked(cell, rank) if name in RANKED else cell for name, cell in cells))
    return Table(
        "throughput",
        "Throughput on fixed shapes",
        _columns(BENCH),
        tuple(Block(kind, tuple(rows)) for kind, rows in sorted(blocks.items())),
        (
            "Examples/s/device = global batch / (median seconds × devices); compilation apart.",
            f"{STYLES} among published networks of the same task, length, devices, call and precision, each at its own "
            "batch. Changed recipes and --remat are not ranked, nor device kinds against each other.",
        ),
    )


def is_published_network(record: BenchRecord) -> bool:
    """Whether the record is without --remat and overrides at most the batch size, which a rate per example allows."""
    return set(record.overrides) <= {"batch_size"} and not record.remat


def number(value: float | None, digits: int = 3) -> str:
    """Return `value` with about `digits` significant digits, grouped thousands and no exponent; – for None."""
    if value is None:
        return ABSENT
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    rounded = f"{value:.{digits}g}"
    return rounded if "e" not in rounded else f"{value:.{digits + 6}f}".rstrip("0").rstrip(".")


def amount(value: float | None, runs: tuple[str, ...] = (), marks: str = "") -> Cell:
    """Return the cell of a number, rounded by `number`."""
    return Cell(number(value), value, marks=marks, runs=runs)


def whole(value: int) -> Cell:
    """Return the cell of a whole number, with all its digits."""
    return Cell(f"{value:,}", value)


def _columns(names: Sequence[str]) -> tuple[Column, ...]:
    return tuple(Column(name, numeric=name not in TEXT) for name in names)


def _order(task: str) -> int:
    """Return the task's place in the tables; tasks outside of the benchmark come last."""
    return LRA.index(task) if task in LRA else len(LRA)


def _label(key: RowKey, remat: bool, microbatch: int | None = None) -> str:
    """Return the row's name, with the options `--remat` and `--microbatch` where they saved memory."""
    parts = [row_label(key), "--remat" if remat else "", f"--microbatch {microbatch}" if microbatch else ""]
    return " ".join(part for part in parts if part)


def _training_row(runs: Sequence[Entry]) -> tuple[Cell, ...]:
    """Return the cells of `TRAINING` for the runs of one configuration on one device kind."""
    record = runs[0].record
    speeds = [run.record.throughput for run in runs]
    peaks = [speed.peak_memory_bytes for speed in speeds if speed.peak_memory_bytes is not None]
    estimated = any(speed.peak_memory_source == "compiler estimate" for speed in speeds)
    ids = tuple(run.id for run in runs)
    return (
        Cell(_label(row_key(record), record.throughput.remat, record.throughput.microbatch), runs=ids),
        Cell(task_title(record.data.task)),
        Cell(record.data.size),
        whole(record.data.length),
        whole(record.recipe.batch_size),
        whole(record.system.devices),
        Cell(record.system.precision),
        whole(len(runs)),
        amount(median(speed.examples_per_second_per_device for speed in speeds), ids),
        amount(
            median(
                speed.tokens_per_second / run.record.system.devices for speed, run in zip(speeds, runs, strict=True)
            ),
            ids,
        ),
        amount(median(1000 * speed.train_seconds / speed.steps for speed in speeds), ids),
        amount(median(speed.compile_seconds for speed in speeds)),
        amount(median(peaks) / GIB if peaks else None, marks="e" if peaks and estimated else ""),
        whole(record.parameters),
    )


def _bench_row(run: str, record: BenchRecord, measured: Measurement) -> tuple[Cell, ...]:
    """Return the cells of `BENCH` for one measurement of the bench record with the id `run`."""
    seconds = measured.seconds
    peak = None if measured.peak_memory_bytes is None else measured.peak_memory_bytes / GIB
    call = CALLS[measured.call] + (", real data" if measured.input == "data" else "")
    return (
        Cell(_label(RowKey("settings", record.model, settings_of(record.overrides)), record.remat), runs=(run,)),
        Cell(task_title(record.task)),
        whole(record.length),
        whole(record.batch_size),
        whole(record.system.devices),
        Cell(call),
        Cell(record.system.precision),
        amount(measured.examples_per_second_per_device, (run,)),
        amount(measured.tokens_per_second_per_device, (run,)),
        amount(1000 * seconds.median),
        amount(1000 * (seconds.q3 - seconds.q1)),
        amount(measured.compile_seconds),
        amount(peak, marks="e" if peak is not None and measured.peak_memory_source == "compiler estimate" else ""),
        amount(None if measured.flops is None else measured.flops / 1e9),
        amount(None if measured.roofline_fraction is None else measured.roofline_fraction),
        whole(record.parameters),
    )


def _ranked(cell: Cell, rank: Rank) -> Cell:
    return cell if cell.value is None else replace(cell, rank=rank)
