"""Moving runs between machines: runs are packed into one file on one of them, and unpacked and continued on another.

The folder of a run is small: parameters, optimizer and metrics. Data is not packed; prepare it again, or copy it.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from lra_bench.errors import UserError
from lra_bench.paths import runs_folder, write_atomically
from lra_bench.runs.checksums import SUMS
from lra_bench.runs.run import all_runs, find_run

KEPT = ("run.json", SUMS, "result.json", "metrics.jsonl")
"""The files of a run that are packed beside its checkpoints."""


def export_runs(file: Path, names: Sequence[str] = ()) -> list[Path]:
    """Pack the runs called `names` (default: all of this machine) into `file`, an xz-compressed tar archive.

    A finished run is packed without the checkpoint to resume from. Returns the folders of the packed runs.
    Raises UserError where there is nothing to pack, or `file` is a folder.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder. Give the name of a file, as in {file / 'runs.tar.xz'}.")
    runs = [find_run(name) for name in names] or all_runs()
    if not runs:
        raise UserError("there is no run to export. Train one: lra-bench train --model s5-ptd --smoke.")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for run in runs:
            for path in _files(run):
                archive.add(path, arcname=path.relative_to(runs_folder()).as_posix())
    write_atomically(file, lzma.compress(packed.getvalue()))
    return runs


def _files(run: Path) -> Iterable[Path]:
    """The files that are needed to continue or evaluate the run."""
    finished = (run / "result.json").exists()
    wanted = [run / name for name in KEPT] + [run / "checkpoints" / "best"]
    if not finished:
        wanted.append(run / "checkpoints" / "last")
    for path in wanted:
        if path.is_dir():
            yield from sorted(path.rglob("*"))
        elif path.exists():
            yield path


def import_runs(file: Path) -> list[Path]:
    """Unpack the runs in `file` into this machine's runs folder, and return their folders.

    A run that is finished on this machine is left as it is. Raises UserError where the file is missing or damaged, or
    holds anything but runs.
    """
    if not file.is_file():
        raise UserError(f"{file} is no file. Give one that `lra-bench export` wrote.")
    try:
        content = lzma.decompress(file.read_bytes())
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            members = [member for member in archive.getmembers() if _wanted(member)]
            archive.extractall(runs_folder(), members=members, filter="data")
    except (lzma.LZMAError, EOFError, tarfile.TarError) as error:
        raise UserError(f"{file} is damaged or no file of `lra-bench export` ({error}). Export it again.") from None
    return sorted({runs_folder().joinpath(*PurePosixPath(member.name).parts[:3]) for member in members})


def _wanted(member: tarfile.TarInfo) -> bool:
    """Whether to unpack this file. Raises UserError for a file that `export_runs` never packs."""
    parts = PurePosixPath(member.name).parts
    legal = len(parts) >= 4 and ".." not in parts and parts[3] in (*KEPT, "checkpoints")
    if not legal or not (member.isfile() or member.isdir()):
        raise UserError(f"{member.name!r} is no file of a run; nothing was unpacked.")
    return not runs_folder().joinpath(*parts[:3], "result.json").exists()
