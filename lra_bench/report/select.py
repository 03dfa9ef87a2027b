"""The selection of comparable training records for the accuracy tables, with a reason for each one left out.

This module imports no JAX.
"""

from __future__ import annotations

import gc
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lra_bench.errors import UserError
from lra_bench.plain_text import one_line
from lra_bench.records.files import load_any, record_files
from lra_bench.records.proof import copies
from lra_bench.records.schema import AnyRecord, Record, Status
from lra_bench.registry import cli_name, has_official_contents, model_title, task_names
from lra_bench.report.fitting import SelectionProtocol, only_held_out, unfit
from lra_bench.report.published import published
from lra_bench.runs.pretraining import Pretraining
from lra_bench.spec import PUBLISHED_PRECISIONS, DataInfo, Precision, Protocol, Source

LRA = task_names()
"""The tasks of the benchmark, in the order of the paper's table."""

SOLVED_MARGIN = 0.1
"""The share of the way from the majority class to 100 % from which on a run counts as having solved its task."""

_LONG_NUMBER = re.compile(r"(?<![\w.])\d+\.\d{6,}(?:e[+-]?\d+)?")
"""A number of many decimals in a row's settings."""

Section = Literal["published", "settings", "pretrained", "reduced"]
"""A part of the tables, which no row, mean or rank crosses; each holds the runs that `HEADINGS` names."""

HEADINGS: dict[Section, str] = {
    "published": "Published recipes",
    "settings": "Other settings",
    "pretrained": "Pretrained on the inputs of the same task",
    "reduced": "Reduced data (not the benchmark)",
}
"""The heading of each section."""


@dataclass(frozen=True)
class Loaded:
    """A record and its id: the path of its file relative to the results folder, without `.json`."""

    id: str
    record: AnyRecord


@dataclass(frozen=True)
class Entry:
    """A training record that a table shows, and its id."""

    id: str
    record: Record

    @property
    def accuracy(self) -> float | None:
        """The test accuracy; None for a run that ended early."""
        return self.record.accuracy.test if self.record.status == "completed" else None

    @property
    def solved(self) -> bool:
        """Whether the run completed and solved its task."""
        return self.accuracy is not None and self.accuracy >= threshold(self.record)

    @property
    def counted(self) -> float:
        """The accuracy that counts in means, ranks and averages: a run that failed in whatever way counts as the
        majority class."""
        return self.accuracy if self.accuracy is not None and self.solved else self.record.accuracy.majority


EARLY: tuple[Status, ...] = ("diverged", "stopped")
"""How runs end that have no test accuracy."""


def ended_early(runs: Sequence[Entry]) -> str:
    """Say how many of the runs ended early, as in `, 2 diverged, 1 stopped`; "" where none did."""
    counts = {status: sum(run.record.status == status for run in runs) for status in EARLY}
    return "".join(f", {count} {status}" for status, count in counts.items() if count)


@dataclass(frozen=True)
class LeftOut:
    """The id of a record that no table shows, and the reason."""

    id: str
    reason: str


@dataclass(frozen=True, order=True)
class RowKey:
    """The key of a row of the accuracy tables; `settings` tells the rows of one model and section apart.

    They name the precision where the section has several, and where it is not a published one.
    """

    section: Section
    model: str
    settings: str = ""


@dataclass(frozen=True)
class Displaced:
    """How many records a column of the tables does not show, because it shows other examples of the same task.

    `proved` says whether the shown ones have the fingerprint of the official files.
    """

    task: str
    size: str
    shown: str
    records: int
    proved: bool


@dataclass
class SelectedRecords:
    """The cells of the accuracy tables by row and task, and the records that are in none.

    All entries of a cell have the same digest, and all of a row the same precision. `displaced` says which columns
    leave out records of other examples.
    """

    selection: SelectionProtocol
    cells: dict[tuple[RowKey, str], list[Entry]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    displaced: list[Displaced] = field(default_factory=list)

    def rows(self, section: Section) -> list[RowKey]:
        """Return the rows of a section in alphabetical order."""
        return sorted({key for key, _ in self.cells if key.section == section})

    def tasks(self, sections: Sequence[Section]) -> list[str]:
        """Return the six tasks of the benchmark, then all other tasks that have a cell in these sections."""
        found = {task for key, task in self.cells if key.section in sections}
        return [*LRA, *sorted(found - set(LRA))]


def threshold(record: Record) -> float:
    """Return the test accuracy in [0, 1] from which on this run counts as having solved its task."""
    return record.accuracy.majority + SOLVED_MARGIN * (1 - record.accuracy.majority)


def load(results_dir: Path) -> tuple[list[Loaded], list[LeftOut]]:
    """Read every record below `results_dir`. Files that are no records, contradict the package or copy another record's
    run are returned apart, with the reason.

    Raises UserError where there is no such folder.
    """
    if not results_dir.is_dir():
        raise UserError(
            f"There is no results folder {one_line(str(results_dir))}. Train something first, or name it with "
            "--results-dir."
        )
    with _without_garbage_collection():
        found, refused = _read_all(results_dir)
    for name, original in copies(found).items():
        del found[name]
        refused[name] = f"its curve is that of {original}: one run, copied as another"
    loaded = [Loaded(name, record) for name, record in found.items()]
    return loaded, [LeftOut(name, reason) for name, reason in sorted(refused.items())]


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Collect no garbage. Thousands of records have no cycles, and a collection visits all that were read before."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _read_all(results_dir: Path) -> tuple[dict[str, AnyRecord], dict[str, str]]:
    """Read every record by its name, and the reason for each file that is refused."""
    found: dict[str, AnyRecord] = {}
    refused: dict[str, str] = {}
    for path in record_files(results_dir):
        name = one_line(path.relative_to(results_dir).with_suffix("").as_posix())
        try:
            found[name] = load_any(path)
        except UserError as error:
            refused[name] = str(error).replace(str(path), "the file")
    return found, refused


def select_records(
    loaded: Iterable[Loaded], *, protocol: Protocol = "s4", selection: SelectionProtocol = "paper"
) -> SelectedRecords:
    """Sort the training records into cells of comparable runs, and leave out the others with a reason."""
    chosen = SelectedRecords(selection)
    fitting: list[Entry] = []
    for item in loaded:
        if not isinstance(item.record, Record):
            continue
        reason = unfit(item.record, protocol, selection)
        if reason:
            chosen.left_out.append(LeftOut(item.id, reason))
        else:
            fitting.append(Entry(item.id, item.record))
    reference = _references(fitting)
    comparable: list[Entry] = []
    displaced: dict[tuple[str, str], int] = defaultdict(int)
    for run in fitting:
        data = run.record.data
        shown = reference[data.task, data.size]
        if (data.version, data.fingerprint) != (shown.version, shown.fingerprint):
            displaced[data.task, data.size] += 1
            reason = f"other examples: {data.version} {data.fingerprint}, the column has {shown.version} "
            chosen.left_out.append(LeftOut(run.id, reason + shown.fingerprint))
        else:
            comparable.append(run)
    chosen.displaced = [_displaced(reference[column], count) for column, count in sorted(displaced.items())]
    for place, runs in sorted(_cells(comparable).items()):
        chosen.cells[place] = _one_configuration(runs, chosen.left_out)
    chosen.left_out.sort(key=lambda item: (item.id, item.reason))
    return chosen


def _cells(runs: Sequence[Entry]) -> dict[tuple[RowKey, str], list[Entry]]:
    """Return the runs by row and task. A row holds one precision, so that no mean is over two."""
    found: dict[Section, list[tuple[RowKey, Entry]]] = defaultdict(list)
    for run in runs:
        key = row_key(run.record)
        found[key.section].append((key, run))
    cells: dict[tuple[RowKey, str], list[Entry]] = defaultdict(list)
    for there in found.values():
        labels = precision_labels(run.record.system.precision for _, run in there)
        for key, run in there:
            settings = joined(key.settings, labels[run.record.system.precision])
            cells[replace(key, settings=settings), run.record.data.task].append(run)
    return cells


def row_key(record: Record) -> RowKey:
    """Return the key of the row that the record belongs to, without its precision."""
    settings = settings_of(record.overrides, record.pretraining)
    if record.data.size != "full":
        return RowKey("reduced", record.model, joined(f"data {record.data.size}", settings))
    if record.pretraining is not None:
        return RowKey("pretrained", record.model, settings)
    if record.published_recipe or only_held_out(record):
        return RowKey("published", record.model)
    bare = "cut short"
    if record.recipe.published is None:
        bare = published().without_accuracy(cli_name(record.model), record.data.task)
    if record.system.precision not in PUBLISHED_PRECISIONS:
        bare = ""  # the precision is what was changed
    said = record.note if record.status == "completed" else ""  # one that ended early says why, each its own way
    return RowKey("settings", record.model, settings or said or bare)


def row_label(key: RowKey) -> str:
    """Return the row's name in tables, such as `S5 [epochs=1]`, with numbers of at most six digits.

    The key itself has all digits, so that settings which differ in the seventh are rows of their own.
    """
    settings = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.6g}", key.settings)
    return labeled(model_title(key.model), settings)


def labeled(name: str, settings: str) -> str:
    """Return the name with its settings in brackets, if there are any."""
    return f"{name} [{settings}]" if settings else name


def precision_labels(precisions: Iterable[Precision]) -> dict[Precision, str]:
    """Return the label of each of the precisions that rows shown together were run in.

    It is empty where all were run in the same precision and this one is as published.
    """
    found = set(precisions)
    return {each: each if len(found) > 1 or each not in PUBLISHED_PRECISIONS else "" for each in found}


def joined(*parts: str) -> str:
    """Return the parts that are not empty as one text, such as `data tiny; epochs=1`."""
    return "; ".join(part for part in parts if part)


def settings_of(overrides: Mapping[str, Any], pretraining: Pretraining | None = None) -> str:
    """Return the overrides as they are typed after `--set`, such as `epochs=1, lr=0.01`, after the pretraining."""
    typed = ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(overrides.items()))
    return joined(pretraining.label if pretraining else "", typed)


def _references(runs: Sequence[Entry]) -> dict[tuple[str, str], DataInfo]:
    """Return the data that each column shows, by task and size.

    Data with the fingerprint of the official files comes first, then what is called official or a mirror, then the
    user's files, and generated data last; among equals most runs decide.
    """
    order: dict[Source, int] = {"official": 1, "mirror": 1, "user": 2, "generated": 3}
    found: dict[tuple[str, str], dict[tuple[str, str], list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        data = run.record.data
        found[data.task, data.size][data.version, data.fingerprint].append(run)

    def rank(data: DataInfo) -> int:
        return 0 if has_official_contents(data.task, data.protocol, data.fingerprint) else order[data.source]

    def merit(item: tuple[tuple[str, str], list[Entry]]) -> tuple[int, int, tuple[str, str]]:
        examples, there = item
        return min(rank(run.record.data) for run in there), -len(there), examples

    best = {column: min(groups.items(), key=merit)[1] for column, groups in found.items()}
    return {column: min((run.record.data for run in there), key=rank) for column, there in best.items()}


def _displaced(shown: DataInfo, records: int) -> Displaced:
    """Return the notice of so many records that a column does not show beside this data."""
    proved = has_official_contents(shown.task, shown.protocol, shown.fingerprint)
    text = f"{shown.source} {shown.version}, {shown.fingerprint}"
    return Displaced(shown.task, shown.size, text, records, proved)


def _one_configuration(runs: Sequence[Entry], left_out: list[LeftOut]) -> list[Entry]:
    """Return the runs of one digest, one per seed in the order of seeds, and append the others to `left_out`.

    The digest is the one with most finished seeds, among equals the one with the newest run.
    """
    groups: dict[str, list[Entry]] = defaultdict(list)
    for run in runs:
        groups[run.record.digest].append(run)

    def merit(digest: str) -> tuple[int, str, str]:
        group = groups[digest]
        finished = len({run.record.seed for run in group if run.accuracy is not None})
        return finished, max(run.record.provenance.finished for run in group), digest

    best = max(groups, key=merit)
    for digest, group in groups.items():
        if digest != best:
            reason = f"another configuration of the same cell: {best} has more seeds or is newer than {digest}"
            left_out.extend(LeftOut(run.id, reason) for run in group)
    kept: dict[int, Entry] = {}
    for run in sorted(groups[best], key=lambda run: run.id):
        if run.record.seed in kept:
            reason = f"seed {run.record.seed} is there twice: {kept[run.record.seed].id} is shown"
            left_out.append(LeftOut(run.id, reason))
        else:
            kept[run.record.seed] = run
    return [kept[seed] for seed in sorted(kept)]
