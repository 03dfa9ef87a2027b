"""The record in the folder of a finished run: `result.json`, with the checksums of it and of the run's settings."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from lra_bench.errors import UserError
from lra_bench.paths import write_atomically
from lra_bench.progress import print_line
from lra_bench.records.files import load_record, record_path, record_text
from lra_bench.records.schema import Record
from lra_bench.runs.checksums import (
    SETTINGS,
    checksum_of,
    checksums_of,
    damage_of,
    recorded_checksums,
    write_checksums,
)
from lra_bench.runs.run import Run, all_runs, settings_text

RECORD = "result.json"
"""The name of the record in the folder of a run. Its presence means that the run has ended."""


def is_finished(folder: Path) -> bool:
    """Whether the run of this folder has ended."""
    return (folder / RECORD).exists()


def write_finished(folder: Path, record: Record) -> None:
    """Write the record of a run that has ended into its folder, with the checksums.

    They come first, so that there is never a record that does not fit them, whenever the process is killed.
    """
    text = record_text(record)
    write_checksums(folder, checksums_of(folder, [SETTINGS]) | {RECORD: checksum_of(text)})
    write_atomically(folder / RECORD, text)


def load_finished(folder: Path) -> Record:
    """Read the record of a finished run. Raises UserError where it or the run's settings are not as they were written,
    and where it is no record."""
    damage = damage_of(folder, [SETTINGS, RECORD])
    if damage is not None:
        raise UserError(
            f"{folder} is damaged: {damage}. Type the `lra-bench train` of this run again, which mends it where its "
            f"record is sound here or in the results folder. Where neither is, remove {folder / RECORD} before: then "
            "the last checkpoint is tested again, and the record written anew."
        )
    return load_record(folder / RECORD)


def mend_finished(run: Run, results_dir: Path) -> None:
    """Write the settings and the record of a finished run anew where they are damaged, and say so.

    The record must be sound: what lies here or in `results_dir` has the SHA-256 that was recorded, or both are the
    same. Otherwise nothing is done. Killed at any moment, the next call does the same.
    """
    damage = damage_of(run.folder, [SETTINGS, RECORD])
    if damage is None:
        return
    copy = record_path(results_dir, run.data.task, run.model, run.digest, run.seed)
    found = [path.read_bytes() for path in (run.folder / RECORD, copy) if path.is_file()]
    expected = recorded_checksums(run.folder).get(RECORD)
    sound = [content for content in found if sha256(content).hexdigest() == expected]
    if not sound and len(found) == 2 and found[0] == found[1]:
        sound = found
    if sound:
        settings, record = settings_text(run), sound[0].decode()
        write_checksums(run.folder, {SETTINGS: checksum_of(settings), RECORD: checksum_of(record)})
        write_atomically(run.folder / SETTINGS, settings)
        write_atomically(run.folder / RECORD, record)
        print_line(f"{run.folder} was damaged: {damage}. Its settings and its record were written anew.")


def finished_here(results_dir: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield the name of each finished run of this machine, its record in its folder, and where that is in a results
    folder."""
    for folder in all_runs():
        task, model, name = folder.parts[-3:]
        digest, _, seed = name.rpartition("-s")
        if is_finished(folder) and seed.isdecimal():
            place = record_path(results_dir, task, model, digest, int(seed))
            yield f"{task}/{model}/{name}", folder / RECORD, place


def changed_records(results_dir: Path) -> list[Path]:
    """Return the files of records that are not what their sound runs on this machine wrote."""
    found = []
    for _, record, place in finished_here(results_dir):
        changed = place.is_file() and place.read_bytes() != record.read_bytes()
        if changed and damage_of(record.parent, [SETTINGS, RECORD]) is None:
            found.append(place)
    return found
