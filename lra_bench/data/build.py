"""Filling of the packed arrays from a generator or a reader, so that a kill at any moment costs about a second of work.

A journal records which rows are certainly on the disk. A line is added and synced only after the rows that it names
were synced. The same plan continues from the journal. Another plan (other parameters, another version) starts over.
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
from collections.abc import Generator as PythonGenerator
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from lra_bench.data.packed import ARRAYS, READ_ROWS, PackedWriter, relative_path
from lra_bench.datasource import Generator, PlacedRows, Reader, Rows
from lra_bench.errors import STOPPING, UserError, WorkError
from lra_bench.json_files import parse_json
from lra_bench.progress import Progress
from lra_bench.spec import digest_of

JOURNAL = "journal.jsonl"
"""The name of the journal in the folder that is being built."""

SYNC_SECONDS = 1.0
"""The seconds between two syncs of rows and journal. It bounds the work that a kill can cost."""

QUEUED_PER_JOB = 3
"""The number of chunks submitted per worker process, so that no worker waits for the next one."""

ALONE_SECONDS = 4.0
"""The expected seconds of work below which this process does it alone.

Worker processes would take longer to start.
"""

MOST_CANDIDATES = 20
"""The limit of the search for examples that do not repeat, as a multiple of the size of the set.

Beyond it the generator is reported to have too few different examples.
"""


class Journal:
    """A journal records finished work, one JSON line per entry. The first line is the digest of its plan."""

    def __init__(self, folder: Path, plan: object) -> None:
        """Continue the journal in `folder`. If it belongs to another plan, empty the folder and begin a new one."""
        path, head = folder / JOURNAL, {"plan": digest_of(plan)}
        self.entries = _read_lines(path)
        if not self.entries or self.entries[0] != head:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self.entries = [head]
        # The journal is written again, because a kill can leave an incomplete last line.
        temporary = path.with_suffix(".new")
        self._file = temporary.open("w", encoding="utf-8")
        for entry in self.entries:
            self._file.write(json.dumps(entry) + "\n")
        self._sync()
        temporary.replace(path)

    def add(self, entry: dict[str, Any]) -> None:
        """Add an entry and wait until it is on the disk."""
        self.entries.append(entry)
        self._file.write(json.dumps(entry) + "\n")
        self._sync()

    def all(self, key: str) -> list[Any]:
        """Return the value of `key` in every entry that has it, oldest first."""
        return [entry[key] for entry in self.entries if key in entry]

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a journal without an incomplete last line."""
    entries = []
    with contextlib.suppress(FileNotFoundError, UserError):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                entries.append(parse_json(line, str(path)))
    return entries


class _Recorder:
    """A recorder writes rows, and about once a second syncs them and adds their numbers to the journal under `key`."""

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


def fill_from_reader(title: str, reader: Reader, writer: PackedWriter, journal: Journal) -> None:
    """Write all batches of a reader into the packed arrays.

    Batches that are in the journal are read again, because the source is a stream, but not written again. Raises
    UserError if the number of examples is not that of the layout.
    """
    done = {number for numbers in journal.all("batches") for number in numbers}
    recorder = _Recorder(writer, journal, "batches")
    layout, seen = reader.layout, 0
    expected = layout.total - (layout.counts["val"] if layout.validation_is_test else 0)
    with Progress(title, total=expected, unit="examples") as progress:
        for number, placed in enumerate(reader.batches()):
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
    """Make all chunks of a generator in `jobs` processes, in any order, and write them into the packed arrays.

    Repeats are then replaced if the examples must be distinct. Raises WorkError if a worker process was killed or the
    generator has too few different examples.
    """
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
) -> PythonGenerator[tuple[int, Rows], None, None]:
    """Yield the number and the rows of each chunk as it is finished."""
    expected = generator.seconds_per_example * sum(stop - start for start, stop in ranges.values())
    if jobs == 1 or len(ranges) < 2 or expected < ALONE_SECONDS:
        for number, (start, stop) in ranges.items():
            yield number, generator.generate(seed, start, stop)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy locks that the parent's threads hold
    # Nothing is sent through the pipe. A worker reads its end of file when the parent closes its end.
    worker_end, parent_end = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(jobs, len(ranges)), context, initializer=_prepare_worker, initargs=(worker_end,))
    try:
        running: dict[Future[Rows], int] = {}
        waiting = iter(ranges.items())
        while True:
            for number, (start, stop) in waiting:
                running[pool.submit(_generate_in_worker, generator, seed, start, stop)] = number
                if len(running) >= QUEUED_PER_JOB * jobs:
                    break
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise WorkError(
            "a worker process ended, perhaps for lack of memory: type the same to go on. A script that calls prepare "
            'needs `if __name__ == "__main__":` before the call.'
        ) from None
    finally:
        parent_end.close()  # before the shutdown, which would otherwise wait until the running chunks are finished
        pool.shutdown(cancel_futures=True)
        worker_end.close()


_not_generating = threading.Lock()
"""Held by a worker's main thread except while it generates, so that its process is not ended while it sends rows.

Half a message would make the parent wait for the other half for ever.
"""


def _prepare_worker(pipe: Connection) -> None:
    """Make this worker process exit when the parent process closes its end of `pipe` or dies.

    The worker ignores Ctrl-C and what schedulers send, because the parent handles it. It exits without cleanup and in
    the middle of a chunk, because an unfinished chunk is of no use and Ctrl-C must not wait for the chunk's end.
    """
    for number in STOPPING:
        if number is not signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    _not_generating.acquire()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_when_told() -> None:
        pipe.poll(None)  # returns at the end of file
        _not_generating.acquire()
        os._exit(0)

    def exit_with_parent() -> None:
        parent.join()
        os._exit(0)

    for target in (exit_when_told, exit_with_parent):
        threading.Thread(target=target, daemon=True).start()


def _generate_in_worker(generator: Generator, seed: int, start: int, stop: int) -> Rows:
    """Return the rows of a chunk. The worker may be told to exit until they are complete."""
    _not_generating.release()
    try:
        return generator.generate(seed, start, stop)
    finally:
        _not_generating.acquire()


def _replace_repeats(generator: Generator, seed: int, writer: PackedWriter, journal: Journal) -> None:
    """Replace each repeated example by the next example after the last index that is not a repeat.

    The list of replacements is in the journal before the first one is written, so a kill in between changes nothing.
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
    """Return pairs (index of a repeat, index of the example that replaces it), in order.

    Raises WorkError if the generator has too few different examples.
    """
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
    """Copy the test split to val for protocols that select on test, so that every set has three splits.

    The copies are on the disk when it returns.
    """
    for array in ARRAYS:
        shutil.copyfile(folder / relative_path("test", array), folder / relative_path("val", array))
    sync_files((folder / relative_path("val", "inputs")).parent)


def sync_files(folder: Path) -> None:
    """Wait until every file below `folder` is on the disk."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
