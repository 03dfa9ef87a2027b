"""The record in the folder of a finished run: `result.json`, with the checksums of it and of the run's settings."""

from __future__ import annotations

from pathlib import Path

from lra_bench.errors import UserError
from lra_bench.paths import write_atomically
from lra_bench.records.files import load_record, record_text
from lra_bench.records.schema import Record
from lra_bench.runs.checksums import SETTINGS, checksum_of, checksums_of, damage_of, write_checksums

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
            f"{folder} is damaged: {damage}. Remove {RECORD} there and type the same `lra-bench train` again: it tests "
            "the run's last checkpoint again, and writes the record anew."
        )
    return load_record(folder / RECORD)
