"""Ratios of speeds: new measurements against those of earlier records or of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from lra_bench.errors import UserError
from lra_bench.json_files import read_json
from lra_bench.progress import print_line
from lra_bench.records.files import load_any, record_files, record_of
from lra_bench.records.finished import RECORD
from lra_bench.records.schema import BenchRecord, Record
from lra_bench.runs.checksums import SETTINGS
from lra_bench.runs.run import find_run
from lra_bench.spec import Precision


class Key(NamedTuple):
    """The identity of a measurement. Speeds with the same key are compared, else those of another precision."""

    model: str
    task: str
    length: int
    call: str
    input: str
    precision: Precision


class Speed(NamedTuple):
    """A speed in examples per second on one device (steps per second, for the recurrent step), and its conditions."""

    rate: float
    batch: int
    device_kind: str


Earlier = dict[Key, Speed]
"""The speeds of earlier measurements."""


class Ratio(NamedTuple):
    """The ratio of a new speed to an earlier one, and what differs between them."""

    model: str
    task: str
    length: int
    call: str
    input: str
    times_as_fast: float
    earlier_batch: int
    batch: int
    earlier_device_kind: str
    device_kind: str
    earlier_precision: Precision
    precision: Precision

    def sentence(self) -> str:
        """The ratio as a sentence for the terminal."""
        text = f"{self.model} on {self.task}, {self.length:,} steps, {self.call} ({self.input}): "
        text += f"{self.times_as_fast:.2f} times as fast"
        if self.batch != self.earlier_batch:
            text += f"; batch {self.batch}, before {self.earlier_batch}"
        if self.device_kind != self.earlier_device_kind:
            text += f"; on {self.device_kind}, before on {self.earlier_device_kind}"
        if self.precision != self.earlier_precision:
            text += f"; in {self.precision}, before in {self.earlier_precision}"
        return text + "."


def earlier_speeds(name: str | None, cells: Sequence[tuple[str, str, int]]) -> Earlier:
    """Read the speeds of a record, of `bench --json`'s output, of a results folder or of a run; {} for None.

    Raises UserError where there is no such thing, where it cannot be read, or where it holds none of the `cells`.
    """
    if name is None:
        return {}
    found: Earlier = {}
    for record in read(name):
        found |= speeds_of(record)
    if not {key[:3] for key in found} & set(cells):
        held = ", ".join(sorted({f"{key.model} on {key.task} at {key.length}" for key in found})) or "no speed at all"
        raise UserError(f"--against {name} has none of the cells asked for; it holds {held}.")
    return found


def read(name: str) -> list[Record | BenchRecord]:
    """Read the records of a file, of a results folder or of a run. Raises UserError where there are none."""
    path = Path(name)
    if path.is_file():
        return parse(path)
    if path.is_dir() and not (path / SETTINGS).is_file():
        return [record for file in record_files(path) if (record := read_or_warn(file)) is not None]
    result = find_run(name) / RECORD
    if not result.exists():
        raise UserError(f"--against {name}: that run is not finished, so it has no record yet.")
    return parse(result)


def parse(path: Path) -> list[Record | BenchRecord]:
    """Read the records of a file: one, or the list in `bench --json`'s output. Raises UserError where it cannot."""
    values = read_json(path)
    listed = values["records"] if isinstance(values, dict) and isinstance(values.get("records"), list) else [values]
    records = [record_of(value, str(path)) for value in listed]
    return [record for record in records if isinstance(record, Record | BenchRecord)]


def read_or_warn(path: Path) -> Record | BenchRecord | None:
    """Read one record of a folder; None, with a warning if it cannot be used, for one that has no speed."""
    try:
        record = load_any(path)
    except UserError as error:
        print_line(f"Left out: {error}")
        return None
    return record if isinstance(record, Record | BenchRecord) else None


def speeds_of(record: Record | BenchRecord) -> Earlier:
    """The speeds of a record. That of a training run counts both for real data and for synthetic examples."""
    kind = record.system.device_kind
    if isinstance(record, Record):
        key = Key(record.model, record.data.task, record.data.length, "train", "data", record.system.precision)
        rate = record.throughput.examples_per_second_per_device
        speed = Speed(rate, record.recipe.batch_size, kind)
        return {key: speed, key._replace(input="synthetic"): speed} if rate > 0 else {}
    place = (record.model, record.task, record.length)
    return {
        Key(*place, measured.call, measured.input, record.system.precision): Speed(
            measured.examples_per_second_per_device or measured.tokens_per_second_per_device, record.batch_size, kind
        )
        for measured in record.measurements
    }


def ratios(records: Sequence[BenchRecord], earlier: Earlier) -> list[Ratio]:
    """Make a ratio for every measurement that `earlier` has too, if only in another precision."""
    found = []
    for record in records:
        for key, now in speeds_of(record).items():
            others = [key, *(key._replace(precision=precision) for precision in get_args(Precision))]
            for other in [other for other in others if other in earlier][:1]:
                before = earlier[other]
                times, kinds = now.rate / before.rate, (before.device_kind, now.device_kind)
                precisions = other.precision, key.precision
                found.append(Ratio(*key[:5], times, before.batch, now.batch, *kinds, *precisions))
    return found
