"""Fill the packed arrays from a generator or a reader so that a kill at any moment costs at most a second of work.

A journal names what is on the disk for certain: a line is added, and synced, only after the rows it names were synced.
The same plan continues from the journal; another plan (other parameters, another version) starts over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Generator as Generated
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from lra_bench.data.packed import ARRAYS, READ_ROWS, PackedWriter, relative_path
from lra_bench.datasource import Generator, PlacedRows, Reading, Rows
from lra_bench.errors import UserError, WorkError
from lra_bench.progress import Progress
from lra_bench.spec import digest_of

JOURNAL = "journal.jsonl"
SYNC_SECONDS = 1.0
QUEUED_PER_JOB = 3
ALONE_SECONDS = 4.0
"""Work expected to take less than this is done in this process: others take longer to start."""

MOST_CANDIDATES = 20
"""Times the size of the set, in search of examples that do not repeat, before the grammar is called too small."""


class Journal:
    """What is done, one JSON line each. The first line is the digest of the plan it belongs to."""

    def __init__(self, folder: Path, plan: object) -> None:
        """Continue the journal in `folder`, or empty the folder and begin one where it belongs to another plan."""
        path, head = folder / JOURNAL, {"plan": digest_of(plan)}
        self.entries = _read_lines(path)
        if not self.entries or self.entries[0] != head:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.entries = [head]
        # Written anew without the torn end that a kill can leave.
        temporary = path.with_suffix(".new")
        self._file = temporary.open("w", encoding="utf-8")
        for entry in self.entries:
            self._file.write(json.dumps(entry) + "\n")
        self._sync()
        os.replace(temporary, path)

    def add(self, entry: dict[str, Any]) -> None:
        """Returns when the line is on the disk."""
        self.entries.append(entry)
        self._file.write(json.dumps(entry) + "\n")
        self._sync()

    def all(self, key: str) -> list[Any]:
        """Values of every entry with `key`, oldest first."""
        return [entry[key] for entry in self.entries if key in entry]

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Complete lines of a journal; a torn last one is left out."""
    entries = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                entries.append(json.loads(line))
    return entries


class _Recorder:
    """Writes rows, and names them in the journal about once a second, after they were synced."""

    def __init__(self, writer: PackedWriter, journal: Journal, key: str) -> None:
        self.writer, self.journal, self.key = writer, journal, key
        self._pending: list[int] = []
        self._synced = time.monotonic()

    def put(self, number: int, placed: PlacedRows) -> None:
        self.writer.write(placed)
        self._pending.append(number)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self.writer.sync()
            self.journal.add({self.key: self._pending})
            self._pending = []
        self._synced = time.monotonic()


def fill_from_reading(title: str, reading: Reading, writer: PackedWriter, journal: Journal) -> None:
    """Batches already in the journal are read again (the source is a stream) but not written again."""
    done = {number for numbers in journal.all("batches") for number in numbers}
    recorder = _Recorder(writer, journal, "batches")
    layout, seen = reading.layout, 0
    expected = layout.total - (layout.counts["val"] if layout.validation_is_test else 0)
    with Progress(title, total=expected, unit="examples") as progress:
        for number, placed in enumerate(reading.batches()):
            if number not in done:
                recorder.put(number, placed)
            seen += len(placed.indices)
            progress.advance(len(placed.indices))
    recorder.flush()
    if seen != expected:
        raise UserError(f"{title}: {seen:,} examples were found where {expected:,} are expected.")


def fill_from_generator(
    title: str, generator: Generator, seed: int, jobs: int, writer: PackedWriter, journal: Journal
) -> None:
    """Chunks in any order, in `jobs` processes; then repeats are replaced where examples must be distinct."""
    total = generator.layout.total
    done = {number for numbers in journal.all("chunks") for number in numbers}
    starts = {number: start for number, start in enumerate(range(0, total, generator.chunk)) if number not in done}
    recorder = _Recorder(writer, journal, "chunks")
    with Progress(title, total=total, unit="examples") as progress:
        progress.at(total - sum(min(generator.chunk, total - start) for start in starts.values()), total)
        ranges = {number: (start, min(start + generator.chunk, total)) for number, start in starts.items()}
        with contextlib.closing(_generated(generator, seed, ranges, jobs)) as finished:
            for number, rows in finished:
                recorder.put(number, PlacedRows(np.arange(*ranges[number]), rows))
                progress.advance(len(rows.labels))
    recorder.flush()
    if generator.distinct:
        _replace_repeats(generator, seed, writer, journal)


def _generated(
    generator: Generator, seed: int, ranges: Mapping[int, tuple[int, int]], jobs: int
) -> Generated[tuple[int, Rows], None, None]:
    """Chunks as they are finished."""
    expected = generator.seconds_per_example * sum(stop - start for start, stop in ranges.values())
    if jobs == 1 or len(ranges) < 2 or expected < ALONE_SECONDS:
        for number, (start, stop) in ranges.items():
            yield number, generator.generate(seed, start, stop)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy the parent's threads and locks half-way
    leash, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(jobs, len(ranges)), context, initializer=_on_leash, initargs=(leash,))
    try:
        running: dict[Future[Rows], int] = {}
        waiting = iter(ranges.items())
        while True:
            for number, (start, stop) in waiting:
                running[pool.submit(generator.generate, seed, start, stop)] = number
                if len(running) >= QUEUED_PER_JOB * jobs:
                    break
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise WorkError("a worker process was killed, perhaps for lack of memory. Type the same to go on.") from None
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)
        leash.close()


def _on_leash(leash: Connection) -> None:
    """In a worker: Ctrl-C is the parent's business; when it lets go of its end, by will or by death, the worker leaves.

    Whatever the worker was at is then of no use: asking it politely would make Ctrl-C wait for the chunk's end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        leash.poll(None)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _replace_repeats(generator: Generator, seed: int, writer: PackedWriter, journal: Journal) -> None:
    """Each example that occurred before gives way to the next one, after the last index, that did not.

    The list of replacements is in the journal before the first is written, so a kill in between changes nothing.
    """
    if journal.all("replaced"):
        return
    plans = journal.all("replacements")
    plan = plans[0] if plans else _plan_replacements(generator, seed, writer)
    if not plans:
        journal.add({"replacements": plan})
    for index, candidate in plan:
        writer.write(PlacedRows(np.array([index]), generator.generate(seed, candidate, candidate + 1)))
    writer.sync()
    journal.add({"replaced": len(plan)})


def _plan_replacements(generator: Generator, seed: int, writer: PackedWriter) -> list[tuple[int, int]]:
    """(index of a repeat, index of the example to put there), in order."""
    total = generator.layout.total
    seen: set[bytes] = set()

    def is_new(row: np.ndarray) -> bool:
        before = len(seen)
        seen.add(hashlib.blake2b(row.tobytes(), digest_size=16).digest())
        return len(seen) > before

    repeats = [
        start + offset
        for start in range(0, total, READ_ROWS)
        for offset, row in enumerate(writer.read(start, min(start + READ_ROWS, total)))
        if not is_new(row)
    ]
    plan: list[tuple[int, int]] = []
    for start in range(total, MOST_CANDIDATES * total, generator.chunk):
        if len(plan) == len(repeats):
            return plan
        rows = generator.generate(seed, start, start + generator.chunk)
        for offset, row in enumerate(rows.inputs):
            if len(plan) < len(repeats) and is_new(row):
                plan.append((repeats[len(plan)], start + offset))
    raise WorkError(f"the generator has fewer than {total:,} different examples to offer: ask for a smaller --size.")


def copy_test_to_validation(folder: Path) -> None:
    """For protocols that select on test: the same bytes again, so that every set has three splits."""
    for array in ARRAYS:
        shutil.copyfile(folder / relative_path("test", array), folder / relative_path("val", array))


def sync_files(folder: Path) -> None:
    """Returns when every file below `folder` is on the disk."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
