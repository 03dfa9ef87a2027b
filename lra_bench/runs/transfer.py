"""Moving runs between machines: runs are packed into one file on one of them, and unpacked and continued on another.

The folder of a run is small: parameters, optimizer and metrics. Data is not packed; prepare it again, or copy it.

A file is complete or absent, and so is every run that an import brings: it is unpacked beside the runs and renamed into
its place. At whatever moment either is killed, no run is lost, and the same command ends the work.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import shutil
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from lra_bench.errors import UserError, WorkError
from lra_bench.paths import locked, runs_folder, write_atomically
from lra_bench.progress import print_line, warn
from lra_bench.records.curves import FILE as CURVE
from lra_bench.records.curves import best_step
from lra_bench.records.finished import CORRECT, RECORD, is_finished, load_finished
from lra_bench.records.proof import run_of
from lra_bench.records.schema import Record
from lra_bench.runs.checksums import SETTINGS, SUMS
from lra_bench.runs.locking import Busy, aside_of, discard, leave, run_locked
from lra_bench.runs.run import Run, all_runs, find_run, load_run, refuse_a_file
from lra_bench.runs.saved_steps import PRETRAINING, damage_of_step, saved_steps, whole_steps

KEPT = (SETTINGS, SUMS, CORRECT, RECORD, CURVE)
"""The files of a run that are packed beside its checkpoints."""

ENDINGS = (".tar.xz", ".txz")
"""The endings of a packed file's name, which say what it is."""

PRESET = 0
"""The effort of xz. Parameters lose a thirteenth of their size at any; this is three times as fast as the default."""

MOST_RATIO, SPARE = 100, 64 << 20
"""An import unpacks at most so many times the bytes of the file and so many bytes more. Checkpoints hardly compress."""

MEMORY = 256 << 20
"""The most bytes that decompression may take. A file of `export` takes 9 MB."""

TRIES, PAUSE = 200, 0.05
"""How often a run that changes while it is read is read again, and the seconds between."""

MOST_FILES, LONGEST_NAME = 100_000, 200
"""The most files in a packed file, and the most characters of a file's name."""

_CHUNK = 1 << 20


def export_runs(file: Path, names: Sequence[str] = ()) -> list[Path]:
    """Pack the runs called `names` (default: all of this machine) into `file`, an xz-compressed tar archive.

    A finished run is packed without the checkpoint to resume from, unless its best one is lost. A run in training is
    packed as it is at one moment, without states before the newest. Runs that this version cannot read, and finished
    ones of which no checkpoint can be restored, are left out with a warning. Returns the folders of the packed runs.
    Raises UserError where there is nothing to pack, a run that was named would be left out, or `file` is a folder or
    has another ending.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder. Give the name of a file, as in {file / 'runs.tar.xz'}.")
    if not file.name.endswith(ENDINGS):
        raise UserError(f"export writes an xz-compressed tar archive: name it {' or '.join(ENDINGS)}, not {file.name}.")
    folders = [find_run(name) for name in names] if names else all_runs()
    runs = _runs_to_pack(folders, refuse=bool(names))
    if not runs:
        raise UserError("there is no run to export. Train one: lra-bench train --model s5-ptd --smoke.")
    compressed = io.BytesIO()
    with lzma.open(compressed, "wb", preset=PRESET) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
        for folder, (run, dropped) in runs.items():
            kept = {name: content for name, content in momentary(folder).items() if not name.startswith(dropped)}
            for name, content in kept.items():
                member = tarfile.TarInfo(f"{run.name}/{name}")
                member.size, member.mtime = len(content), int(time.time())
                archive.addfile(member, io.BytesIO(content))
    write_atomically(file, compressed.getvalue())
    return list(runs)


def _runs_to_pack(folders: Sequence[Path], refuse: bool) -> dict[Path, tuple[Run, tuple[str, ...]]]:
    """Return the run of each folder, and how the names of those of its files begin that are not packed.

    A run that cannot be packed is left out with a warning, or with `refuse` raises UserError.
    """
    found = {}
    for folder in folders:
        try:
            found[folder] = load_run(folder), _dropped(folder)
        except UserError as error:
            if refuse:
                raise
            warn(f"left out: {error}")
    return found


def _dropped(folder: Path) -> tuple[str, ...]:
    """Return the checkpoints of a run that are not packed, as the beginnings of their files' names.

    Of a run in training those are the states before the newest whole one; of a finished run the last states and those
    of its pretraining. Where its best checkpoint is lost, the last states are packed instead, and one line says so.
    Raises UserError where the record of the run is damaged, or there is nothing that can be restored.
    """
    if not is_finished(folder):
        kinds = ("checkpoints/last", f"checkpoints/{PRETRAINING}/last")
        newest = {kind: next(whole_steps(folder / kind), 0) for kind in kinds}
        return tuple(f"{kind}/{step}/" for kind in kinds for step in saved_steps(folder / kind) if step < newest[kind])
    record = load_finished(folder)
    lost, nothing = _lost_best(folder, record), _nothing_left(folder, record)
    if nothing:
        raise UserError(
            f"{folder}: {nothing}. To train it anew: lra-bench rm {folder.name}, then {run_of(record).command}"
        )
    if lost:
        print_line(f"{folder}: {lost}. Its last states are packed instead.")
    return ("checkpoints/best/" if lost else "checkpoints/last/", f"checkpoints/{PRETRAINING}/")


def _lost_best(folder: Path, record: Record) -> str:
    """Return why the checkpoint that the record of a completed run scores cannot be restored, or ""."""
    step = best_step(record.curve, record.accuracy.best_epoch)
    if record.status != "completed" or step is None:
        return ""
    damage = damage_of_step(folder / "checkpoints" / "best" / str(step))
    return f"the best checkpoint, of step {step}, cannot be restored ({damage})" if damage else ""


def _nothing_left(folder: Path, record: Record | None) -> str:
    """Return why no checkpoint of a run can be restored, or "". `record` is that of the run if it has ended.

    A run that has not come to its first checkpoint, or diverged, misses none.
    """
    last = folder / "checkpoints" / "last"
    lost = _lost_best(folder, record) if record is not None else ""
    if (lost or (record is None and saved_steps(last))) and next(whole_steps(last), None) is None:
        return f"{lost}, and no other is whole" if lost else "none of its checkpoints is as it was saved"
    return ""


def momentary(folder: Path) -> dict[str, bytes]:
    """Return the files that continue or evaluate a run by their names in its folder, all as they were at one moment.

    Training replaces its checkpoints meanwhile. So names, sizes and times are compared before and after reading; where
    they differ, it is read again. What a moment shows is what a killed process would have left, which training can
    continue. Raises WorkError where the run does not hold still for ten seconds.
    """
    for _ in range(TRIES):
        with contextlib.suppress(FileNotFoundError):  # a step was removed while it was listed or read
            before = _listing(folder)
            content = {name: (folder / name).read_bytes() for name, size in before if size is not None}
            if _listing(folder) == before:
                return content
        time.sleep(PAUSE)
    raise WorkError(f"{folder} changes faster than it can be read. Stop its training, which saves it, and export then.")


def _listing(folder: Path) -> dict[tuple[str, int | None], int]:
    """Return the time of each file and folder of a run by name and size; the size of a folder is None."""
    wanted = [*KEPT, "checkpoints/best", "checkpoints/last", f"checkpoints/{PRETRAINING}"]
    found = {}
    for top in (folder / name for name in wanted):
        for path in [top, *sorted(top.rglob("*"))] if top.is_dir() else [top]:
            name = path.relative_to(folder).as_posix()
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found[name, None if path.is_dir() else status.st_size] = status.st_mtime_ns
    return {key: when for key, when in found.items() if "checkpoint-tmp" not in key[0]}


def import_runs(file: Path) -> list[Path]:
    """Unpack the runs in `file` into this machine's runs folder, and return the folders of those that are new.

    A run is left as it is here, with a line that says why, if it is finished, further trained or in training here, or
    if the packed one cannot be used. Raises UserError where the file is missing or damaged, or holds anything but runs;
    nothing is unpacked then.
    """
    if not file.is_file():
        raise UserError(f"{file} is no file. Give one that `lra-bench export` wrote.")
    check(file)
    imported = []
    with _unpacked(file) as staged:
        for folder in sorted(path.parent for path in staged.glob(f"*/*/*/{SETTINGS}")):
            name = folder.relative_to(staged).as_posix()
            why = _install(folder, runs_folder() / name, name)
            if why:
                print_line(f"{name} is left as it is: {why}.")
            else:
                imported.append(runs_folder() / name)
    return imported


def check(file: Path) -> None:
    """Read `file` to its end. Raises UserError where it is damaged, too large or holds anything but runs."""
    names: set[str] = set()
    with _opened(file) as archive:
        for member in archive:
            _check_member(member)
            if member.name in names or len(names) == MOST_FILES:
                raise UserError(f"{file} is no file of `lra-bench export`: it names a file twice, or too many.")
            names.add(member.name)


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    """Open `file` to be read once from its beginning. Raises UserError, also from within, where it is damaged."""
    try:
        with file.open("rb") as packed:
            unpacked = _Unpacked(packed, MOST_RATIO * file.stat().st_size + SPARE)
            with tarfile.open(fileobj=unpacked, mode="r|") as archive:
                yield archive
            while unpacked.read(_CHUNK):  # the check sums at the end count, too
                pass
    except (lzma.LZMAError, EOFError, tarfile.TarError, ValueError) as error:
        raise UserError(f"{file} is damaged or no file of `lra-bench export` ({error}). Export it again.") from None


class _Unpacked(io.RawIOBase):
    """The content of an xz-compressed file, read from its beginning to its end in a bounded amount of memory."""

    def __init__(self, packed: IO[bytes], most: int):
        self.packed, self.left = packed, most
        self.unpacker = lzma.LZMADecompressor(memlimit=MEMORY)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; fewer only at the end.

        Raises EOFError if the file is cut or goes on after its end, UserError for more bytes than checkpoints can have.
        """
        parts, wanted = [], size
        while wanted and not self.unpacker.eof:
            chunk = self.packed.read(_CHUNK) if self.unpacker.needs_input else b""
            if self.unpacker.needs_input and not chunk:
                raise EOFError("it ends too early")
            parts.append(self.unpacker.decompress(chunk, max_length=wanted))
            wanted -= len(parts[-1])
            self.left -= len(parts[-1])
            if self.left < 0:
                raise UserError("the file unpacks to more bytes than any that `lra-bench export` writes.")
        if self.unpacker.eof and (self.unpacker.unused_data or self.packed.read(1)):
            raise EOFError("something follows its end")
        return b"".join(parts)


def _check_member(member: tarfile.TarInfo) -> None:
    """Raise UserError for a file that `export_runs` never packs."""
    parts = PurePosixPath(member.name).parts
    legal = len(parts) >= 4 and parts[0] != "/" and ".." not in parts
    legal = legal and not any(part.startswith(".") for part in parts[:3])
    legal = legal and (parts[3] == "checkpoints" or (len(parts) == 4 and parts[3] in KEPT))
    legal = legal and member.name.isprintable() and "\\" not in member.name and max(map(len, parts)) <= LONGEST_NAME
    if not legal or not (member.isfile() or member.isdir()) or member.issparse():
        raise UserError(f"{member.name!r} is no file of a run; nothing was unpacked.")


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Write a checked member, a file or a folder, below `folder`. Python has tarfile's filters from 3.11.4 on only."""
    path = folder / member.name
    content = archive.extractfile(member)
    if content is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    """Unpack `file` into a folder beside the runs, which is removed at the end. Only one import at a time does so.

    What an import that was killed left is removed first.
    """
    folder = runs_folder() / ".import"

    def wait() -> None:
        print_line("Another import is at work; waiting for it.")

    with locked(runs_folder() / ".import.lock", wait):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with _opened(file) as archive:
                for member in archive:
                    _check_member(member)
                    _unpack_member(archive, member, folder)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _install(staged: Path, folder: Path, name: str) -> str:
    """Put an unpacked run into its place. Returns "", or the reason why the run here is left as it is."""
    try:
        run = load_run(staged)
        record = load_finished(staged) if is_finished(staged) else None
    except UserError as error:
        return str(error).replace(str(staged), "its").removesuffix(".")
    if run.name != name or (record is not None and run_of(record).name != name):
        return "its files are of another run than its name says"
    nothing = _nothing_left(staged, record)
    if nothing:
        return f"of the run in the file, {nothing}"

    try:
        with run_locked(folder, leave):
            refuse_a_file(folder)
            why = _better_here(staged, folder, record)
            if why:
                return why
            _sync(staged)
            if folder.exists():
                folder.rename(aside_of(folder))
            staged.rename(folder)
            if aside_of(folder).exists():
                discard(aside_of(folder))
    except Busy:
        return "another process trains it here"
    except UserError as error:
        return str(error).removesuffix(".")
    return ""


def _better_here(staged: Path, folder: Path, record: Record | None) -> str:
    """Return why the run of this machine is kept, or "" where the packed one is further, or there is none here.

    `record` is that of the packed run if it has ended.
    """
    if not folder.exists():
        return ""
    if is_finished(folder):
        mended = record is not None and not _lost_best(staged, record) and _is_damaged(folder)
        return "" if mended else "it is finished here"
    if record is not None:
        return ""
    here, there = _steps_of(folder), _steps_of(staged)
    if here < there:
        return ""
    stage, index = ("pretraining step", 1) if here[1] and not here[0] else ("step", 0)
    return f"it came to {stage} {here[index]:,} here, and to {there[index]:,} in the file"


def _steps_of(folder: Path) -> tuple[int, int]:
    """Return the newest whole step of a run, and that of its pretraining; 0 where there is none."""
    kinds = (folder / "checkpoints" / "last", folder / "checkpoints" / PRETRAINING / "last")
    step, pretraining_step = (next(whole_steps(kind), 0) for kind in kinds)
    return step, pretraining_step


def _is_damaged(folder: Path) -> bool:
    """Whether the settings, the record or the best checkpoint of a finished run of this machine is lost."""
    try:
        load_run(folder)
        return bool(_lost_best(folder, load_finished(folder)))
    except UserError:
        return True


def _sync(folder: Path) -> None:
    """Wait until every file below `folder` is on the disk, which must be before it has its name."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
