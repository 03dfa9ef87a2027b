"""The results card: what was measured, with which versions, on which data and devices, and how to repeat it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lra_bench.plain_text import one_line
from lra_bench.records.schema import BenchRecord
from lra_bench.registry import has_official_contents as official
from lra_bench.registry import task_title
from lra_bench.report.accuracy import DIFFERENCE, accuracy_cell
from lra_bench.report.formats import markdown
from lra_bench.report.select import HEADINGS, Loaded, SelectedRecords, row_label, select_records
from lra_bench.report.table import Block, Cell, Column, Table
from lra_bench.spec import Protocol


def card(loaded: Sequence[Loaded], protocol: Protocol) -> str:
    """Return the results card of these records as Markdown."""
    chosen = select_records(loaded, protocol=protocol)
    kinds = Counter(item.record.kind for item in loaded)
    counts = ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds)) or "none"
    parts = [
        "# Results card\n",
        f"Made by `lra-bench report --site` from its result records ({counts}); protocol `{protocol}`, selection "
        "protocol `paper`. All accuracies are measured here, none is quoted.\n",
        *(markdown(table) for table in (_measured(chosen), _data(loaded), _systems(loaded)) if not table.empty),
        "## Commands that repeat it\n",
        *(f"    {command}" for command in sorted({one_line(item.record.provenance.command) for item in loaded})),
    ]
    return "\n".join(parts) + "\n"


def _measured(chosen: SelectedRecords) -> Table:
    """Return the table of accuracies by model and task, in the same sections as the accuracy tables."""
    blocks = []
    for section, heading in HEADINGS.items():
        rows = []
        for (key, task), runs in chosen.cells.items():
            if key.section == section:
                seeds = ", ".join(str(run.record.seed) for run in runs)
                names = (row_label(key), task_title(task), runs[0].record.digest, seeds)
                rows.append((*(Cell(name) for name in names), accuracy_cell(runs)))
        blocks.append(Block(heading, tuple(rows)))
    note = (
        "Test accuracy in %, mean ± sample standard deviation over seeds; in brackets how many of the seeds solved "
        "the task. A seed that failed counts as the majority class."
    )
    columns = (*_texts("Model", "Task", "Digest", "Seeds"), Column("Test accuracy"))
    return Table("measured", "What was measured", columns, tuple(blocks), (note, DIFFERENCE))


def _data(loaded: Sequence[Loaded]) -> Table:
    """Return the table of the data that accuracies were measured on, with the number of records of each."""
    records = [item.record for item in loaded]
    found: Counter[tuple[str, ...]] = Counter(
        (
            task_title(data.task),
            data.protocol,
            data.source + (" (official contents)" if official(data.task, data.protocol, data.fingerprint) else ""),
            data.size,
            data.version,
            data.fingerprint,
        )
        for data in (record.data for record in records if not isinstance(record, BenchRecord))
    )
    return _counted("data", "Data", ("Task", "Protocol", "Source", "Size", "Version", "Fingerprint"), found)


def _systems(loaded: Sequence[Loaded]) -> Table:
    """Return the table of versions, commits and devices, with the number of records of each."""
    found: Counter[tuple[str, ...]] = Counter()
    for item in loaded:
        system, origin = item.record.system, item.record.provenance
        commit = (origin.git_commit or "not known") + (" with uncommitted changes" if origin.git_dirty else "")
        software = ", ".join(f"{name} {version}" for name, version in sorted(system.versions.items()))
        device = f"{system.devices} × {system.device_kind}"
        found[origin.lra_bench_version, commit, f"Python {system.python}, {software}", device, system.precision] += 1
    return _counted(
        "systems", "Versions and devices", ("lra-bench", "Commit", "Software", "Device", "Precision"), found
    )


def _counted(name: str, title: str, columns: Sequence[str], found: Counter[tuple[str, ...]]) -> Table:
    """Return the table of these rows of texts in alphabetical order, each with its number of records."""
    rows = tuple((*(Cell(text) for text in row), Cell(f"{count:,}", count)) for row, count in sorted(found.items()))
    return Table(name, title, (*_texts(*columns), Column("Records")), (Block("All records", rows),))


def _texts(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, numeric=False) for title in titles)
