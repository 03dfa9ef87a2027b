"""The files of a finished run: its record `result.json`, one bit per test example, and the checksums of both and of the
run's settings."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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

CORRECT = "test_correct.npy"
"""The name of the file with one bit per test example: whether the best checkpoint classified it correctly.

It holds `numpy.packbits` of them in the order of the test split: uint8, (⌈n/8⌉,).
"""


def is_finished(folder: Path) -> bool:
    """Whether the run of this folder has ended."""
    return (folder / RECORD).exists()


def write_finished(folder: Path, record: Record, correct: NDArray[np.bool_] | None = None) -> None:
    """Write the record of a run that has ended into its folder, with the checksums.

    correct: which test examples were classified correctly, (test examples,); None for a run that was not tested.

    The checksums come first and the record last, so that there is never a record that does not fit them, whenever the
    process is killed.
    """
    text = record_text(record)
    packed = {} if correct is None else {CORRECT: _packed(correct)}
    contents: dict[str, str | bytes] = {**packed, RECORD: text}
    sums = checksums_of(folder, [SETTINGS]) | {name: checksum_of(content) for name, content in contents.items()}
    write_checksums(folder, sums)
    for name, content in contents.items():
        write_atomically(folder / name, content)


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


def keep_correct(folder: Path, record: Record, correct: NDArray[np.bool_]) -> bool:
    """Write which test examples a finished run classified correctly, (test examples,), beside its record.

    Returns False, and leaves all as it is, where the run keeps the same already.
    """
    with contextlib.suppress(UserError):
        kept = load_correct(folder, record)
        if kept is not None and np.array_equal(kept, correct):
            return False
    packed = _packed(correct)
    write_checksums(folder, checksums_of(folder, [SETTINGS, RECORD]) | {CORRECT: checksum_of(packed)})
    write_atomically(folder / CORRECT, packed)
    return True


def load_correct(folder: Path, record: Record) -> NDArray[np.bool_] | None:
    """Read which test examples a finished run classified correctly, (test examples,), in the order of the split.

    None where the run does not keep them. Raises UserError where the file is damaged or contradicts the record.
    """
    path, n = folder / CORRECT, record.data.counts["test"]
    if record.accuracy.test is None or not path.is_file():
        return None
    damage = damage_of(folder, [CORRECT])
    if damage is None:
        try:
            packed = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        except (ValueError, EOFError):
            packed = np.zeros(0)
        if packed.dtype == np.uint8 and packed.shape == (-(-n // 8),):
            correct = np.unpackbits(packed, count=n).astype(bool)
            if int(correct.sum()) == round(record.accuracy.test * n):
                return correct
        damage = f"{CORRECT} does not give the accuracy of {RECORD}"
    raise UserError(f"{folder} is damaged: {damage}. `lra-bench evaluate {folder.name}` writes {CORRECT} anew.")


def _packed(correct: NDArray[np.bool_]) -> bytes:
    """The content of the file that keeps these bits."""
    content = io.BytesIO()
    np.save(content, np.packbits(correct))
    return content.getvalue()


def mend_finished(run: Run, results_dir: Path) -> None:
    """Write the settings and the record of a finished run anew where they are damaged, and say so.

    The record must be sound: what lies here or in `results_dir` has the SHA-256 that was recorded, or, where none was,
    both are the same. Otherwise nothing is done. Killed at any moment, the next call does the same.
    """
    damage = damage_of(run.folder, [SETTINGS, RECORD])
    if damage is None:
        return
    copy = record_path(results_dir, run.data.task, run.model, run.digest, run.seed)
    found = [path.read_bytes() for path in (run.folder / RECORD, copy) if path.is_file()]
    expected = recorded_checksums(run.folder).get(RECORD)
    sound = [content for content in found if sha256(content).hexdigest() == expected]
    if expected is None and len(found) == 2 and found[0] == found[1]:
        sound = found
    if sound:
        settings, record = settings_text(run), sound[0].decode()
        kept = {name: found for name, found in recorded_checksums(run.folder).items() if name == CORRECT}
        write_checksums(run.folder, {SETTINGS: checksum_of(settings), RECORD: checksum_of(record)} | kept)
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
    """Return the files of records that are not what their runs on this machine wrote, by the checksums of the runs."""
    found = []
    for _, record, place in finished_here(results_dir):
        if place.is_file():
            content, expected = place.read_bytes(), recorded_checksums(record.parent).get(RECORD)
            if content != record.read_bytes() if expected is None else sha256(content).hexdigest() != expected:
                found.append(place)
    return found
